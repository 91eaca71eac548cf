"""Prints the coefficients of an iris model as the tables of iris.c.

    python sample-models/iris/c/coefficients.py sample-models/iris/v2/model.onnx
"""

import sys

import numpy as np
import onnx


def tables(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The operators are those that training.py exports: Scaler, LinearClassifier, Normalizer."""
    nodes = {node.op_type: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in model.graph.node}
    scaler, classifier = nodes["Scaler"], nodes["LinearClassifier"]
    species = len(classifier["intercepts"])
    return {
        "MEAN[FEATURES]": np.float32(scaler["offset"]),
        "SCALE[FEATURES]": np.float32(scaler["scale"]),
        "WEIGHT[SPECIES][FEATURES]": np.float32(classifier["coefficients"]).reshape(species, -1),
        "BIAS[SPECIES]": np.float32(classifier["intercepts"]),
    }


def c_list(values: np.ndarray) -> str:
    if values.ndim > 1:
        return "{\n    " + ",\n    ".join(c_list(row) for row in values) + ",\n}"
    # Nine digits are enough to read the same FP32 back.
    return "{" + ", ".join(f"{value:#.9g}f" for value in values) + "}"


for name, values in tables(onnx.load(sys.argv[1])).items():
    print(f"static const float {name} = {c_list(values)};")
