"""The conformance models of the `onnx` package: one per operator, datatype and shape, and exported networks.

Each is pushed over the one before it, under one name, and called through tritonclient. What it must answer is what the
package says, where ONNX Runtime agrees with the package when it is called directly; else what ONNX Runtime answers.
"""

import ctypes
import functools
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import TensorProto, numpy_helper
from tritonclient.utils import InferenceServerException

from support import calls, dtypes
from support.admin import check_error

DATA = Path(onnx.__file__).parent / "backend/test/data"
FOLDERS = ("simple", "pytorch-operator", "pytorch-converted")
LIGHT = ("light_squeezenet", "light_shufflenet", "light_resnet50")
SERVED_TYPES = {dtype.onnx for dtype in dtypes.DTYPES}
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
# The newest opset and IR version that ONNX Runtime calls released; the package is ahead of it.
RELEASED_OPSET = 24
RELEASED_IR = 11
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}
HALF_TOLERANCE = {"rtol": 2e-2, "atol": 2e-2}

onnxruntime.set_default_logger_severity(4)


def operator_cases() -> dict[str, tuple]:
    """Name -> (model, data sets) of the package's generated operator tests."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return {case.name: (case.model, case.data_sets) for case in cases if case.model is not None}


def folder_cases() -> dict[str, Path]:
    """Name -> folder of the package's stored models."""
    return {path.name: path for folder in FOLDERS for path in sorted((DATA / folder).iterdir()) if path.is_dir()}


OPERATORS = operator_cases()
STORED = folder_cases()


def read_stored(folder: Path):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    return model, [
        (
            [read_tensor(path) for path in numbered(data, "input")],
            [read_tensor(path) for path in numbered(data, "output")],
        )
        for data in sorted(folder.glob("test_data_set_*"))
    ]


def numbered(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))


def read_tensor(path: Path):
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


# What the models are.


def is_served(model) -> bool:
    """Only dense tensors of the protocol's datatypes go in and out."""
    values = [*required_inputs(model), *model.graph.output]
    return all(
        value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type in SERVED_TYPES
        for value in values
    )


def required_inputs(model) -> list:
    defaults = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in defaults]


def is_random(model) -> bool:
    def operators(graph):
        for node in graph.node:
            yield node.op_type
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from operators(attribute.g)

    used = set(operators(model.graph)) | {node.op_type for function in model.functions for node in function.node}
    return bool(used & RANDOM) or any(
        node.op_type == "Dropout" and len(node.input) == 3 and node.input[2] for node in model.graph.node
    )


def local_session(model):
    """ONNX Runtime's own session, or None if it refuses the model."""
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:
        return None


def released(model):
    """The same model under the newest released opset, as an exporter would write it today."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(copy.ir_version, RELEASED_IR)
    for opset in [*copy.opset_import, *(opset for function in copy.functions for opset in function.opset_import)]:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(opset.version, RELEASED_OPSET)
    return copy


def local_run(session, inputs: dict):
    """ONNX Runtime's own answer by output name, or None if it fails."""
    names = [output.name for output in session.get_outputs()]
    try:
        if any(array.dtype == ml_dtypes.bfloat16 for array in inputs.values()) or "bfloat16" in output_types(session):
            values = map(from_ort, session.run_with_ort_values(names, {k: to_ort(v) for k, v in inputs.items()}))
        else:
            # Elements of string tensors must be `str`.
            feeds = {k: v.astype(str).astype(object) if v.dtype.kind in "OSU" else v for k, v in inputs.items()}
            values = session.run(names, feeds)
    except Exception:
        return None
    return dict(zip(names, values, strict=True))


def output_types(session) -> str:
    return " ".join(output.type for output in session.get_outputs())


def to_ort(array: np.ndarray) -> onnxruntime.OrtValue:
    if array.dtype == ml_dtypes.bfloat16:
        bits = np.asarray(array, order="C").view(np.uint16)  # ascontiguousarray would make a scalar 1-D
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def from_ort(value) -> np.ndarray:
    """numpy knows no bfloat16, so such an output is copied from memory."""
    if value.element_type() != TensorProto.BFLOAT16:
        return value.numpy()
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, dtype=ml_dtypes.bfloat16).reshape(value.shape())


def named_inputs(model, arrays) -> dict:
    """Arrays by input name."""
    arrays = [numpy_helper.to_array(array) if isinstance(array, TensorProto) else array for array in arrays]
    names = (value.name for value in required_inputs(model))
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=False)}


# Comparing.


def tolerance(array: np.ndarray) -> dict:
    return HALF_TOLERANCE if array.dtype.itemsize == 2 else TOLERANCE


def is_close(got: np.ndarray, wanted: np.ndarray) -> bool:
    got, wanted = dtypes.as_bytes(got), dtypes.as_bytes(wanted)
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if wanted.dtype == np.object_:
        return got.tolist() == wanted.tolist()
    if dtypes.BY_NAME[dtypes.name_of(wanted)].is_float:
        got, wanted, limits = got.astype(np.float64), wanted.astype(np.float64), tolerance(wanted)
        return np.allclose(got, wanted, equal_nan=True, **limits)
    return np.array_equal(got, wanted)


def oracle(model, local: dict, wanted: list) -> dict:
    """The package's outputs where ONNX Runtime agrees with them, else ONNX Runtime's."""
    expected = dict(zip((output.name for output in model.graph.output), wanted, strict=False))

    def choose(name, array):
        said = expected.get(name)
        said = numpy_helper.to_array(said) if isinstance(said, TensorProto) else said
        return said if isinstance(said, np.ndarray) and is_close(array, said) else array

    return {name: choose(name, array) for name, array in local.items()}


def check_answers(got: dict, wanted: dict, *, exact_values: bool) -> None:
    assert set(got) == set(wanted)
    for name, array in wanted.items():
        if exact_values:
            assert is_close(got[name], array), f"{name}: {got[name]} instead of {array}"
        else:
            assert (got[name].shape, dtypes.name_of(got[name])) == (array.shape, dtypes.name_of(array)), name


def call(module, client, model: str, inputs: dict) -> dict:
    result = client.infer(model, calls.triton_inputs(module, inputs))
    response = result.get_response()
    listed = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [output["name"] if isinstance(output, dict) else output.name for output in listed]
    return {name: result.as_numpy(name) for name in names}


# The tests.


@pytest.fixture(scope="module")
def check(admin, http, grpc):
    """Pushes a model and checks all its data sets through both clients."""
    return functools.partial(check_model, admin, (triton_http, http), (triton_grpc, grpc))


def check_model(admin, rest, grpc, name: str, model, data_sets) -> None:
    slot = "conformance"
    if not is_served(model):
        # A model that ONNX Runtime cannot load either may be refused for that.
        check_error(admin.push_raw(slot, model.SerializeToString()), 422, {"MODEL_UNSUPPORTED", "MODEL_REFUSED"})
        return
    session = local_session(model)
    if session is None:
        check_error(admin.push_raw(slot, model.SerializeToString()), 422, "MODEL_REFUSED")
        model = released(model)
        session = local_session(model)
        if session is None:
            return
    answer = admin.push_raw(slot, model.SerializeToString())
    assert answer.status_code in (200, 201), f"{name}: {answer.text}"
    for arrays, wanted in data_sets:
        inputs = named_inputs(model, arrays)
        local = local_run(session, inputs)
        for module, client in (rest, grpc):
            if local is None:
                with pytest.raises(InferenceServerException, match="model failed"):
                    call(module, client, slot, inputs)
            else:
                got = call(module, client, slot, inputs)
                check_answers(got, oracle(model, local, wanted), exact_values=not is_random(model))


@pytest.mark.parametrize("case", OPERATORS)
def test_operator_model_answers_as_onnx_says(check, case):
    check(case, *OPERATORS[case])


@pytest.mark.parametrize("case", STORED)
def test_stored_model_answers_as_onnx_says(check, case):
    check(case, *read_stored(STORED[case]))


@pytest.mark.parametrize("case", LIGHT)
def test_network_answers_as_onnx_runtime_does(check, case):
    model = onnx.load(DATA / "light" / f"{case}.onnx")
    (value,) = required_inputs(model)
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    image = np.random.default_rng(3).random(shape, dtype=np.float32)
    check(case, model, [([image], [])])


@pytest.mark.parametrize("kind", ["sequence_type", "optional_type", "float8", "int4"])
def test_models_that_no_tensor_client_can_call_are_refused_as_unsupported(admin, kind):
    checked = 0
    for model, _ in OPERATORS.values():
        if kind in kinds(model) and local_session(model) is not None:
            check_error(admin.push_raw("unsupported", model.SerializeToString()), 422, "MODEL_UNSUPPORTED")
            checked += 1
    assert checked


def kinds(model) -> set[str]:
    found = set()
    for value in [*required_inputs(model), *model.graph.output]:
        found.add(value.type.WhichOneof("value"))
        found.add(TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower())
    return found | {"float8" for kind in found if kind.startswith("float8")}
