"""Values: conversions and their limits, missing cells, JSON's mapping, enums, bytes, texts; limits of a message."""

import base64
import json
import math

import ml_dtypes
import numpy as np
import pytest

from support import models
from support.admin import check_error
from support.dtypes import BY_NAME, DTYPES
from support.typed import Refused, contract, graph, package

INTEGERS = {"int32": (-(2**31), 2**31 - 1), "sint32": (-(2**31), 2**31 - 1), "sfixed32": (-(2**31), 2**31 - 1),
            "int64": (-(2**63), 2**63 - 1), "sint64": (-(2**63), 2**63 - 1), "sfixed64": (-(2**63), 2**63 - 1),
            "uint32": (0, 2**32 - 1), "fixed32": (0, 2**32 - 1),
            "uint64": (0, 2**64 - 1), "fixed64": (0, 2**64 - 1)}  # fmt: skip
FLOATS = ("float", "double")
INTEGER_VALUES = (0, 1, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, 65504, 65535, 65536, 70000, 2**24 + 1,
                  2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)  # fmt: skip
FLOAT_VALUES = (0.0, 0.1, -2.5, 65504.0, 70000.0, 3e38, 1e-45, 1e300, math.inf, -math.inf, math.nan)
NUMBERS = [dtype for dtype in DTYPES if not dtype.is_bytes]


def kinds_for(dtype) -> list[str]:
    """The protobuf types that may feed an input of this datatype."""
    if dtype.name == "BOOL":
        return ["bool"]
    return ["bool", *INTEGERS, *(FLOATS if dtype.is_float else ())]


def body_of(kinds, answer=None) -> str:
    methods = " ".join(f"rpc {kind.title()}(Q{kind}) returns (A{answer or kind});" for kind in kinds)
    messages = "\n".join(f"message Q{kind} {{ {kind} x = 1; }}" for kind in kinds)
    answers = "\n".join(f"message A{kind} {{ {kind} y = 1; }}" for kind in ([answer] if answer else kinds))
    return f"service S {{ {methods} }}\n{messages}\n{answers}"


def flat(dtype) -> bytes:
    return models.identity(dtype.onnx, (None,))


def candidates(kind: str):
    if kind == "bool":
        return (False, True)
    if kind in FLOATS:
        return FLOAT_VALUES
    low, high = INTEGERS[kind]
    return [value for value in INTEGER_VALUES if low <= value <= high]


def stored(dtype, value) -> float | int | None:
    """What the model gets of a value; None if it does not fit."""
    if dtype.name == "BOOL":
        return bool(value)
    if not dtype.is_float:
        limits = np.iinfo(dtype.numpy)
        return int(value) if limits.min <= value <= limits.max else None
    with np.errstate(over="ignore"):
        rounded = float(np.array(value, dtype=np.float64 if isinstance(value, float) else None).astype(dtype.numpy))
    fits = math.isinf(value) or math.isnan(value) or not math.isinf(rounded)
    return rounded if fits else None


def wire(kind: str, value):
    """A value in the form that protobuf's JSON has for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if kind == "float":
        return wire("double", float(np.float32(value))) if abs(value) < 3.5e38 else None
    return value


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_every_number_goes_into_every_datatype_that_holds_it(typed, dtype):
    kinds = kinds_for(dtype)
    answer = (
        "bool"
        if dtype.name == "BOOL"
        else "double"
        if dtype.is_float
        else "uint64"
        if dtype.name == "UINT64"
        else "int64"
    )
    service = typed(flat(dtype), body_of(kinds, answer))
    for kind in kinds:
        for value in candidates(kind):
            sent = wire(kind, value)
            if sent is None:
                continue
            exact = float(np.float32(value)) if kind == "float" else value
            wanted = stored(dtype, exact)
            for client in ("json", "reflection"):
                if wanted is None:
                    with pytest.raises(Refused) as refused:
                        service.call(client, kind.title(), {"x": sent})
                    assert refused.value.code == "BAD_FIELD", (kind, value, refused.value)
                    assert refused.value.text.startswith("x: ") and dtype.name in refused.value.text, refused.value
                else:
                    got = service.call(client, kind.title(), {"x": sent})["y"]
                    same = math.isnan(float(got)) if isinstance(wanted, float) and math.isnan(wanted) else (
                        float(got) == wanted if dtype.is_float else int(got) == wanted
                    )  # fmt: skip
                    assert same, f"{client}: {kind} {value} became {got} in {dtype.name}, {wanted} expected"


@pytest.mark.parametrize(
    ("dtype", "kind", "fits", "not_fitting"),
    [
        ("INT64", "int32", [2**31 - 1, -(2**31)], [2**31, 2**40]),
        ("INT64", "uint32", [0, 2**32 - 1], [-1, 2**32]),
        ("INT64", "uint64", [0, 2**63 - 1], [-1]),
        ("UINT64", "int64", [2**63 - 1], [2**63]),
        ("UINT64", "int32", [7], [2**31]),
        ("FP64", "float", [1.5, math.inf, 1e-60], [1e300]),
    ],
)
def test_answers_that_do_not_fit_their_field_are_the_models_failure(typed, dtype, kind, fits, not_fitting):
    asked = {"INT64": "int64", "UINT64": "uint64", "FP64": "double"}[dtype]
    service = typed(flat(BY_NAME[dtype]), f"message Q {{ {asked} x = 1; }} message A {{ {kind} y = 1; }}")
    for value in fits:
        got = service.call_all("Call", {"x": wire(asked, value)})["y"]
        assert float(got) == float(np.float32(value) if kind == "float" else value)
    for value in not_fitting:
        service.refuses("Call", {"x": value}, "MODEL_FAILED", 500, "y")


MISFITS = {
    "float-into-integer": ("INT32", "float", "int32"),
    "double-into-bool": ("BOOL", "double", "bool"),
    "integer-into-string": ("BYTES", "int64", "string"),
    "bool-into-string": ("BYTES", "bool", "string"),
    "string-into-float": ("FP32", "string", "float"),
    "string-into-integer": ("INT64", "string", "int64"),
    "float-output-into-integer": ("FP32", "float", "int64"),
    "string-output-into-number": ("BYTES", "string", "double"),
    "number-output-into-string": ("FP32", "float", "string"),
    "float-output-into-enum": ("FP32", "float", "Kind"),
}


@pytest.mark.parametrize(("dtype", "asked", "answered"), MISFITS.values(), ids=MISFITS)
def test_types_that_never_fit_are_a_mismatch_when_pushed(admin, name, dtype, asked, answered):
    body = f"enum Kind {{ ZERO = 0; }} message Q {{ {asked} x = 1; }} message A {{ {answered} y = 1; }}"
    refused = admin.push(name, flat(BY_NAME[dtype]), contract=contract(body, package()))
    error = check_error(refused, 422, "CONTRACT_MODEL_MISMATCH")
    assert ".Q.x" if asked != answered and "into" and asked in ("float", "double", "int64", "bool", "string") else ""
    assert ".Q.x" in error["error"] or ".A.y" in error["error"]
    assert error["details"]["mismatches"]


def test_the_path_names_row_and_field(typed):
    service = typed(
        graph("uint8[N,2] X", "uint8[N,2] Y", "Y = Identity(X)"),
        "message Q { repeated Row rows = 1; } message Row { int32 age = 1; uint32 size = 2; } message A { "
        "repeated Row rows = 1; }",
    )
    rows = [{"age": 1, "size": 2}] * 3 + [{"age": 300}]
    assert service.refuses("Call", {"rows": rows}) == "rows[3].age: 300 does not fit UINT8"
    assert service.refuses("Call", {"rows": [{"age": -1}]}) == "rows[0].age: -1 does not fit UINT8"
    service.check("Call", {"rows": rows[:3]}, {"rows": rows[:3]})


def test_the_path_names_the_element_and_the_message(typed):
    body = (
        "message Q { Inner inner = 1; } message Inner { repeated int32 values = 1; } message A { "
        "repeated int32 y = 1; }"
    )
    service = typed(graph("int8[N,3] X", "int8[N,3] Y", "Y = Identity(X)"), body)
    text = service.refuses("Call", {"inner": {"values": [1, 2, 128]}})
    assert text == "inner.values[2]: 128 does not fit INT8"


def test_columns_of_a_batch_name_the_row(typed):
    service = typed(
        graph("int8[N] a, int8[N] b", "int8[N] c", "c = Identity(a)", "d = Identity(b)"),
        "message Q { repeated int32 a = 1; repeated int32 b = 2; } message A { repeated int32 c = 1; }",
    )
    assert service.refuses("Call", {"a": [1, 2], "b": [3, 999]}) == "b[1]: 999 does not fit INT8"


@pytest.mark.parametrize(
    ("model", "body", "request_", "texts"),
    [
        ("float[N,4] X", "message Q { repeated float x = 1; }", {"x": [1, 2, 3]}, ("x", "3", "4")),
        ("float[N,4] X", "message Q { repeated float x = 1; }", {"x": [1] * 5}, ("x", "5", "4")),
        ("float[N,4] X", "message Q { repeated float x = 1; }", {}, ("x", "0", "4")),
        ("float[N,2,M] X", "message Q { repeated float x = 1; }", {"x": [1] * 5}, ("x", "5")),
        ("float[N,4] X", "message Q { bytes x = 1; }", {"x": base64.b64encode(b"12345678").decode()}, ("x", "2", "4")),
        ("float[N,3] X", "message Q { repeated float a = 1; repeated float b = 2; repeated float c = 3; }",
         {"a": [1, 2], "b": [1, 2], "c": [1]}, ("c", "1", "2")),
        ("float[N,4] X", "message Q { repeated R rows = 1; } message R { repeated float x = 1; }",
         {"rows": [{"x": [1] * 4}, {"x": [1] * 3}]}, ("rows[1].x", "3", "4")),
    ],
    ids=["few", "many", "none", "not-a-multiple", "bytes", "columns", "rows"],
)  # fmt: skip
def test_wrong_numbers_of_elements_are_named(typed, model, body, request_, texts):
    many = "repeated R rows" in body or "repeated float a" in body
    answer = "message A { repeated float y = 1; }"
    output = "float[N] Y" if many else "float[N] Y"
    rank = model.count(",")
    service = typed(
        graph(model, output, "Y = ReduceSum <keepdims = 0> (X, axes)",
              constants=f"int64[{rank}] axes = {{{', '.join(str(axis + 1) for axis in range(rank))}}}"),
        body + (answer if many else "message A { float y = 1; }"),
    )  # fmt: skip
    service.refuses("Call", request_, "BAD_FIELD" if "repeated float a" in body else "BAD_SHAPE", 400, *texts)


# Missing cells.

ALL_KINDS = graph(
    "float[N] f, double[N] d, float16[N] h, string[N] s, int64[N] i, bool[N] b",
    "float[N] of, double[N] od, float16[N] oh, string[N] os, int64[N] oi, bool[N] ob",
    "of = Identity(f)", "od = Identity(d)", "oh = Identity(h)", "os = Identity(s)",
    "oi = Identity(i)", "ob = Identity(b)",
)  # fmt: skip
ALL_ANSWERS = "message A { float of = 1; double od = 2; float oh = 3; string os = 4; int64 oi = 5; bool ob = 6; }"
FORMS = {
    "optional": "message Q { optional float f = 1; optional double d = 2; optional float h = 3; optional string s = 4;"
    " optional int64 i = 5; optional bool b = 6; }",
    "wrappers": "message Q { google.protobuf.FloatValue f = 1; google.protobuf.DoubleValue d = 2;"
    " google.protobuf.FloatValue h = 3; google.protobuf.StringValue s = 4; google.protobuf.Int64Value i = 5;"
    " google.protobuf.BoolValue b = 6; }",
    "oneofs": "message Q { oneof k1 { float f = 1; } oneof k2 { double d = 2; } oneof k3 { float h = 3; }"
    " oneof k4 { string s = 4; } oneof k5 { int64 i = 5; } oneof k6 { bool b = 6; } }",
}
NAN = math.nan


@pytest.mark.parametrize("form", FORMS)
def test_an_absent_optional_is_a_missing_cell(typed, form):
    service = typed(ALL_KINDS, FORMS[form] + ALL_ANSWERS)
    full = {"f": 0, "d": 0, "h": 0, "s": "", "i": 0, "b": False}
    zero = {"of": 0.0, "od": 0.0, "oh": 0.0, "os": "", "oi": 0, "ob": False}
    service.check("Call", full, zero)
    service.check("Call", {"i": 7, "b": True}, {"of": NAN, "od": NAN, "oh": NAN, "os": "", "oi": 7, "ob": True})
    for missing in ("i", "b"):
        service.refuses(
            "Call", {key: value for key, value in full.items() if key != missing}, "BAD_FIELD", 400, missing
        )


def test_an_absent_field_without_presence_is_zero(typed):
    service = typed(
        ALL_KINDS,
        "message Q { float f = 1; double d = 2; float h = 3; string s = 4; int64 i = 5; bool b = 6; }" + ALL_ANSWERS,
    )
    service.check("Call", {}, {"of": 0.0, "od": 0.0, "oh": 0.0, "os": "", "oi": 0, "ob": False})


def test_missing_cells_of_a_batch(typed):
    body = """message Q { repeated Row rows = 1; } message Row { optional float a = 1; float b = 2;
      oneof k { float c = 3; float d = 4; } }
    message A { repeated Out rows = 1; } message Out { float a = 1; float b = 2; float c = 3; float d = 4; }"""
    service = typed(models.identity(BY_NAME["FP32"].onnx, (None, 4)), body)
    service.check(
        "Call",
        {"rows": [{"a": 1, "b": 2, "c": 3}, {}, {"d": 0}]},
        {"rows": [{"a": 1, "b": 2, "c": 3, "d": NAN}, {"a": NAN, "b": 0, "c": NAN, "d": NAN},
                  {"a": NAN, "b": 0, "c": NAN, "d": 0}]},
    )  # fmt: skip


def test_a_missing_integer_in_a_batch_is_named_by_its_path(typed):
    body = (
        "message Q { repeated Row rows = 1; } message Row { optional int32 age = 1; } message A { "
        "repeated int32 y = 1; }"
    )
    service = typed(models.identity(BY_NAME["INT32"].onnx, (None, 1)), body)
    service.check("Call", {"rows": [{"age": 1}, {"age": 0}]}, {"y": [1, 0]})
    service.refuses("Call", {"rows": [{"age": 1}, {}]}, "BAD_FIELD", 400, "rows[1].age")


# JSON.


@pytest.fixture
def wide(typed):
    """Every kind of field that JSON has a form of its own for."""
    return typed(
        graph(
            "int64[N] big, uint64[N] huge, bool[N] yes, string[N] word, double[N] real, int32[N] kind",
            "int64[N] big_o, uint64[N] huge_o, bool[N] yes_o, string[N] word_o, double[N] real_o, int32[N] kind_o",
            *(f"{name}_o = Identity({name})" for name in ("big", "huge", "yes", "word", "real", "kind")),
        ),
        "enum Kind { UNKNOWN = 0; CAT = 1; DOG = 5; } message Q { int64 big = 1; uint64 huge = 2; bool yes = 3; "
        "string word = 4; double real = 5; Kind kind = 6; } message A { int64 big_o = 1; uint64 huge_o = 2; "
        "bool yes_o = 3; string word_o = 4; double real_o = 5; Kind kind_o = 6; }",
    )


JSON_FORMS = {
    "64-bit-as-number": ('{"big": 9223372036854775807}', {"bigO": "9223372036854775807"}),
    "64-bit-as-string": ('{"big": "-9223372036854775808"}', {"bigO": "-9223372036854775808"}),
    "unsigned-as-number": ('{"huge": 18446744073709551615}', {"hugeO": "18446744073709551615"}),
    "unsigned-as-string": ('{"huge": "18446744073709551615"}', {"hugeO": "18446744073709551615"}),
    "integer-with-exponent": ('{"big": 1e3}', {"bigO": "1000"}),
    "integer-with-zero-fraction": ('{"big": 5.0}', {"bigO": "5"}),
    "number-as-string": ('{"real": "1.5"}', {"realO": 1.5}),
    "nan": ('{"real": "NaN"}', {"realO": "NaN"}),
    "bare-nan-as-python-writes-it": ('{"real": NaN}', {"realO": "NaN"}),
    "infinity": ('{"real": "-Infinity"}', {"realO": "-Infinity"}),
    "enum-name": ('{"kind": "DOG"}', {"kindO": "DOG"}),
    "enum-number": ('{"kind": 5}', {"kindO": "DOG"}),
    "enum-number-without-name": ('{"kind": 77}', {"kindO": 77}),
    "null-is-absent": ('{"big": null, "word": null}', {"bigO": "0", "wordO": ""}),
    "surrogates": ('{"word": "\\ud83e\\udd8a \\u0000"}', {"wordO": "🦊 \0"}),
    "empty": ("{}", {}),
    "whitespace": (' \n{\t"yes" : true }\r\n', {"yesO": True}),
}
NOTHING = {"bigO": "0", "hugeO": "0", "yesO": False, "wordO": "", "realO": 0, "kindO": "UNKNOWN"}


@pytest.mark.parametrize(("sent", "wanted"), JSON_FORMS.values(), ids=JSON_FORMS)
def test_json_in_the_protobuf_mapping(wide, sent, wanted):
    answer = wide.post_json("Call", sent)
    assert answer.status_code == 200, answer.text
    assert answer.json() == NOTHING | wanted
    if "bigO" in wanted:
        assert isinstance(answer.json()["bigO"], str)


BAD_JSON = {
    "not-json": "{",
    "trailing": '{"big": 1} x',
    "empty-body": "",
    "array": "[]",
    "number": "1",
    "null": "null",
    "fraction": '{"big": 1.5}',
    "too-big": '{"big": 9223372036854775808}',
    "negative-unsigned": '{"huge": -1}',
    "text-for-number": '{"real": "abc"}',
    "enum-name-unknown": '{"kind": "FISH"}',
    "number-for-text": '{"word": 1}',
    "text-for-bool": '{"yes": "maybe"}',
    "object-for-number": '{"big": {}}',
    "list-for-number": '{"big": [1]}',
    "unknown-field": '{"bigg": 1}',
    "given-twice": '{"big": 1, "big": 2}',
    "lone-surrogate": '{"word": "\\ud800"}',
    "deep": '{"big": ' + "[" * 20000 + "]" * 20000 + "}",
}


@pytest.mark.parametrize("sent", BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_not_the_message(wide, sent):
    body = check_error(wide.post_json("Call", sent), 400, {"BAD_MESSAGE", "BAD_JSON", "BAD_FIELD", "DECODE_LIMIT"})
    for name in ("bigg", "FISH"):
        if name in sent:
            assert name in body["error"]


def test_json_names_may_be_original_or_lower_camel(typed):
    body = (
        'message Q { float first_value = 1; float secondValue = 2; float third = 3 [json_name = "3rd"]; } '
        "message A { float sum_total = 1; }"
    )
    service = typed(
        graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}"), body
    )
    for sent in ({"first_value": 1, "secondValue": 2, "third": 3}, {"firstValue": 1, "secondValue": 2, "3rd": 3}):
        answer = service.post_json("Call", sent)
        assert (answer.status_code, answer.json()) == (200, {"sumTotal": 321}), answer.text


def test_bytes_in_json_are_base64_of_both_alphabets(typed):
    service = typed(
        graph("string[N] s", "string[N] t", "t = Identity(s)"), "message Q { bytes s = 1; } message A { bytes t = 1; }"
    )
    for sent in ("+/8=", "-_8=", "-_8", "+/8"):
        answer = service.post_json("Call", {"s": sent})
        assert (answer.status_code, answer.json()) == (200, {"t": "+/8="}), (sent, answer.text)
    check_error(service.post_json("Call", {"s": "!!"}), 400, {"BAD_MESSAGE", "BAD_JSON", "BAD_FIELD"})


def test_floats_print_so_that_they_read_back(typed):
    service = typed(
        models.identity(BY_NAME["FP32"].onnx, (None,)),
        "message Q { repeated float x = 1; } message A { repeated float y = 1; }",
    )
    values = np.array([0.1, 1 / 3, 1e-45, 3.4028235e38, 16777217, -0.0, 5.1], np.float32)
    answer = service.post_json("Call", {"x": [float(value) for value in values]})
    got = np.array(answer.json()["y"], np.float32)
    assert got.tobytes() == values.tobytes()
    assert "0.1," in answer.text and "5.1]" in answer.text


def test_texts_go_through_whole(typed):
    service = typed(
        graph("string[N] s", "string[N] t", "t = Identity(s)"),
        "message Q { string s = 1; } message A { string t = 1; }",
    )
    for text in ("", "ä\0b", "日本語 🦊", 'q " \\', "line\nbreak\r\n", "x" * 100_000):
        service.check("Call", {"s": text}, {"t": text})


def test_a_string_that_is_no_utf8_is_refused(typed):
    service = typed(
        graph("string[N] s", "string[N] t", "t = Identity(s)"),
        "message Q { string s = 1; } message A { string t = 1; }",
    )
    check_error(service.post("Call", b"\x0a\x02\xff\xfe", "application/protobuf"), 400, {"BAD_MESSAGE", "BAD_FIELD"})
    service.check("Call", {"s": "ok"}, {"t": "ok"})


def test_a_string_output_that_is_no_utf8_is_the_models_failure_in_a_string_field(typed):
    service = typed(
        graph("string[N] s", "string[N] t", "t = Identity(s)"), "message Q { bytes s = 1; } message A { string t = 1; }"
    )
    service.refuses("Call", {"s": base64.b64encode(b"\xff\xfe").decode()}, "MODEL_FAILED", 500, "t")


def test_an_enum_goes_in_by_its_number(typed):
    body = (
        "enum K { option allow_alias = true; NONE = 0; CAT = 3; KITTY = 3; NEG = -2; } message Q { K k = 1; "
        "} message A { K k = 1; }"
    )
    service = typed(
        graph("int32[N] k", "int32[N] o", "o = Identity(k)"),
        body.replace("K k = 1; }", "K o = 1; }", 2).replace("K o", "K k", 1),
    )
    for sent, wanted in (("CAT", "CAT"), ("KITTY", "CAT"), (3, "CAT"), ("NEG", "NEG"), (12, 12)):
        service.check("Call", {"k": sent}, {"o": wanted})


def test_an_enum_feeds_floats_and_small_integers(typed):
    body = "enum K { ZERO = 0; BIG = 300; } message Q { K k = 1; } message A { double y = 1; }"
    floats = typed(graph("float[N] k", "float[N] o", "o = Identity(k)"), body)
    floats.check("Call", {"k": "BIG"}, {"y": 300})
    small = typed(graph("uint8[N] k", "uint8[N] o", "o = Identity(k)"), body.replace("double", "uint32"))
    small.refuses("Call", {"k": "BIG"}, "BAD_FIELD", 400, "k: ", "300", "UINT8")


def test_a_string_output_that_is_no_name_of_the_enum_is_the_models_failure(typed):
    body = "enum K { ZERO = 0; CAT = 1; } message Q { string s = 1; } message A { K k = 1; }"
    service = typed(graph("string[N] s", "string[N] t", "t = Identity(s)"), body)
    service.check("Call", {"s": "CAT"}, {"k": "CAT"})
    service.refuses("Call", {"s": "FISH"}, "MODEL_FAILED", 500, "k", "FISH")


# Limits of a message (C16).

ROWS = "message Q { repeated Row rows = 1; } message Row { float x = 1; } message A { repeated float y = 1; }"


def test_a_request_has_at_most_so_many_rows(typed):
    service = typed(graph("float[N,1] X", "float[N,1] Y", "Y = Identity(X)"), ROWS)
    most = service.post("Call", b"\x0a\x00" * 262_144, "application/protobuf")
    assert most.status_code == 200 and len(most.content) > 4 * 262_144, most.text[:300]
    check_error(service.post("Call", b"\x0a\x00" * 262_145, "application/protobuf"), 400, "DECODE_LIMIT")
    check_error(service.post("Call", b"\x0a\x00" * 1_000_000, "application/protobuf"), 400, "DECODE_LIMIT")
    rows = json.dumps({"rows": [{}] * 262_145})
    check_error(service.post_json("Call", rows), 400, "DECODE_LIMIT")


def test_deep_messages_are_refused(typed):
    """Through an ignored field too: it is accepted, not read, and still a message of the client's making."""
    body = "message Q { float x = 1; Q next = 2 [(baton.ignore) = true]; } message A { float y = 1; }"
    service = typed(graph("float[N,1] X", "float[N,1] Y", "Y = Identity(X)"), body)

    def nested(levels: int) -> bytes:
        message = b""
        for _ in range(levels):
            message = b"\x12" + varint(len(message)) + message
        return b"\x0d" + np.array(2, "<f4").tobytes() + message

    assert service.post("Call", nested(20), "application/protobuf").status_code == 200
    for levels in (40, 101, 5000):
        answer = service.post("Call", nested(levels), "application/protobuf")
        assert answer.status_code == 200 or check_error(answer, 400, "DECODE_LIMIT"), levels
    deep = {}
    for _ in range(200):
        deep = {"next": deep}
    check_error(service.post_json("Call", deep), 400, {"DECODE_LIMIT", "BAD_JSON", "BAD_MESSAGE"})
    groups = b"\x9b\x06" * 200 + b"\x9c\x06" * 200
    answer = service.post("Call", groups, "application/protobuf")
    assert answer.status_code in (200, 400), answer.text
    service.check("Call", {"x": 1}, {"y": 1})


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


BAD_WIRE = {
    "cut": b"\x0d\0\0",
    "length-beyond-the-end": b"\x12\x7f\x01",
    "length-of-2^63": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "field-number-zero": b"\x00\x01",
    "wrong-wire-type": b"\x0a\x03\x01\x02\x03",
    "wire-type-six": b"\x0e\x01",
    "end-without-group": b"\x0c",
    "endless-varint": b"\x08" + b"\xff" * 11,
    "text": b'{"x": 1}',
}


@pytest.mark.parametrize("sent", BAD_WIRE.values(), ids=BAD_WIRE)
def test_bytes_that_are_no_message(typed, sent):
    service = typed(
        graph("float[N,1] X", "float[N,1] Y", "Y = Identity(X)"),
        "message Q { float x = 1; string s = 2 [(baton.ignore) = true]; } message A { float y = 1; }",
    )
    answer = service.post("Call", sent, "application/protobuf")
    if answer.status_code != 200 or sent not in (BAD_WIRE["wrong-wire-type"],):
        check_error(answer, 400, "BAD_MESSAGE")


def test_a_packed_field_of_64_mib_is_one_input_at_its_limit(typed):
    service = typed(graph("float[N,M] X", "int64[1] Y", "s = Shape(X)", "Y = Slice(s, one, two)",
                          constants="int64[1] one = {1}, int64[1] two = {2}"),
                    "message Q { repeated float x = 1; } message A { int64 y = 1; }")  # fmt: skip
    count = 15 * 1024 * 1024
    answer = service.post("Call", b"\x0a" + varint(4 * count) + bytes(4 * count), "application/protobuf")
    assert answer.status_code == 200, answer.text
    assert answer.content == b"\x08" + varint(count)
    count = 16 * 1024 * 1024 + 1
    answer = service.post("Call", b"\x0a" + varint(4 * count) + bytes(4 * count), "application/protobuf")
    check_error(answer, 413 if answer.status_code == 413 else 400, {"DECODE_LIMIT", "BODY_TOO_LARGE"})


def test_bfloat16_and_half_round_to_nearest(typed):
    for dtype, kind in ((BY_NAME["BF16"], ml_dtypes.bfloat16), (BY_NAME["FP16"], np.float16)):
        service = typed(flat(dtype), "message Q { repeated double x = 1; } message A { repeated double y = 1; }")
        values = np.random.default_rng(3).normal(0, 50, 200)
        service.check("Call", {"x": values.tolist()}, {"y": values.astype(kind).astype(float).tolist()}, 0)
