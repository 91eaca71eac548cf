"""The fourteen datatypes of the protocol: numpy's type, ONNX's type, the field of gRPC's typed contents, samples."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from onnx import TensorProto


@dataclass(frozen=True)
class Dtype:
    name: str
    numpy: type
    onnx: int
    contents: str | None
    samples: tuple

    @property
    def is_float(self) -> bool:
        return self.name in ("FP16", "BF16", "FP32", "FP64")

    @property
    def is_bytes(self) -> bool:
        return self.name == "BYTES"

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """The samples, repeated to fill `shape`."""
        count = int(np.prod(shape, dtype=np.int64))
        elements = [self.samples[index % len(self.samples)] for index in range(count)]
        flat = np.empty(count, dtype=self.numpy)
        for index, element in enumerate(elements):
            flat[index] = element
        return flat.reshape(shape)


def _integer(name: str, kind: type, onnx: int, contents: str) -> Dtype:
    limits = np.iinfo(kind)
    return Dtype(name, kind, onnx, contents, (int(limits.min), int(limits.max), 0, 1, 7))


def _float(name: str, kind: type, onnx: int, contents: str | None) -> Dtype:
    limits = ml_dtypes.finfo(kind)
    extremes = (limits.max, limits.min, limits.tiny, limits.smallest_subnormal)
    return Dtype(name, kind, onnx, contents, (*(float(value) for value in extremes), 0.0, -0.0, 1.5, -2.25, 0.1))


TEXT = (b"", "grün".encode(), "日本語 🦊".encode(), b"a\0b", b'quote " and \\', b"line\nbreak", b"plain")

DTYPES = [
    Dtype("BOOL", np.bool_, TensorProto.BOOL, "bool_contents", (True, False, False)),
    _integer("UINT8", np.uint8, TensorProto.UINT8, "uint_contents"),
    _integer("UINT16", np.uint16, TensorProto.UINT16, "uint_contents"),
    _integer("UINT32", np.uint32, TensorProto.UINT32, "uint_contents"),
    _integer("UINT64", np.uint64, TensorProto.UINT64, "uint64_contents"),
    _integer("INT8", np.int8, TensorProto.INT8, "int_contents"),
    _integer("INT16", np.int16, TensorProto.INT16, "int_contents"),
    _integer("INT32", np.int32, TensorProto.INT32, "int_contents"),
    _integer("INT64", np.int64, TensorProto.INT64, "int64_contents"),
    _float("FP16", np.float16, TensorProto.FLOAT16, None),
    _float("BF16", ml_dtypes.bfloat16, TensorProto.BFLOAT16, None),
    _float("FP32", np.float32, TensorProto.FLOAT, "fp32_contents"),
    _float("FP64", np.float64, TensorProto.DOUBLE, "fp64_contents"),
    Dtype("BYTES", np.object_, TensorProto.STRING, "bytes_contents", TEXT),
]
BY_NAME = {dtype.name: dtype for dtype in DTYPES}
FLOATS = [dtype for dtype in DTYPES if dtype.is_float]


def name_of(array: np.ndarray) -> str:
    """The datatype's name of a numpy array."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    return next(dtype.name for dtype in DTYPES if np.dtype(dtype.numpy) == array.dtype)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Text elements as byte strings; other arrays as they are."""
    if array.dtype.kind not in "OSU":
        return array
    flat = np.empty(array.size, dtype=np.object_)
    for index, element in enumerate(array.reshape(-1)):
        flat[index] = element.encode() if isinstance(element, str) else bytes(element)
    return flat.reshape(array.shape)


def assert_same(got: np.ndarray, wanted: np.ndarray) -> None:
    """Same datatype, shape and bits (NaN equals NaN)."""
    assert got.shape == wanted.shape, f"shape {got.shape}, expected {wanted.shape}"
    got, wanted = as_bytes(got), as_bytes(wanted)
    assert got.dtype == wanted.dtype, f"dtype {got.dtype}, expected {wanted.dtype}"
    if wanted.dtype == np.object_:
        assert got.tolist() == wanted.tolist()
    elif wanted.dtype.kind in "fV":
        both_nan = np.isnan(got.astype(np.float64)) & np.isnan(wanted.astype(np.float64))
        same_bits = (
            got.view(f"u{got.itemsize}") == wanted.view(f"u{wanted.itemsize}") if got.ndim else _bits(got, wanted)
        )
        assert np.all(both_nan | same_bits), f"{got} instead of {wanted}"
    else:
        assert np.array_equal(got, wanted), f"{got} instead of {wanted}"


def _bits(got: np.ndarray, wanted: np.ndarray) -> bool:
    return got.tobytes() == wanted.tobytes()
