"""Writes golden rows: inputs with the outputs that ONNX Runtime gives for them."""

import json
from pathlib import Path

import numpy as np
import onnxruntime


def session(model: Path) -> onnxruntime.InferenceSession:
    """One thread: sums are then added in the same order on every machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def write(model: Path, to: Path, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Runs `model` on each row (name: inputs) and writes name, inputs and all outputs, one JSON object a line."""
    runtime = session(model)
    names = [output.name for output in runtime.get_outputs()]
    lines = []
    for name, inputs in rows.items():
        outputs = dict(zip(names, runtime.run(names, inputs), strict=True))
        row = {"name": name, "inputs": nested(inputs), "outputs": nested(outputs)}
        lines.append(json.dumps(row, allow_nan=False) + "\n")
    to.write_text("".join(lines), encoding="utf-8")


def nested(tensors: dict[str, np.ndarray]) -> dict[str, list]:
    return {name: _shortest(tensor).tolist() for name, tensor in tensors.items()}


def _shortest(tensor: np.ndarray) -> np.ndarray:
    """5.1 of FP32 as 5.1, not as the 5.099999904632568 that it becomes on the way through FP64."""
    if tensor.dtype != np.float32:
        return tensor
    return np.array([float(str(value)) for value in tensor.flat], dtype=np.float64).reshape(tensor.shape)
