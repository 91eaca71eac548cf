"""The tables "How a message is read" and "How an answer is written", row by row, through four clients each."""

import base64
from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import TensorProto, helper

from support import models
from support.typed import graph, renamed

# One message, one row: Y = x0 + 10 x1 + 100 x2 + 1000 x3 tells which column each field became.
DOT = graph("float[N,4] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[4] w = {1, 10, 100, 1000}")
DOT_FIXED = graph("float[1,4] X", "float[1] Y", "Y = MatMul(X, w)", constants="float[4] w = {1, 10, 100, 1000}")
DOT3 = graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}")
ADD1 = graph("float[N,4] X", "float[N,4] Y", "Y = Add(X, one)", constants="float one = {1}")
TWICE = graph("float[N,1] X", "float[N,1] Y", "Y = Add(X, X)")
TWICE_FLAT = graph("float[N] X", "float[N] Y", "Y = Add(X, X)")
IMAGE = graph("float[N,1,28,28] X", "float[N] Y", "Y = ReduceSum <keepdims = 0> (X, axes)",
              constants="int64[3] axes = {1, 2, 3}")  # fmt: skip
PIXELS = graph(
    "float[N,784] X", "float[N] Y", "Y = ReduceSum <keepdims = 0> (X, axes)", constants="int64[1] axes = {1}"
)
OPEN = graph(
    "float[N,2,M] X", "float[N,2] Y", "Y = ReduceSum <keepdims = 0> (X, axes)", constants="int64[1] axes = {2}"
)
# Several inputs: ratio = height / weight, older = age + 1, out = smoker.
PERSON = graph(
    "float[N] height, double[N,1] weight, int64[N,1] age, bool[N] smoker",
    "double[N,1] ratio, int64[N,1] older, bool[N] out",
    "h = Cast <to = 11> (height)",
    "c = Unsqueeze(h, axis)",
    "ratio = Div(c, weight)",
    "older = Add(age, one)",
    "out = Identity(smoker)",
    constants="int64[1] axis = {1}, int64 one = {1}",
)
PERSON_ANSWER = "message A { double ratio = 1; int64 older = 2; bool out = 3; }"
TEXT = graph("string[N,1] S", "string[N,1] T", "T = Identity(S)")
TEXTS = graph("string[N,3] S", "string[N,3] T", "T = Identity(S)")
SHOUT = graph(
    "string[N] S", "string[N] T",
    'T = ai.onnx.ml.LabelEncoder <keys_strings = ["grün", "a", "b c"], values_strings = ["GRÜN", "A", "B C"]> (S)',
)  # fmt: skip
TEXT_AND_NUMBER = graph(
    "string[N] word, float[N] number", "string[N] text, float[N] twice", "text = Identity(word)",
    "twice = Add(number, number)",
)  # fmt: skip
WHOLE = graph("float[2,3] X", "float[2,3] Y", "Y = Add(X, X)")
SCALAR = graph("float X", "float Y", "Y = Add(X, X)")
BYTES_IMAGE = graph("uint8[N,2,2] X", "uint8[N,2,2] Y, int32[N] total", "Y = Identity(X)", "i = Cast <to = 6> (X)",
                    "total = ReduceSum <keepdims = 0> (i, axes)", constants="int64[2] axes = {1, 2}")  # fmt: skip
TWO_TABLES = graph(
    "float[N,2] person, float[N,3] home", "float[N] a, float[N] b", "a = MatMul(person, v)", "b = MatMul(home, w)",
    constants="float[2] v = {1, 10}, float[3] w = {1, 10, 100}",
)  # fmt: skip
ODD = renamed(
    graph("float[N] a, float[N] b", "float[N] y", "t = Add(b, b)", "y = Add(a, t)"),
    a="Sepal Length", b="sepal.width-cm", y="serving:Total_Sum",
)  # fmt: skip


def b64(array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


@dataclass
class Case:
    model: bytes
    body: str
    calls: list = field(default_factory=list)  # (request, answer) or (method, request, answer)


IMAGE_VALUES = [index / 16 for index in range(784)]
READ = {
    "scalars-by-number": Case(
        DOT,
        "message Q { float d = 9; float b = 2; float a = 1; float c = 4; } message A { float y = 1; }",
        [({"a": 1, "b": 2, "c": 3, "d": 4}, {"y": 4321}), ({}, {"y": 0}), ({"d": -1}, {"y": -1000})],
    ),
    "scalars-fixed-first-dimension": Case(
        DOT_FIXED,
        "message Q { float a = 1; float b = 2; float c = 3; float d = 4; } message A { float y = 1; }",
        [({"a": 1, "b": 2, "c": 3, "d": 4}, {"y": 4321})],
    ),
    "scalars-by-input-name": Case(
        PERSON,
        "message Q { bool smoker = 1; int64 age = 2; double weight = 3; float height = 4; }" + PERSON_ANSWER,
        [
            ({"height": 3, "weight": 2, "age": 41, "smoker": True}, {"ratio": 1.5, "older": 42, "out": True}),
            ({"weight": 1}, {"ratio": 0.0, "older": 1, "out": False}),
        ],
    ),
    "one-field-one-input": Case(
        TWICE,
        "message Q { float whatever = 3; } message A { float anything = 7; }",
        [({"whatever": 4}, {"anything": 8})],
    ),
    "one-field-one-input-flat": Case(
        TWICE_FLAT, "message Q { double whatever = 3; } message A { double z = 7; }", [({"whatever": 4.5}, {"z": 9})]
    ),
    "names-without-case-and-signs": Case(
        ODD,
        "message Q { float SEPAL_WIDTH_CM = 1; float sepal_length = 2; } message A { float serving_total_sum = 1; }",
        [({"sepal_length": 1, "SEPAL_WIDTH_CM": 2}, {"serving_total_sum": 5})],
    ),
    "repeated-is-a-flattened-row": Case(
        PIXELS,
        "message Q { repeated float pixels = 1; } message A { float y = 1; }",
        [({"pixels": IMAGE_VALUES}, {"y": sum(IMAGE_VALUES)})],
    ),
    "repeated-is-a-flattened-image": Case(
        IMAGE,
        "message Q { repeated double pixels = 1; } message A { float y = 1; }",
        [({"pixels": IMAGE_VALUES}, {"y": sum(IMAGE_VALUES)})],
    ),
    "repeated-takes-what-is-left": Case(
        OPEN,
        "message Q { repeated float x = 1; } message A { repeated float y = 1; }",
        [({"x": [1, 2, 3, 4]}, {"y": [3, 7]}), ({"x": [1, 2, 3, 4, 5, 6]}, {"y": [6, 15]})],
    ),
    "batch-of-scalar-rows": Case(
        DOT,
        "message Q { repeated Row rows = 1; } message Row { float a = 1; float b = 2; float c = 3; float d = 4; }"
        "message A { repeated R out = 1; } message R { float y = 1; }",
        [
            ({"rows": [{"a": 1}, {"b": 1}, {}, {"a": 1, "b": 2, "c": 3, "d": 4}]},
             {"out": [{"y": 1}, {"y": 10}, {"y": 0}, {"y": 4321}]}),
            ({"rows": [{"c": 5}]}, {"out": [{"y": 500}]}),
            ({}, {"out": []}),
        ],
    ),
    "batch-of-repeated-rows": Case(
        IMAGE,
        "message Q { repeated Image images = 1; } message Image { repeated float pixels = 1; }"
        "message A { repeated R out = 1; } message R { float y = 1; }",
        [({"images": [{"pixels": IMAGE_VALUES}, {"pixels": [1] * 784}]},
          {"out": [{"y": sum(IMAGE_VALUES)}, {"y": 784}]})],
    ),
    "batch-of-rows-by-input-name": Case(
        PERSON,
        "message Q { repeated Row rows = 1; } message Row { bool smoker = 1; int64 age = 2; double weight = 3; "
        "float height = 4; } message A { repeated R rows = 1; } "
        "message R { double ratio = 1; int64 older = 2; bool out = 3; }",
        [
            ({"rows": [{"height": 3, "weight": 2, "age": 41, "smoker": True}, {"weight": 1, "age": -1}]},
             {"rows": [{"ratio": 1.5, "older": 42, "out": True}, {"ratio": 0, "older": 0, "out": False}]}),
        ],
    ),
    "columns-of-a-batch-by-input-name": Case(
        PERSON,
        "message Q { repeated float height = 1; repeated double weight = 2; repeated int64 age = 3; "
        "repeated bool smoker = 4; } message A { repeated double ratio = 1; repeated int64 older = 2; "
        "repeated bool out = 3; }",
        [
            ({"height": [3, 0], "weight": [2, 1], "age": [41, 7], "smoker": [True, False]},
             {"ratio": [1.5, 0], "older": ["42", "8"], "out": [True, False]}),
        ],
    ),
    "columns-of-a-batch-of-one-input": Case(
        DOT3,
        "message Q { repeated float c = 3; repeated float a = 1; repeated float b = 2; }"
        "message A { repeated float y = 1; }",
        [({"a": [1, 0], "b": [2, 0], "c": [3, 1]}, {"y": [321, 100]})],
    ),
    "one-column-of-a-batch": Case(
        TWICE_FLAT,
        "message Q { repeated float x = 1; } message A { repeated float y = 1; }",
        [({"x": [1, 2, 3]}, {"y": [2, 4, 6]}), ({"x": []}, {"y": []})],
    ),
    "message-field-as-if-its-fields-stood-here": Case(
        DOT,
        "message Q { Inner features = 1; } message Inner { float a = 1; float b = 2; float c = 3; float d = 4; }"
        "message A { Out prediction = 1; } message Out { float y = 1; }",
        [({"features": {"a": 1, "d": 4}}, {"prediction": {"y": 4001}}), ({}, {"prediction": {"y": 0}})],
    ),
    "message-field-around-a-batch": Case(
        DOT,
        "message Q { Table table = 1; } message Table { repeated Row rows = 1; }"
        "message Row { float a = 1; float b = 2; float c = 3; float d = 4; }"
        "message A { repeated R out = 1; } message R { float y = 1; }",
        [({"table": {"rows": [{"a": 1}, {"d": 2}]}}, {"out": [{"y": 1}, {"y": 2000}]})],
    ),
    "message-fields-named-as-inputs": Case(
        TWO_TABLES,
        "message Q { Home home = 1; Person person = 2; } message Home { float x = 1; float y = 2; float z = 3; }"
        "message Person { float age = 1; float size = 2; } message A { float b = 1; float a = 2; }",
        [({"home": {"x": 1, "y": 2, "z": 3}, "person": {"age": 4, "size": 5}}, {"b": 321, "a": 54})],
    ),
    "rows-with-message-fields": Case(
        TWO_TABLES,
        "message Q { repeated Row rows = 1; } message Row { Home home = 1; Person person = 2; }"
        "message Home { float x = 1; float y = 2; float z = 3; } message Person { float age = 1; float size = 2; }"
        "message A { repeated R rows = 1; } message R { float b = 1; float a = 2; }",
        [({"rows": [{"home": {"x": 1}, "person": {"age": 4, "size": 5}}, {}]},
          {"rows": [{"b": 1, "a": 54}, {"b": 0, "a": 0}]})],
    ),
    "repeated-fields-named-as-inputs": Case(
        TWO_TABLES,
        "message Q { repeated float home = 1; repeated float person = 2; } message A { float a = 1; float b = 2; }",
        [({"home": [1, 2, 3], "person": [4, 5]}, {"a": 54, "b": 321})],
    ),
    "string": Case(SHOUT, "message Q { string s = 1; } message A { string t = 1; }", [({"s": "grün"}, {"t": "GRÜN"})]),
    "string-empty": Case(TEXT, "message Q { string s = 1; } message A { string t = 1; }", [({}, {"t": ""})]),
    "strings-are-a-row": Case(
        TEXTS,
        "message Q { repeated string words = 1; } message A { repeated string t = 1; }",
        [({"words": ["a", "", "日本 🦊"]}, {"t": ["a", "", "日本 🦊"]})],
    ),
    "strings-as-columns": Case(
        TEXTS,
        "message Q { string a = 1; string b = 2; string c = 3; } message A { string x = 1; string y = 2; "
        "string z = 3; }",
        [({"a": "1", "c": "3"}, {"x": "1", "y": "", "z": "3"})],
    ),
    "batch-of-strings": Case(
        SHOUT,
        "message Q { repeated string s = 1; } message A { repeated string t = 1; }",
        [({"s": ["a", "b c"]}, {"t": ["A", "B C"]})],
    ),
    "settled-by-type": Case(
        TEXT_AND_NUMBER,
        "message Q { float a = 1; string b = 2; } message A { string x = 1; float y = 2; }",
        [({"a": 1.5, "b": "w"}, {"x": "w", "y": 3})],
    ),
    "settled-by-name-then-what-is-left": Case(
        PERSON,
        "message Q { float height = 1; double weight = 2; sint64 years = 3; bool smoker = 4; }" + PERSON_ANSWER,
        [({"height": 1, "weight": 2, "years": 3}, {"ratio": 0.5, "older": 4, "out": False})],
    ),
    "bytes-of-a-string-input": Case(
        TEXT,
        "message Q { bytes raw = 1; } message A { bytes t = 1; }",
        [({"raw": b64(np.frombuffer(b"a\xff\0b", np.uint8))}, {"t": b64(np.frombuffer(b"a\xff\0b", np.uint8))})],
    ),
    "bytes-are-elements-of-a-row": Case(
        BYTES_IMAGE,
        "message Q { bytes image = 1; } message A { int32 total = 1; bytes y = 2; }",
        [({"image": b64(np.array([1, 2, 3, 255], np.uint8))},
          {"total": 261, "y": b64(np.array([1, 2, 3, 255], np.uint8))})],
    ),
    "bytes-are-little-endian-floats": Case(
        ADD1,
        "message Q { bytes x = 1; } message A { bytes y = 1; }",
        [({"x": b64(np.array([1, 2, 3, 4], "<f4"))}, {"y": b64(np.array([2, 3, 4, 5], "<f4"))})],
    ),
    "batch-of-bytes": Case(
        BYTES_IMAGE,
        "message Q { repeated Image images = 1; } message Image { bytes x = 1; }"
        "message A { repeated R out = 1; } message R { int32 total = 1; }",
        [({"images": [{"x": b64(np.full(4, 2, np.uint8))}, {"x": b64(np.full(4, 5, np.uint8))}]},
          {"out": [{"total": 8}, {"total": 20}]})],
    ),
    "fixed-first-dimension-takes-the-whole": Case(
        WHOLE,
        "message Q { repeated float x = 1; } message A { repeated float y = 1; }",
        [({"x": [1, 2, 3, 4, 5, 6]}, {"y": [2, 4, 6, 8, 10, 12]})],
    ),
    "scalar-input": Case(
        SCALAR, "message Q { float x = 1; } message A { float y = 1; }", [({"x": 2.5}, {"y": 5}), ({}, {"y": 0})]
    ),
    "ignored-fields": Case(
        DOT3,
        "message Q { string id = 1 [(baton.ignore) = true]; float a = 2; float b = 3; float c = 4; "
        "google.protobuf.Timestamp at = 5 [(baton.ignore) = true]; repeated Q more = 6 [(baton.ignore) = true]; }"
        "message A { float y = 1; string note = 2 [(baton.ignore) = true]; }",
        [({"id": "x", "a": 1, "b": 2, "c": 3, "at": "2026-01-01T00:00:00Z", "more": [{"a": 9}]},
          {"y": 321, "note": ""})],
    ),
    "methods-of-every-shape": Case(
        DOT3,
        "service S { rpc One(Row) returns (R); rpc Many(Rows) returns (Rs); rpc Frame(Columns) returns (Ys);"
        " rpc Flat(Pixels) returns (R); }"
        "message Row { float a = 1; float b = 2; float c = 3; } message R { float y = 1; }"
        "message Rows { repeated Row rows = 1; } message Rs { repeated R rows = 1; } message Ys { "
        "repeated float y = 1; }"
        "message Columns { repeated float a = 1; repeated float b = 2; repeated float c = 3; }"
        "message Pixels { repeated float x = 1; }",
        [
            ("One", {"a": 1, "b": 2, "c": 3}, {"y": 321}),
            ("Many", {"rows": [{"a": 1}, {"c": 3}]}, {"rows": [{"y": 1}, {"y": 300}]}),
            ("Frame", {"a": [1, 0], "b": [0, 0], "c": [0, 3]}, {"y": [1, 300]}),
            ("Flat", {"x": [1, 2, 3]}, {"y": 321}),
        ],
    ),
}  # fmt: skip


def run(typed, case: Case) -> None:
    service = typed(case.model, case.body)
    for method, request, wanted in [call if len(call) == 3 else ("Call", *call) for call in case.calls]:
        service.check(method, request, wanted)


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_how_a_message_is_read(typed, case):
    run(typed, case)


# Answers.

LABELLED = helper.make_node(
    "ZipMap", ["P"], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=["setosa", "versicolor", "virginica"]
)
NUMBERED = helper.make_node("ZipMap", ["P"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[10, 20, 30])


def classifier(zipmap) -> bytes:
    """label = argmax, probabilities = the input itself with class names, as scikit-learn's converter writes them."""
    key = TensorProto.STRING if zipmap is LABELLED else TensorProto.INT64
    value_type = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("probabilities", helper.make_sequence_type_proto(value_type))
    return models.build(
        [
            helper.make_node("Identity", ["X"], ["P"]),
            helper.make_node("ArgMax", ["X"], ["label"], axis=1, keepdims=0),
            zipmap,
        ],
        [models.value("X", shape=(None, 3))],
        [models.value("label", TensorProto.INT64, (None,)), maps],
        opsets=[helper.make_opsetid("ai.onnx.ml", 3)],
    )


SPECIES = graph(
    "float[N,3] X", "string[N] species, float[N,3] scores", "i = ArgMax <axis = 1, keepdims = 0> (X)",
    "species = Gather(names, i)", "scores = Identity(X)",
    constants='string[3] names = {"SETOSA", "VERSICOLOR", "VIRGINICA"}',
)  # fmt: skip
ROW3 = "message Q { float a = 1; float b = 2; float c = 3; }"
ROWS3 = "message Q { repeated Row rows = 1; } message Row { float a = 1; float b = 2; float c = 3; }"
KIND = "enum Kind { SETOSA = 0; VERSICOLOR = 1; VIRGINICA = 2; }"
ABC = {"a": 0.25, "b": 0.5, "c": 0.125}
WRITE = {
    "columns-of-the-row-by-number": Case(
        ADD1,
        "message Q { repeated float x = 1; } message A { float d = 7; float c = 6; float b = 5; float a = 4; }",
        [({"x": [1, 2, 3, 4]}, {"a": 2, "b": 3, "c": 4, "d": 5})],
    ),
    "a-row-flattened": Case(
        ADD1,
        "message Q { float a = 1; float b = 2; float c = 3; float d = 4; } message A { repeated double y = 1; }",
        [({"a": 1}, {"y": [2, 1, 1, 1]})],
    ),
    "an-image-flattened": Case(
        graph("float[N,2,3] X", "float[N,2,3] Y", "Y = Add(X, X)"),
        "message Q { repeated float x = 1; } message A { repeated float y = 1; }",
        [({"x": [1, 2, 3, 4, 5, 6]}, {"y": [2, 4, 6, 8, 10, 12]})],
    ),
    "a-message-a-row-with-columns": Case(
        ADD1,
        "message Q { repeated R rows = 1; } message R { float a = 1; float b = 2; float c = 3; float d = 4; }"
        "message A { repeated R rows = 1; }",
        [({"rows": [{"a": 1}, {"d": 1}]},
          {"rows": [{"a": 2, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 2}]})],
    ),
    "columns-of-a-batch": Case(
        ADD1,
        "message Q { repeated R rows = 1; } message R { float a = 1; float b = 2; float c = 3; float d = 4; }"
        "message A { repeated float a = 1; repeated float b = 2; repeated float c = 3; repeated float d = 4; }",
        [({"rows": [{"a": 1}, {"d": 1}]}, {"a": [2, 1], "b": [1, 1], "c": [1, 1], "d": [1, 2]})],
    ),
    "map-of-class-names": Case(
        classifier(LABELLED),
        ROW3 + "message A { int64 label = 1; map<string, float> probabilities = 2; }",
        [(ABC, {"label": 1, "probabilities": {"setosa": 0.25, "versicolor": 0.5, "virginica": 0.125}})],
    ),
    "map-of-integer-classes": Case(
        classifier(NUMBERED),
        ROW3 + "message A { int32 label = 1; map<int64, double> probabilities = 2; }",
        [(ABC, {"label": 1, "probabilities": {"10": 0.25, "20": 0.5, "30": 0.125}})],
    ),
    "integer-classes-as-text": Case(
        classifier(NUMBERED),
        ROW3 + "message A { map<string, float> probabilities = 2; }",
        [(ABC, {"probabilities": {"10": 0.25, "20": 0.5, "30": 0.125}})],
    ),
    "maps-in-a-batch": Case(
        classifier(LABELLED),
        ROWS3 + "message A { repeated R rows = 1; } message R { int64 label = 1; map<string, "
        "float> probabilities = 2; }",
        [({"rows": [ABC, {"c": 1}]}, {"rows": [
            {"label": 1, "probabilities": {"setosa": 0.25, "versicolor": 0.5, "virginica": 0.125}},
            {"label": 2, "probabilities": {"setosa": 0, "versicolor": 0, "virginica": 1}}]})],
    ),
    "scalars-by-label": Case(
        classifier(LABELLED),
        ROW3 + "message A { P probabilities = 1; } message P { float virginica = 1; float setosa = 2; "
        "float versicolor = 3; }",
        [(ABC, {"probabilities": {"setosa": 0.25, "versicolor": 0.5, "virginica": 0.125}})],
    ),
    "scalars-of-a-labelled-output-by-number": Case(
        classifier(LABELLED),
        ROW3 + "message A { P probabilities = 1; } message P { float x = 1; float y = 2; float z = 3; }",
        [(ABC, {"probabilities": {"x": 0.25, "y": 0.5, "z": 0.125}})],
    ),
    "a-labelled-output-as-a-row": Case(
        classifier(LABELLED),
        ROW3 + "message A { int64 label = 1; repeated float probabilities = 2; }",
        [(ABC, {"label": 1, "probabilities": [0.25, 0.5, 0.125]})],
    ),
    "map-with-labels-of-the-contract": Case(
        SPECIES,
        ROW3 + 'message A { map<string, float> scores = 1 [(baton.tensor) = "scores", (baton.label) = "x", '
        '(baton.label) = "y y", (baton.label) = "z"]; }',
        [(ABC, {"scores": {"x": 0.25, "y y": 0.5, "z": 0.125}})],
    ),
    "enum-of-an-integer": Case(
        classifier(LABELLED), ROW3 + KIND + "message A { Kind label = 1; }",
        [(ABC, {"label": "VERSICOLOR"}), ({"a": 1}, {"label": "SETOSA"})],
    ),
    "enum-of-a-string": Case(
        SPECIES, ROW3 + KIND + "message A { Kind species = 1; }",
        [(ABC, {"species": "VERSICOLOR"}), ({"c": 1}, {"species": "VIRGINICA"})],
    ),
    "string-of-a-string": Case(SPECIES, ROW3 + "message A { string species = 1; }", [(ABC, {"species": "VERSICOLOR"})]),
    "bytes-of-a-string": Case(
        SPECIES, ROW3 + "message A { bytes species = 1; }",
        [(ABC, {"species": base64.b64encode(b"VERSICOLOR").decode()})],
    ),
    "bytes-of-a-row": Case(
        SPECIES, ROW3 + "message A { bytes scores = 1; }", [(ABC, {"scores": b64(np.array([0.25, 0.5, 0.125], "<f4"))})]
    ),
    "outputs-that-nobody-takes": Case(
        PERSON,
        "message Q { float height = 1; double weight = 2; int64 age = 3; bool smoker = 4; } message A { "
        "int64 older = 1; }",
        [({"height": 1, "weight": 2, "age": 3}, {"older": 4})],
    ),
    "nested-answers": Case(
        classifier(LABELLED),
        ROW3 + KIND + "message A { Kind label = 1; Scores probabilities = 2; } message Scores { "
        "repeated float of = 1; }",
        [(ABC, {"label": "VERSICOLOR", "probabilities": {"of": [0.25, 0.5, 0.125]}})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRITE.values(), ids=WRITE)
def test_how_an_answer_is_written(typed, case):
    run(typed, case)


def test_an_optional_answer_is_set(typed):
    service = typed(DOT3, ROW3 + "message A { optional float y = 1; }")
    service.check("Call", {}, {"y": 0})
    service.check("Call", {"b": 2}, {"y": 20})


def test_a_batch_of_a_model_for_one_row_at_a_time(typed):
    """[1,4] has batches too, of one row: more are refused by name, not cut or run one by one."""
    service = typed(DOT_FIXED, READ["batch-of-scalar-rows"].body)
    service.check("Call", {"rows": [{"a": 1}]}, {"out": [{"y": 1}]})
    service.refuses("Call", {"rows": [{"a": 1}, {"b": 1}, {"d": 2}]}, "BAD_SHAPE", 400, "one row at a time", "3")


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
def test_batches_of_any_size_against_numpy(typed, rows):
    service = typed(DOT, READ["batch-of-scalar-rows"].body)
    table = np.random.default_rng(rows).integers(-9, 9, (rows, 4))
    request = {"rows": [dict(zip("abcd", map(int, row), strict=True)) for row in table]}
    service.check("Call", request, {"out": [{"y": float(y)} for y in table @ [1, 10, 100, 1000]]})


def test_wire_forms_of_the_same_message_read_the_same(typed):
    """Unpacked, split, reordered, repeated and unknown fields, as other encoders may write them."""
    service = typed(ADD1, READ["repeated-is-a-flattened-row"].body.replace("float y", "repeated float y"))

    def floats(*values):
        return np.array(values, "<f4").tobytes()

    packed = b"\x0a\x10" + floats(1, 2, 3, 4)
    unpacked = b"".join(b"\x0d" + floats(value) for value in (1, 2, 3, 4))
    split = b"\x0a\x08" + floats(1, 2) + b"\x0d" + floats(3) + b"\x0a\x04" + floats(4) + b"\x0a\x00"
    unknown = b"\x98\x3f\x01" + packed + b"\xa2\x3f\x03abc"
    answers = [service.post("Call", body, "application/proto") for body in (packed, unpacked, split, unknown)]
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].content[-16:] == floats(2, 3, 4, 5)


def test_the_last_of_a_scalar_wins_and_messages_merge(typed):
    service = typed(DOT, READ["message-field-as-if-its-fields-stood-here"].body)
    one, two = (np.array(value, "<f4").tobytes() for value in (1, 2))
    # features {a: 2}, then features {a: 1, d: 2}; merged: a = 1, d = 2.
    body = b"\x0a\x05\x0d" + two + b"\x0a\x0a\x0d" + one + b"\x25" + two
    answer = service.post("Call", body, "application/x-protobuf")
    assert answer.status_code == 200, answer.text
    assert answer.content == b"\x0a\x05\x0d" + np.array(2001, "<f4").tobytes()
