"""Golden rows: inputs with the outputs that the served model must give for them (`golden.jsonl`)."""

import json
from typing import TYPE_CHECKING, Any

from .export import run

if TYPE_CHECKING:
    import numpy

ROWS = 8
BATCH = 4


def rows(content: bytes, input_name: str, features: "numpy.ndarray", labels: "numpy.ndarray") -> bytes | None:
    """Some rows of the training data one by one, and some as a batch, with all outputs of ONNX Runtime; one JSON
    object a line.

    `None` if no row is of finite numbers: JSON has no other.
    """
    import numpy

    finite = numpy.flatnonzero(numpy.isfinite(features).all(axis=1))
    if not len(finite):
        return None
    chosen = numpy.unique(finite[numpy.linspace(0, len(finite) - 1, ROWS).round().astype(int)])
    lines = [_line(content, f"row {row}, label {labels[row]}", input_name, features[row : row + 1]) for row in chosen]
    batch = chosen[:BATCH]
    lines.append(_line(content, f"batch of {len(batch)}", input_name, features[batch]))
    return "".join(lines).encode()


def _line(content: bytes, name: str, input_name: str, values: "numpy.ndarray") -> str:
    inputs = {input_name: values}
    outputs = run(content, inputs)
    row = {"name": name, "inputs": _nested(inputs), "outputs": _nested(outputs)}
    return json.dumps(row, allow_nan=False) + "\n"


def _nested(tensors: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: _shortest(tensor).tolist() for name, tensor in tensors.items()}


def _shortest(tensor: Any) -> Any:
    """5.1 of FP32 as 5.1, not as the 5.099999904632568 that it becomes on the way through FP64."""
    import numpy

    if tensor.dtype != numpy.float32:
        return tensor
    return numpy.array([float(str(value)) for value in tensor.flat], dtype=numpy.float64).reshape(tensor.shape)
