"""Contracts that are refused: with code, status and text, while the version being served goes on answering."""

import json

import pytest

from support import models
from support.admin import check_error, ok
from support.typed import Service, contract, graph, package

ADD1 = models.adds(1)
X4 = "message Q { repeated float x = 1; }"
Y4 = "message A { repeated float y = 1; }"
GOOD = X4 + Y4
DOT3 = graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}")
TWO = graph("float[N] a, float[N] b", "float[N] c, float[N] d", "c = Identity(a)", "d = Add(a, b)")
PERSON = graph(
    "float[N,1] height, int64[N,1] age, string[N,1] word", "float[N,1] h, int64[N,1] a, string[N,1] w",
    "h = Identity(height)", "a = Identity(age)", "w = Identity(word)",
)  # fmt: skip


@pytest.fixture
def served(server, admin, name):
    """A model under a good contract: `served(refused push's parts)` checks that it still answers as before."""
    mine = package()
    source = contract(GOOD, mine)
    admin.must_push(name, ADD1, contract=source)
    service = Service(server, name, mine)
    before = admin.model(name)

    def still():
        service.check("Call", {"x": [1, 2, 3, 4]}, {"y": [2, 3, 4, 5]})
        assert admin.model(name) == before
        assert service.source() == source.encode()

    still.service = service
    return still


def refused(admin, served, body, status, code, *texts, model=None, **parts) -> dict:
    """The push of this contract is refused so, and nothing changes."""
    source = body if isinstance(body, bytes) else body.replace("PACKAGE", served.service.package)
    response = admin.push(served.service.model, model, contract=source, **parts)
    error = check_error(response, status, code)
    for text in texts:
        assert text in error["error"], f"{text!r} is not in {error['error']!r}"
    served()
    return error


HEAD = 'syntax = "proto3";\npackage PACKAGE;\n'
SERVICE = "service S { rpc Call(Q) returns (A); }\n"


def source(body: str, imports: str = "") -> str:
    return HEAD + imports + SERVICE + body


def nested(levels: int) -> str:
    return "".join(f"message N{level} {{ " for level in range(levels)) + "}" * levels


SYNTAX = {
    "brace-dropped": (HEAD + "message Q { float x = 1;\nservice S { rpc Call(Q) returns (Q); }\n", 4, 11),
    "semicolon-dropped": (source("message Q { repeated float x = 1 }" + Y4), 4, 34),
    "words": ("Dear server,\nplease", 1, None),
    "json": ('{"syntax": "proto3"}', 1, None),
    "comment-left-open": (source(GOOD + "/* never closed"), 4, None),
    "string-left-open": (HEAD + 'option java_package = "x;\n' + SERVICE + GOOD, 3, None),
    "number-beyond": (source("message Q { float x = 99999999999999999999; }" + Y4), 4, None),
}


@pytest.mark.parametrize(("text", "line", "column"), SYNTAX.values(), ids=SYNTAX)
def test_c1_a_syntax_error_has_line_column_and_caret(admin, served, text, line, column):
    codes = {"CONTRACT_SYNTAX", "CONTRACT_UNSUPPORTED"} if line == 1 else "CONTRACT_SYNTAX"
    error = refused(admin, served, text, 422, codes)
    if error["code"] == "CONTRACT_SYNTAX":
        assert error["details"]["line"] == line, error
        assert column in (None, error["details"]["column"]), error
        shown = error["error"].split("\n")
        assert f"line {error['details']['line']}, column {error['details']['column']}" in shown[0]
        assert shown[1].strip() and shown[1].strip() in text.replace("PACKAGE", served.service.package)
        before = text.replace("PACKAGE", served.service.package).split("\n")[error["details"]["line"] - 1]
        mark = shown[2].index("^")
        assert before[: error["details"]["column"] - 1].endswith(shown[1][:mark]), (before, shown)


IMPORTS = {
    "unknown": "x.proto",
    "folder": "common/types.proto",
    "parent": "../x.proto",
    "absolute": "/etc/passwd",
    "url": "https://example.com/x.proto",
    "itself": "PACKAGE.proto",
    "google-unknown": "google/protobuf/nope.proto",
    "google-api": "google/api/annotations.proto",
    "google-parent": "google/protobuf/../../etc/passwd",
}


@pytest.mark.parametrize("imported", IMPORTS.values(), ids=IMPORTS)
@pytest.mark.parametrize("how", ["", "public ", "weak "])
def test_c2_c3_imports_are_refused_by_name(admin, served, imported, how):
    body = source(GOOD, f'import {how}"{imported}";\n')
    codes = {"CONTRACT_IMPORT", "CONTRACT_SYNTAX", "CONTRACT_UNSUPPORTED"} if how == "weak " else "CONTRACT_IMPORT"
    error = refused(admin, served, body, 422, codes)
    if error["code"] == "CONTRACT_IMPORT":
        spelled = imported.replace("PACKAGE", served.service.package)
        assert error["details"]["import"] == spelled, error
        assert error["details"]["line"] == 3, error


def test_c3_an_import_of_itself_by_the_models_name(admin, served):
    own = f"{served.service.model}.proto"
    refused(admin, served, source(GOOD, f'import "{own}";\n'), 422, "CONTRACT_IMPORT", own)


def test_c3_a_thousand_imports(admin, served):
    lines = "".join(f'import "x{index}.proto";\n' for index in range(1000))
    refused(admin, served, source(GOOD, lines), 422, "CONTRACT_IMPORT", "x0.proto")


LARGE = {
    "bytes": source(GOOD) + "//" + "x" * (256 * 1024),
    "just-over": (source(GOOD) + "//").ljust(256 * 1024 + 10, "x"),
    "messages": source(GOOD) + "".join(f"message M{index} {{}}\n" for index in range(501)),
    "10,000-messages": source(GOOD) + "".join(f"message M{index}{{}}\n" for index in range(10_000)),
    "fields": source(GOOD) + "message M {" + "".join(f"bool f{index}={index + 1};" for index in range(5001)) + "}",
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_c4_large_contracts(admin, served, text):
    refused(admin, served, text, 413, "CONTRACT_TOO_LARGE")


def test_c4_contracts_at_the_limit_are_accepted(admin, served):
    messages = "".join(f"message M{index} {{}}\n" for index in range(498))
    text = source(GOOD).replace("PACKAGE", served.service.package) + messages
    text = (text + "//").ljust(256 * 1024, "x")
    ok(admin.push(served.service.model, contract=text), 201)


@pytest.mark.parametrize("levels", [17, 31, 32, 1000, 10_000])
def test_c5_deep_definitions(admin, served, levels):
    refused(admin, served, source(GOOD) + nested(levels), 422, "CONTRACT_TOO_DEEP", "16")


@pytest.mark.parametrize("bracket", ["[", "{", "<", "("])
def test_c5_deep_brackets_elsewhere(admin, served, bracket):
    text = source(GOOD).replace("x = 1;", f"x = 1 [json_name = {bracket * 20_000}];")
    refused(admin, served, text, 422, {"CONTRACT_TOO_DEEP", "CONTRACT_SYNTAX"})


def test_c5_sixteen_levels_are_accepted(admin, served):
    text = (source(GOOD) + nested(16)).replace("PACKAGE", served.service.package)
    ok(admin.push(served.service.model, contract=text), 201)


CYCLES = {
    "itself": "message Q { repeated float x = 1; Q next = 2; }",
    "alone": "message Q { Q next = 1; }",
    "repeated": "message Q { repeated float x = 1; repeated Q next = 2; }",
    "only-repeated": "message Q { repeated Q next = 1; }",
    "map": "message Q { repeated float x = 1; map<string, Q> next = 2; }",
    "oneof": "message Q { repeated float x = 1; oneof k { Q next = 2; } }",
    "two": "message Q { repeated float x = 1; R next = 2; } message R { float z = 1; Q q = 2; }",
    "three": "message Q { repeated float x = 1; R next = 2; } message R { repeated T t = 2; } message T { "
    "map<int32, Q> q = 1; }",
}


@pytest.mark.parametrize("side", ["request", "answer"])
@pytest.mark.parametrize("body", CYCLES.values(), ids=CYCLES)
def test_c6_messages_that_contain_themselves_cannot_be_bound(admin, served, body, side):
    body = body + Y4 if side == "request" else body.replace("Q", "A") + X4
    error = refused(admin, served, source(body), 422, "CONTRACT_MODEL_MISMATCH")
    message = "Q" if side == "request" else "A"
    assert f"{served.service.package}.{message}.next" in json.dumps(error["details"]["mismatches"]), error


def test_c6_they_can_be_ignored(server, admin, name):
    body = "message Q { repeated float x = 1; Q next = 2 [(baton.ignore) = true]; }"
    body += "message A { repeated float y = 1; A more = 2 [(baton.ignore) = true]; }"
    mine = package()
    admin.must_push(name, ADD1, contract=contract(body, mine))
    answer = Service(server, name, mine).call_all("Call", {"x": [1, 2, 3, 4], "next": {"x": [1]}})
    assert answer == {"y": [2, 3, 4, 5]}


MISMATCHES = {
    # case: (model, body, {field or tensor that the list must name})
    "too-few-columns": (DOT3, "message Q { float a = 1; float b = 2; } message A { float y = 1; }", {"X"}),
    "too-many-columns": (
        DOT3, "message Q { float a = 1; float b = 2; float c = 3; float d = 4; } message A { float y = 1; }", {"X"}),
    "one-value-for-several": (ADD1, "message Q { float x = 1; }" + Y4, {"X"}),
    "input-without-a-field": (TWO, "message Q { float a = 1; } message A { float c = 1; float d = 2; }", {"b"}),
    "field-without-an-input": (
        TWO, "message Q { float a = 1; float b = 2; float extra = 3; } message A { float c = 1; }", {"Q.extra"}),
    "answer-without-an-output": (
        TWO, "message Q { float a = 1; float b = 2; } message A { float c = 1; float nope = 2; float no = 3; }",
        {"d"}),
    "type-of-an-input": (
        PERSON, "message Q { float height = 1; double age = 2; string word = 3; } message A { float h = 1; }",
        {"Q.age"}),
    "text-for-a-number-and-back": (
        PERSON, "message Q { string height = 1; int64 age = 2; float word = 3; } message A { float h = 1; }",
        {"Q.height", "Q.word"}),
    "type-of-an-answer": (
        PERSON, "message Q { float height = 1; int64 age = 2; string word = 3; } message A { int64 h = 1; "
        "string a = 2; }",
        {"A.h", "A.a"}),
    "everything-at-once": (
        PERSON,
        "message Q { string height = 1; double age = 2; string word = 3; bytes extra = 4; }"
        "message A { string h = 1; string a = 2; double w = 3; float nope = 4; }",
        {"Q.height", "Q.age", "Q.extra", "A.h", "A.a", "A.w", "A.nope"}),
    "map-without-labels": (ADD1, X4 + "message A { map<string, float> y = 1; }", {"A.y"}),
    "a-batch-asked-and-one-row-answered": (
        DOT3, "message Q { repeated R rows = 1; } message R { float a = 1; float b = 2; float c = 3; }"
        "message A { float y = 1; }", {"S/Call"}),
    "timestamp": (
        TWO, "message Q { float a = 1; google.protobuf.Timestamp b = 2; } message A { float c = 1; }", {"Q.b"}),
    "struct": (TWO, "message Q { float a = 1; google.protobuf.Struct b = 2; } message A { float c = 1; }", {"Q.b"}),
    "any": (TWO, "message Q { float a = 1; google.protobuf.Any b = 2; } message A { float c = 1; }", {"Q.b"}),
    "empty-request": (ADD1, "message Q { } " + Y4, set()),
    "empty-answer": (ADD1, X4 + "message A { }", set()),
    "labels-of-another-number": (
        ADD1, X4 + 'message A { map<string, float> y = 1 [(baton.label) = "a", (baton.label) = "b"]; }', {"A.y"}),
    "column-out-of-range": (
        DOT3, 'message Q { float a = 1 [(baton.tensor) = "X", (baton.column) = 0]; float b = 2 [(baton.tensor) = "X", '
        '(baton.column) = 1]; float c = 3 [(baton.tensor) = "X", (baton.column) = 3]; } message A { float y = 1; }',
        {"X"}),
    "column-given-twice": (
        DOT3, 'message Q { float a = 1 [(baton.tensor) = "X", (baton.column) = 0]; float b = 2 [(baton.tensor) = "X", '
        '(baton.column) = 1]; float c = 3 [(baton.tensor) = "X", (baton.column) = 1]; } message A { float y = 1; }',
        {"X"}),
    "tensor-that-is-not": (ADD1, 'message Q { repeated float x = 1 [(baton.tensor) = "Z"]; }' + Y4, {"Q.x"}),
}  # fmt: skip


@pytest.mark.parametrize(("model", "body", "named"), MISMATCHES.values(), ids=MISMATCHES)
def test_c7_everything_that_does_not_fit_is_listed(admin, served, model, body, named):
    text = contract(body, served.service.package)
    error = refused(admin, served, text, 422, "CONTRACT_MODEL_MISMATCH", model=model)
    listed = error["details"]["mismatches"]
    for wanted in named:
        places = [(each["tensor"], each["field"] or "", each["method"]) for each in listed]
        found = [
            wanted == tensor or f".{wanted}" in field or method.endswith(f".{wanted}")
            for tensor, field, method in places
        ]
        assert any(found), (wanted, listed)
    for each in listed[:8]:
        assert each["method"].startswith(served.service.package) and each["text"].strip(), each
        assert each["text"] in error["error"], "every mismatch stands in the text"
        assert not each["field"] or each["field"] in error["error"], f"the text does not name {each['field']}"


def test_c7_faults_of_all_methods_are_listed(admin, served):
    body = (
        "service S { rpc One(Q) returns (A); rpc Two(Q2) returns (A2); } service T { rpc Three(Q) returns (A2); }"
        "message Q { string x = 1; } message A { string y = 1; } message Q2 { bool ok = 1; string no = 2; } "
        "message A2 {}"
    )
    error = refused(admin, served, contract(body, served.service.package), 422, "CONTRACT_MODEL_MISMATCH")
    methods = {each["method"].rpartition(".")[2] for each in error["details"]["mismatches"]}
    assert methods == {"S/One", "S/Two", "T/Three"}


def test_c7_a_new_model_under_the_contract_that_is_there(admin, served):
    name = served.service.model
    for model in (DOT3, models.identity(8, (None, 4)), models.build([], [models.value("Z", shape=(4, 4, 4))], [])):
        response = admin.push(name, model)
        assert response.status_code in (409, 422), response.text
        served()
    check_error(admin.push(name, models.identity(8, (None, 4))), 422, "CONTRACT_MODEL_MISMATCH")
    error = check_error(admin.push(name, DOT3), 409, "CONTRACT_BREAKING")
    assert error["details"]["breaking"][0]["rule"] == "BINDING_SAME_ELEMENTS"


def test_c8_golden_rows_that_do_not_hold(admin, served):
    row = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    row["outputs"] = [{"name": "Y", "datatype": "FP32", "shape": [1, 4], "data": [2, 3, 4, 5]}]
    golden = json.dumps(row) + "\n"
    response = admin.push(served.service.model, models.adds(2), golden=golden)
    if response.status_code == 422 and response.json()["code"] == "GOLDEN_FAILED":
        served()
        return
    check_error(response, 422, {"GOLDEN_FAILED", "BAD_GOLDEN"})
    served()


INVALID = {
    "number-twice": ("message Q { repeated float x = 1; float z = 1; }" + Y4, "1"),
    "name-twice": ("message Q { repeated float x = 1; float x = 2; }" + Y4, "x"),
    "json-name-clash": ("message Q { float foo_bar = 1; float fooBar = 2; }" + Y4, "fooBar"),
    "reserved-number": ("message Q { reserved 1; repeated float x = 1; }" + Y4, "1"),
    "reserved-name": ('message Q { reserved "x"; repeated float x = 1; }' + Y4, "x"),
    "number-0": ("message Q { repeated float x = 0; }" + Y4, "0"),
    "number-19000": ("message Q { repeated float x = 19000; }" + Y4, "19000"),
    "number-19999": ("message Q { repeated float x = 19999; }" + Y4, "19999"),
    "number-2^29": ("message Q { repeated float x = 536870912; }" + Y4, "536870912"),
    "message-twice": (GOOD + X4, "Q"),
    "type-unknown": ("message Q { Nope x = 1; }" + Y4, "Nope"),
    "enum-without-zero": (GOOD + "enum K { ONE = 1; }", ""),
    "enum-empty": (GOOD + "enum K { }", ""),
    "enum-value-twice": (GOOD + "enum K { A0 = 0; A0 = 1; }", "A0"),
    "enum-number-twice": (GOOD + "enum K { A0 = 0; B0 = 0; }", "B0"),
    "enum-value-of-another-enum": (GOOD + "enum K { A0 = 0; } enum L { A0 = 0; }", "A0"),
    "map-key-float": ("message Q { map<float, float> x = 1; }" + Y4, ""),
    "map-repeated": ("message Q { repeated map<string, float> x = 1; }" + Y4, ""),
    "oneof-repeated": ("message Q { oneof k { repeated float x = 1; } }" + Y4, ""),
    "option-unknown": ('message Q { repeated float x = 1 [(mine.option) = "a"]; }' + Y4, "mine.option"),
    "rpc-of-a-scalar": ("service T { rpc Call(float) returns (A); }" + GOOD, "float"),
    "rpc-of-an-enum": ("service T { rpc Call(K) returns (A); } enum K { A0 = 0; }" + GOOD, "K"),
    "rpc-of-nothing-known": ("service T { rpc Call(Nope) returns (A); }" + GOOD, "Nope"),
    "rpc-twice": ("service T { rpc Call(Q) returns (A); rpc Call(Q) returns (A); }" + GOOD, "Call"),
    "service-without-rpc": ("service T { }" + GOOD, "T"),
    "default": ("message Q { float x = 1 [default = 2]; }" + Y4, ""),
    "required": ("message Q { required float x = 1; }" + Y4, ""),
}


@pytest.mark.parametrize(("body", "text"), INVALID.values(), ids=INVALID)
def test_c11_what_protobuf_forbids(admin, served, body, text):
    error = refused(admin, served, source(body), 422, {"CONTRACT_INVALID", "CONTRACT_SYNTAX", "CONTRACT_UNSUPPORTED"})
    assert text in error["error"], error["error"]


def test_c11_a_contract_without_a_service(admin, served):
    refused(admin, served, HEAD + GOOD, 422, "CONTRACT_INVALID", "service")


UNSUPPORTED = {
    "proto2": source(GOOD).replace("proto3", "proto2").replace("repeated float", "optional float"),
    "edition": source(GOOD).replace('syntax = "proto3"', 'edition = "2023"'),
    "no-syntax-line": source(GOOD).replace('syntax = "proto3";\n', ""),
    "group": source("message Q { repeated group X = 1 { float x = 1; } }" + Y4),
    "extensions": source("message Q { repeated float x = 1; extensions 100 to 199; }" + Y4),
    "extend": source(GOOD + "extend Q { float more = 100; }"),
}


@pytest.mark.parametrize("text", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_c12_what_is_not_proto3(admin, served, text):
    refused(admin, served, text, 422, {"CONTRACT_UNSUPPORTED", "CONTRACT_INVALID", "CONTRACT_SYNTAX"})


@pytest.mark.parametrize("case", ["proto2", "edition", "no-syntax-line"])
def test_c12_another_language_has_a_code_of_its_own(admin, served, case):
    refused(admin, served, UNSUPPORTED[case], 422, "CONTRACT_UNSUPPORTED", "proto3")


OWN = {
    "inference.GRPCInferenceService": "inference",
    "grpc.health.v1.Health": "grpc.health.v1",
    "grpc.reflection.v1.ServerReflection": "grpc.reflection.v1",
    "grpc.reflection.v1alpha.ServerReflection": "grpc.reflection.v1alpha",
    "grpc.mine.Anything": "grpc.mine",
}


@pytest.mark.parametrize("full", OWN)
def test_c13_batons_own_services_are_taken(admin, served, full):
    text = source(GOOD).replace("PACKAGE", OWN[full]).replace("service S", f"service {full.rpartition('.')[2]}")
    refused(admin, served, text, 409, "SERVICE_NAME_TAKEN", full)


def test_c13_a_service_of_another_model_is_taken(admin, served, name):
    other = f"{name}-other"
    text = contract(GOOD, served.service.package)
    check_error(admin.push(other, ADD1, contract=text), 409, "SERVICE_NAME_TAKEN")
    served()
    assert admin.get(f"/v1/models/{other}").status_code == 404
    ok(admin.push(other, ADD1, contract=contract(GOOD, package())), 201)
    check_error(admin.push(other, contract=text, query={"on_breaking": "allow"}), 409, "SERVICE_NAME_TAKEN")
    served()


def test_c13_a_service_is_free_when_its_model_is_gone(server, admin, name):
    mine = package()
    admin.must_push(f"{name}-a", ADD1, contract=contract(GOOD, mine))
    assert admin.remove(f"{name}-a", force=True).status_code == 204
    admin.must_push(f"{name}-b", models.adds(2), contract=contract(GOOD, mine))
    Service(server, f"{name}-b", mine).check("Call", {"x": [1, 2, 3, 4]}, {"y": [3, 4, 5, 6]})


AMBIGUOUS = {
    "two-inputs-of-one-type": (
        TWO,
        "message Q { float p = 1; float q = 2; } message A { float c = 1; }",
        {"PACKAGE.Q", "p is", "q is"},
    ),
    "two-outputs-of-one-type": (
        TWO,
        "message Q { float a = 1; float b = 2; } message A { float y = 1; }",
        {"PACKAGE.A", "y is"},
    ),
}


@pytest.mark.parametrize(("model", "body", "named"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_c14_nothing_is_guessed(admin, served, model, body, named):
    text = contract(body, served.service.package)
    error = refused(admin, served, text, 422, {"BINDING_AMBIGUOUS", "CONTRACT_MODEL_MISMATCH"}, model=model)
    assert error["code"] == "BINDING_AMBIGUOUS", error
    for wanted in named:
        assert wanted.replace("PACKAGE", served.service.package) in error["error"], error["error"]
    candidates = {"a", "b"} if "float p" in body else {"c", "d"}
    for tensor in candidates:
        assert f'"{tensor}"' in error["error"], error["error"]


def test_c14_an_option_or_the_manifest_decides(server, admin, name):
    body = "message Q { float p = 1; float q = 2; } message A { float y = 1; }"
    options = body.replace("q = 2", 'q = 2 [(baton.tensor) = "a"]').replace("y = 1", 'y = 1 [(baton.tensor) = "c"]')
    mine = package()
    admin.must_push(f"{name}-o", TWO, contract=contract(options, mine))
    Service(server, f"{name}-o", mine).check("Call", {"p": 1, "q": 2}, {"y": 2})
    mine = package()
    manifest = f'[bind]\n"{mine}.Q.q" = {{ tensor = "a" }}\n"{mine}.A.y" = {{ tensor = "d" }}\n'
    admin.must_push(f"{name}-m", TWO, contract=contract(body, mine), manifest=manifest)
    Service(server, f"{name}-m", mine).check("Call", {"p": 1, "q": 2}, {"y": 3})


BIND = {
    "unknown-field": ('"PACKAGE.Q.nope" = { ignore = true }', {"CONTRACT_MODEL_MISMATCH"}, "nope"),
    "unknown-key": ('"PACKAGE.Q.x" = { tensr = "X" }', {"BAD_MANIFEST"}, "tensr"),
    "wrong-type": ('"PACKAGE.Q.x" = { column = "one" }', {"BAD_MANIFEST"}, "line 2"),
    "negative-column": ('"PACKAGE.Q.x" = { column = -1 }', {"BAD_MANIFEST"}, ""),
    "unknown-tensor": ('"PACKAGE.Q.x" = { tensor = "Z" }', {"CONTRACT_MODEL_MISMATCH"}, "Z"),
}


@pytest.mark.parametrize(("line", "codes", "text"), BIND.values(), ids=BIND)
def test_the_manifests_bind_table_is_checked(admin, served, line, codes, text):
    manifest = "[bind]\n" + line.replace("PACKAGE", served.service.package) + "\n"
    refused(admin, served, source(GOOD), 400 if "BAD_MANIFEST" in codes else 422, codes, text, manifest=manifest)


@pytest.mark.parametrize("text", [b"\xff\xfe" + GOOD.encode("utf-16-le"), source(GOOD).encode() + b"\0", b"\x80"])
def test_c15_no_text(admin, served, text):
    refused(admin, served, text, 422, {"BAD_CONTRACT", "CONTRACT_SYNTAX"}, "UTF-8")


FORMS = {
    "byte-order-mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "bom-and-crlf": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "one-long-line": lambda text: text.replace("\n", " ").encode() + b"/*" + b"x" * 200_000 + b"*/",
    "no-line-end": lambda text: text.rstrip().encode(),
    "form-feeds-and-tabs": lambda text: text.replace(" ", "\t").replace("\n", "\f\n").encode(),
    "unicode-comments": lambda text: ("// größe 日本 🦊\n" + text).encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_c15_forms_of_text_that_are_accepted(server, admin, name, form):
    mine = package()
    text = form(contract(GOOD, mine))
    admin.must_push(name, ADD1, contract=text)
    service = Service(server, name, mine)
    assert service.source("1") == text
    assert service.source() in (text, text.removeprefix(b"\xef\xbb\xbf"))
    service.check("Call", {"x": [1, 2, 3, 4]}, {"y": [2, 3, 4, 5]})


@pytest.mark.parametrize(
    "content_type", ["text/x-protobuf", "text/protobuf", "application/x-protobuf-text", "text/plain"]
)
def test_c17_the_text_format_is_taken_nowhere(admin, served, content_type):
    answer = served.service.post("Call", b"x: 1 x: 2 x: 3 x: 4", content_type)
    check_error(answer, 415, "ENCODING_REFUSED")
    served()


def test_a_dry_run_and_a_staged_push_are_checked_too(admin, served):
    for query in ({"dry_run": "true"}, {"stage": "true"}):
        bad = contract(X4 + "message A { string y = 1; }", served.service.package)
        response = admin.push(served.service.model, contract=bad, query=query)
        check_error(response, 422, "CONTRACT_MODEL_MISMATCH")
        served()
