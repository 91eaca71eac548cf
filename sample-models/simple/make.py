"""Makes the model that the examples of Triton's client libraries call `simple`: a sum and a difference.

    python sample-models/simple/make.py
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

# A script's import path is its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import golden

FOLDER = Path(__file__).resolve().parent
WIDTH = 16
# The file format that came with the opset; the package would write its newest, which older runtimes refuse.
OPSET, IR_VERSION = 17, 8


def build() -> onnx.ModelProto:
    """INPUT0, INPUT1 INT32 [-1,16]; OUTPUT0 is their sum, OUTPUT1 their difference."""

    def tensor(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.INT32, [None, WIDTH])

    inputs = ["INPUT0", "INPUT1"]
    graph = helper.make_graph(
        [helper.make_node("Add", inputs, ["OUTPUT0"]), helper.make_node("Sub", inputs, ["OUTPUT1"])],
        "simple",
        [tensor(name) for name in inputs],
        [tensor(name) for name in ("OUTPUT0", "OUTPUT1")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def rows() -> dict[str, dict[str, np.ndarray]]:
    def pair(first: list[int], second: list[int]) -> dict[str, np.ndarray]:
        inputs = {"INPUT0": first, "INPUT1": second}
        return {name: np.array(data, np.int32).reshape(-1, WIDTH) for name, data in inputs.items()}

    count = list(range(WIDTH))
    return {
        "as the client examples call it": pair(count, [1] * WIDTH),
        "negative": pair([-value for value in count], count),
        # Exact only if nobody takes the numbers through FP32 on the way.
        "beyond 24 bits": pair([2**30 + value for value in count], [2**24 + 1 + value for value in count]),
        "two rows": pair(count + count, count + [7] * WIDTH),
    }


if __name__ == "__main__":
    model = build()
    onnx.checker.check_model(model, full_check=True)
    (FOLDER / "model.onnx").write_bytes(model.SerializeToString())
    golden.write(FOLDER / "model.onnx", FOLDER / "golden.jsonl", rows())
