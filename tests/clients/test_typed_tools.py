"""Around the typed service: inferred contracts, try and convert, the command line, tokens."""

import json

import pytest
import requests

from support import models
from support.admin import Admin, changed, check_error, ok
from support.dtypes import BY_NAME, DTYPES
from support.runner import ONNXRUNTIME
from support.typed import Service, baton, compiled, contract, graph, package

ADD1 = models.adds(1)
DOT3 = graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}")
BATCH = """service S { rpc One(Row) returns (R); rpc Many(Rows) returns (Rs); }
message Row { float a = 1; float b = 2; float c = 3; } message R { float y = 1; }
message Rows { repeated Row rows = 1; } message Rs { repeated R rows = 1; }"""


# Inferred.


SHAPES = [(None,), (None, 1), (None, 3), (1, 3), (None, 2, 2), (3,), (), (None, None)]
MODELS = [(BY_NAME[name], shape) for name in ("FP32", "BOOL", "BYTES") for shape in SHAPES]
MODELS += [(dtype, (None, 3)) for dtype in DTYPES if dtype.name not in ("FP32", "BOOL", "BYTES")]


@pytest.mark.parametrize(("dtype", "shape"), MODELS, ids=lambda value: getattr(value, "name", str(value)))
def test_every_model_has_an_inferred_contract_that_works(server, admin, name, dtype, shape):
    plain = name.replace("-", "") + "x"
    admin.must_push(plain, models.identity(dtype.onnx, shape))
    service = Service(server, plain, f"baton.models.{plain}")
    compiled(service.source()).FindFileByName("contract.proto")
    size = 1
    for dimension in shape[1:] if shape and shape[0] in (None, 1) else shape:
        size *= dimension or 3
    value = "dGV4dA==" if dtype.is_bytes else dtype.name == "BOOL" or 1
    request = service.method("Predict").input_type
    field = request.fields[0]
    path = [field] if field.message_type is None else [field, field.message_type.fields[0]]
    last = path[-1]
    element = "text" if last.type == last.TYPE_STRING else value
    leaf = {last.name: [element] * size if last.is_repeated else element}
    message = (
        leaf if len(path) == 1 else {field.name: [leaf] * (1 if shape[0] == 1 else 2) if field.is_repeated else leaf}
    )
    answer = service.call_all("Predict", message)
    sent, got = json.dumps(message), json.dumps(answer)
    assert sent.count("text") + sent.count("dGV4") == got.count("text") + got.count("dGV4"), (message, answer)
    flat = [
        part
        for part in "".join(" " if char in '{}[]:,"' else char for char in got).split()
        if part in ("1", "1.0", "true")
    ]
    assert dtype.is_bytes or len(flat) == size * (2 if len(path) == 2 and shape[0] != 1 else 1), (message, answer)


def test_the_inferred_contract_is_shown_and_can_be_pushed_as_ones_own(server, admin, name):
    plain = name.replace("-", "") + "y"
    admin.must_push(plain, DOT3)
    shown = baton("contract", "show", plain, server=server.admin)
    assert shown.returncode == 0, shown.stderr
    mine = package()
    text = shown.stdout.replace(f"package baton.models.{plain}", f"package {mine}")
    changed(admin.push(plain, contract=text), 201)
    service = Service(server, plain, mine)
    field = service.method("Predict").input_type.fields[0]
    row = field.message_type.fields[0]
    answer = service.call_all("Predict", {field.name: [{row.name: [1, 2, 3]}]})
    assert "321" in json.dumps(answer)


def test_names_that_are_no_identifiers_become_some(server, admin, name):
    """Names of models and tensors as they really are."""
    plain = f"0-{name}.v2_x"
    admin.must_push(plain, models.odd_names())
    text = requests.get(f"http://{server.admin}/v1/models/{plain}/contract", timeout=10).text
    pool = compiled(text)
    assert pool.FindFileByName("contract.proto").services_by_name["Model"].methods_by_name["Predict"]
    where = pool.FindFileByName("contract.proto").package
    service = Service(server, plain, where)
    field = service.method("Predict").input_type.fields[0]
    answer = service.call_all("Predict", {field.name: [{field.message_type.fields[0].name: [1, 2, 3, 4]}]})
    assert "-4" in json.dumps(answer)


def test_outputs_that_vary_in_width_are_told_apart_by_their_names(server, admin, name):
    plain = name.replace("-", "") + "z"
    assert admin.must_push(plain, models.simple_text())["warnings"] == []
    service = Service(server, plain, f"baton.models.{plain}")
    service.check(
        "Predict",
        {"rows": [{"a": ["x", "y"], "b": ["z"]}]},
        {"rows": [{"b_out": ["x", "y"], "a_out": ["z"]}]},
    )


def test_what_no_contract_can_be_made_for_is_told_and_served_all_the_same(server, admin, name):
    for index, model in enumerate(
        (models.no_inputs(), models.identity(1, None), models.identity(1, (None, None, None)))
    ):
        plain = f"{name}-{index}"
        assert "no contract" in admin.must_push(plain, model)["warnings"][0]
        check_error(requests.get(f"http://{server.admin}/v1/models/{plain}/contract", timeout=10), 404, "PART_MISSING")
        assert ok(requests.get(f"http://{server.data}/v2/models/{plain}", timeout=10))["name"] == plain


def infer(tmp_path, model: bytes, *arguments: str, sample: str | None = None):
    path = tmp_path / "flowers.onnx"
    path.write_bytes(model)
    if sample is not None:
        (tmp_path / "sample.csv").write_text(sample)
        arguments += ("--sample", str(tmp_path / "sample.csv"))
    return baton("contract", "infer", str(path), "--onnxruntime", ONNXRUNTIME, *arguments)


def test_a_contract_inferred_with_a_sample_has_its_names_and_types(server, admin, name, tmp_path):
    done = infer(tmp_path, DOT3, sample="sepal length,Sepal.Width,class\n1,2.5,3\n4,5.5,6\n")
    assert done.returncode == 0, done.stderr
    for line in (
        "int64 sepal_length = 1;",
        "double sepal_width = 2;",
        "int64 class = 3;",
        "package baton.models.flowers;",
    ):
        assert line in done.stdout
    mine = package()
    admin.must_push(name, DOT3, contract=done.stdout.replace("baton.models.flowers", mine))
    service = Service(server, name, mine)
    answer = service.csv("Predict", "sepal_length,sepal_width,class\n1,2,3\n")
    assert float(answer.split()[1]) == 321


@pytest.mark.parametrize(
    "sample", ["", "a,b\n1,2\n", "a,b,c,d\n1,2,3,4\n", "a,a,a\n1,2,3\n", "a,b,c\n1,x,3\n", "a,b,c\n"]
)
def test_samples_that_do_not_fit_are_refused_or_still_make_a_contract(tmp_path, sample):
    done = infer(tmp_path, DOT3, sample=sample)
    if done.returncode == 0:
        compiled(done.stdout)
    else:
        assert done.returncode in (1, 64) and done.stderr.startswith("baton: ") and "panicked" not in done.stderr, (
            done.stderr
        )


# The command line.


def test_check_says_what_a_push_would(tmp_path):
    old, new = tmp_path / "old.proto", tmp_path / "new.proto"
    old.write_text(contract(BATCH, "p.v1"))
    new.write_text(contract(BATCH.replace("float b = 2;", ""), "p.v1"))
    done = baton("contract", "check", str(old), str(new))
    assert done.returncode == 1 and "FIELD_NO_DELETE_UNLESS_NAME_RESERVED p.v1.Row.b" in done.stderr, done.stderr
    listed = json.loads(baton("contract", "check", str(old), str(new), "--json").stdout)
    assert listed["details"]["breaking"][0]["element"] == "p.v1.Row.b"
    assert baton("contract", "check", str(new), str(old)).returncode == 0
    new.write_text("nonsense")
    assert baton("contract", "check", str(old), str(new)).returncode == 1


def test_every_rule_is_listed():
    rules = baton("contract", "rules").stdout
    for rule in ("FIELD_SAME_NAME", "RPC_NO_DELETE", "BINDING_SAME_RANGE", "SERVICE_NO_DELETE"):
        assert rule in rules


def test_push_with_a_contract_on_the_command_line(server, tmp_path, name):
    mine = package()
    (tmp_path / "m.onnx").write_bytes(DOT3)
    (tmp_path / "c.proto").write_text(contract(BATCH, mine))
    push = ("push", name, str(tmp_path / "m.onnx"), "--contract", str(tmp_path / "c.proto"))
    done = baton(*push, server=server.admin)
    assert done.returncode == 0, done.stderr
    Service(server, name, mine).check("One", {"a": 1}, {"y": 1})
    assert baton("contract", "show", name, server=server.admin).stdout.strip() == (tmp_path / "c.proto").read_text()
    (tmp_path / "c.proto").write_text(contract(BATCH.replace("float b", "float bb"), mine))
    done = baton(*push, server=server.admin)
    assert done.returncode == 1 and "CONTRACT_BREAKING" in done.stderr and "Row.b" in done.stderr
    assert baton(*push, "--allow-breaking", server=server.admin).returncode == 0


# Try and convert.


def post(server, route: str, query: dict | None = None, **parts) -> requests.Response:
    return requests.post(f"http://{server.admin}/v1/{route}", params=query, files=parts, timeout=30)


INPUTS = {
    "csv": ("i.csv", "a,b,c\n1,2,3\n"),
    "json": ("i.json", '{"rows": [{"a": 1, "b": 2, "c": 3}]}'),
    "protobuf": ("i.bin", b"\x0a\x0f\x0d\0\0\x80\x3f\x15\0\0\0\x40\x1d\0\0\x40\x40"),
}
WANTED = {"json": b'{"rows":[{"y":321.0}]}', "csv": b"y\n321.0\n", "protobuf": b"\x0a\x05\x0d\0\x80\xa0\x43"}


@pytest.mark.parametrize("accept", [None, *WANTED])
@pytest.mark.parametrize("form", INPUTS)
def test_try_before_a_push(server, form, accept):
    text = contract(BATCH, package())
    query = {"method": "Many"} | ({"accept": accept} if accept else {})
    answer = post(server, "try", query, model=("m.onnx", DOT3), contract=("c.proto", text), input=INPUTS[form])
    assert answer.status_code == 200, answer.text
    assert answer.content.replace(b"\r\n", b"\n") == WANTED[accept or "json"]


def test_try_keeps_nothing(server, admin):
    before = admin.get("/v1/models").text
    mine = package()
    for _ in range(3):
        post(
            server,
            "try",
            {"method": "Many"},
            model=("m", DOT3),
            contract=("c", contract(BATCH, mine)),
            input=INPUTS["csv"],
        )
    assert admin.get("/v1/models").text == before
    assert server.staged_files() == []
    answer = requests.post(f"http://{server.data}/{mine}.S/Many", data="{}", timeout=10)
    check_error(answer, 404, "ROUTE_UNKNOWN")


def test_try_what_is_being_served_and_with_another_contract(server, admin, name):
    admin.must_push(name, DOT3, contract=contract(BATCH, package()))
    for method in ("Many", "S/Many"):
        answer = post(server, "try", {"model": name, "method": method}, input=INPUTS["csv"])
        if answer.status_code == 200:
            assert answer.json() == {"rows": [{"y": 321}]}
        else:
            check_error(answer, 400, "BAD_REQUEST")
    other = contract(BATCH.replace("float a", "float first"), package())
    answer = post(
        server, "try", {"model": name, "method": "One"}, contract=("c", other), input=("i.json", '{"first": 7}')
    )
    assert ok(answer) == {"y": 7}


def test_try_without_a_contract(server):
    answer = post(server, "try", model=("m.onnx", DOT3), input=("i.json", '{"rows": [{"x": [1, 2, 3]}]}'))
    assert answer.status_code == 200 and "321" in answer.text, answer.text


TRY_FAULTS = {
    "no-model": ({"method": "One"}, {"contract": True, "input": True}, 400),
    "no-input": ({"method": "One"}, {"model": True, "contract": True}, 400),
    "which-method": ({}, {"model": True, "contract": True, "input": True}, 400),
    "unknown-method": ({"method": "Nope"}, {"model": True, "contract": True, "input": True}, 400),
    "unknown-model": ({"model": "nope"}, {"input": True}, 404),
    "unknown-accept": ({"method": "One", "accept": "xml"}, {"model": True, "contract": True, "input": True}, 400),
    "unknown-part": ({"method": "One"}, {"model": True, "contract": True, "input": True, "surprise": True}, 400),
}


@pytest.mark.parametrize(("query", "parts", "status"), TRY_FAULTS.values(), ids=TRY_FAULTS)
def test_what_try_refuses(server, query, parts, status):
    content = {
        "model": ("m", DOT3),
        "contract": ("c", contract(BATCH, package())),
        "input": ("i.json", "{}"),
        "surprise": ("s", "x"),
    }
    answer = post(server, "try", query, **{part: content[part] for part in parts})
    assert answer.status_code == status, answer.text
    check_error(answer, status, answer.json()["code"])
    assert answer.json()["code"] != "INTERNAL"


def test_try_refuses_what_a_push_would(server):
    bad = contract(BATCH.replace("float a = 1;", "string a = 1;"), package())
    answer = post(server, "try", {"method": "One"}, model=("m", DOT3), contract=("c", bad), input=INPUTS["json"])
    check_error(answer, 422, "CONTRACT_MODEL_MISMATCH")
    answer = post(
        server,
        "try",
        {"method": "One"},
        model=("m", b"junk"),
        contract=("c", contract(BATCH, package())),
        input=INPUTS["json"],
    )
    check_error(answer, 422, "WRONG_FORMAT")


@pytest.mark.parametrize("form", ["csv", "json"])
def test_convert_makes_the_requests_bytes(server, form):
    answer = post(server, "convert", {"method": "Many"}, contract=("c", contract(BATCH, package())), input=INPUTS[form])
    assert answer.status_code == 200, answer.text
    assert answer.content == INPUTS["protobuf"][1]
    assert answer.headers["content-type"] == "application/protobuf"


def test_convert_names_the_line(server):
    answer = post(
        server,
        "convert",
        {"method": "Many"},
        contract=("c", contract(BATCH, package())),
        input=("i.csv", "a,b,c\n1,2,3\n1,x,3\n"),
    )
    assert "line 3" in check_error(answer, 400, {"BAD_CSV", "BAD_FIELD"})["error"]


# Tokens.


def test_typed_calls_need_the_data_token_where_one_is_set(start, tmp_path, name):
    token, other = tmp_path / "data", tmp_path / "admin"
    token.write_text("data-canary-token\n")
    other.write_text("admin-canary-token\n")
    server = start("--data-token-file", str(token), "--admin-token-file", str(other))
    mine = package()
    header = {"Authorization": "Bearer admin-canary-token"}
    admin = Admin(server.admin)
    parts = {"model": DOT3, "contract": contract(BATCH, mine)}
    changed(
        admin.call(
            "PUT", f"/v1/models/{name}", files={key: (key, each) for key, each in parts.items()}, headers=header
        ),
        201,
    )
    path = f"/{mine}.S/One"
    right = {"Authorization": "Bearer data-canary-token"}
    for content_type, body in (("application/json", "{}"), ("application/proto", b""), ("text/csv", "a,b,c\n1,2,3\n")):
        url = f"http://{server.data}{path}"
        typed = {"content-type": content_type}
        check_error(requests.post(url, data=body, headers=typed, timeout=10), 401, "NO_CREDENTIALS")
        check_error(
            requests.post(url, data=body, headers=typed | {"Authorization": "Bearer x"}, timeout=10),
            401,
            "NO_CREDENTIALS",
        )
        assert requests.post(url, data=body, headers=typed | right, timeout=10).status_code == 200
        check_error(
            requests.post(f"http://{server.admin}{path}", data=body, headers=typed, timeout=10), 401, "NO_CREDENTIALS"
        )
    check_error(requests.post(f"http://{server.data}/nope.S/One", data="{}", timeout=10), 401, "NO_CREDENTIALS")
    for web in ("application/grpc", "application/grpc-web"):
        answer = requests.post(
            f"http://{server.data}{path}", data=b"\0\0\0\0\0", headers={"content-type": web}, timeout=10
        )
        assert answer.headers.get("grpc-status") == "16" or answer.status_code == 401, (answer.headers, answer.text)
    for route in ("try", "convert"):
        check_error(post(server, route, input=INPUTS["json"]), 401, "NO_CREDENTIALS")
    assert server.stop() == 0
    assert "canary" not in server.log
