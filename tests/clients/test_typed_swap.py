"""Changing a contract: what breaks clients and what does not, under load; health and reflection as they follow."""

import random
import threading
import time

import grpc
import numpy as np
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support import calls, models
from support.admin import Admin, changed, check_error, ok
from support.runner import eventually
from support.typed import Service, as_dict, contract, generate, graph, message_class, package, reflected

ADD1, ADD2 = models.adds(1), models.adds(2)
BASE = """service S { rpc Call(Q) returns (A); rpc Again(Q) returns (A); }
message Q { repeated float x = 1; string id = 2 [(baton.ignore) = true];
  Kind kind = 3 [(baton.ignore) = true]; Extra extra = 4 [(baton.ignore) = true]; }
message Extra { optional int32 a = 1; int32 b = 2; oneof k { int32 c = 3; string d = 4; } reserved 9; reserved "old"; }
enum Kind { NONE = 0; CAT = 1; DOG = 2; }
message A { repeated float y = 1; }
"""
ZEROS = {"x": [0, 0, 0, 0]}

ID_FIELD = "string id = 2 [(baton.ignore) = true];"

# What breaks clients: (what is replaced, by what, the rule, the element after the package)
BREAKING = {
    "field-deleted": (ID_FIELD, "", "FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "Q.id"),
    "field-deleted-number-reserved": (ID_FIELD, "reserved 2;",
                                      "FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "Q.id"),
    "field-deleted-name-reserved": (ID_FIELD, 'reserved "id";',
                                    "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "Q.id"),
    "field-renamed": ("string id", "string ident", "FIELD_SAME_NAME", "Q.id"),
    "field-number": ("string id = 2", "string id = 7", "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "Q.id"),
    "field-type": ("int32 b = 2", "fixed32 b = 2", "FIELD_WIRE_JSON_COMPATIBLE_TYPE", "Extra.b"),
    "field-type-json": ("int32 b = 2", "int64 b = 2", "FIELD_WIRE_JSON_COMPATIBLE_TYPE", "Extra.b"),
    "field-json-name": ("int32 b = 2", 'int32 b = 2 [json_name = "bee"]', "FIELD_SAME_JSON_NAME", "Extra.b"),
    "field-becomes-optional": ("int32 b = 2", "optional int32 b = 2", "FIELD_SAME_CARDINALITY", "Extra.b"),
    "optional-ceases": ("optional int32 a = 1", "int32 a = 1", "FIELD_SAME_CARDINALITY", "Extra.a"),
    "field-becomes-repeated": ("int32 b = 2", "repeated int32 b = 2",
                               "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", "Extra.b"),
    "field-into-oneof": ("int32 b = 2; oneof k {", "oneof k { int32 b = 2;", "FIELD_SAME_ONEOF", "Extra.b"),
    "field-out-of-oneof": ("oneof k { int32 c = 3;", "int32 c = 3; oneof k {", "FIELD_SAME_ONEOF", "Extra.c"),
    "oneof-renamed": ("oneof k", "oneof kk", "ONEOF_NO_DELETE", "Extra.k"),
    "message-of-a-field": ("Extra extra = 4", "Other extra = 4", "FIELD_SAME_TYPE", "Q.extra"),
    "enum-of-a-field": ("Kind kind = 3", "Sort kind = 3", "FIELD_SAME_TYPE", "Q.kind"),
    "enum-value-deleted": (" DOG = 2;", "", "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", "Kind"),
    "enum-value-renamed": ("DOG = 2", "HOUND = 2", "ENUM_VALUE_SAME_NAME", "Kind"),
    "enum-value-number": ("DOG = 2", "DOG = 3", "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", "Kind"),
    "message-deleted": ("message Unused {}", "", "MESSAGE_NO_DELETE", "Unused"),
    "enum-deleted": ("enum Sort { SORT_NONE = 0; }", "", "ENUM_NO_DELETE", "Sort"),
    "reserved-number-freed": ("reserved 9;", "", "RESERVED_MESSAGE_NO_DELETE", "Extra"),
    "reserved-name-freed": ('reserved "old";', "", "RESERVED_MESSAGE_NO_DELETE", "Extra"),
    "rpc-deleted": ("rpc Again(Q) returns (A);", "", "RPC_NO_DELETE", "S.Again"),
    "rpc-renamed": ("rpc Again", "rpc Anew", "RPC_NO_DELETE", "S.Again"),
    "rpc-request": ("rpc Again(Q)", "rpc Again(Q2)", "RPC_SAME_REQUEST_TYPE", "S.Again"),
    "rpc-response": ("rpc Again(Q) returns (A)", "rpc Again(Q) returns (A2)", "RPC_SAME_RESPONSE_TYPE", "S.Again"),
    "rpc-client-stream": ("rpc Again(Q) returns (A)", "rpc Again(stream Q) returns (As)",
                          "RPC_SAME_CLIENT_STREAMING", "S.Again"),
    "rpc-server-stream": ("rpc Again(Q) returns (A)", "rpc Again(Q) returns (stream A)",
                          "RPC_SAME_SERVER_STREAMING", "S.Again"),
    "service-renamed": ("service S", "service Z", "SERVICE_NO_DELETE", "S"),
}  # fmt: skip
SPARE = """message Other {} message Unused {} message Q2 { repeated float x = 1; } message A2 { repeated float y = 1; }
enum Sort { SORT_NONE = 0; } message As { repeated A rows = 1; }"""


def rule_elements(error: dict) -> dict:
    return {each["rule"]: each["element"] for each in error["details"]["breaking"]}


@pytest.fixture(scope="module")
def base(server, admin):
    mine = package()
    admin.must_push("swap-base", ADD1, contract=contract(BASE + SPARE, mine))
    return Service(server, "swap-base", mine)


@pytest.mark.parametrize(("old", "new", "rule", "element"), BREAKING.values(), ids=BREAKING)
def test_what_breaks_clients_is_refused_by_rule(admin, base, old, new, rule, element):
    before = admin.model("swap-base")
    body = BASE + SPARE
    assert old in body
    text = contract(body.replace(old, new, 1), base.package)
    error = check_error(admin.push("swap-base", contract=text), 409, "CONTRACT_BREAKING")
    broken = rule_elements(error)
    assert rule in broken, broken
    found = [each for each in error["details"]["breaking"] if each["rule"] == rule]
    assert any(each["element"].startswith(f"{base.package}.{element}") for each in found), found
    for each in error["details"]["breaking"]:
        assert each["before"] and each["after"], each
        assert each["rule"] in error["error"] and each["element"] in error["error"]
    assert admin.model("swap-base") == before


def test_every_broken_rule_is_listed(admin, base):
    body = BASE + SPARE
    singles = (
        "field-renamed",
        "field-type",
        "enum-value-renamed",
        "rpc-deleted",
        "message-deleted",
        "reserved-number-freed",
    )
    for case in singles:
        body = body.replace(*BREAKING[case][:2], 1)
    error = check_error(admin.push("swap-base", contract=contract(body, base.package)), 409, "CONTRACT_BREAKING")
    assert set(rule_elements(error)) >= {BREAKING[case][2] for case in singles}


def test_another_package_and_no_contract_at_all_are_breaking(admin, base):
    for text in (contract(BASE + SPARE, package()), ""):
        error = check_error(admin.push("swap-base", contract=text), 409, "CONTRACT_BREAKING")
        assert {"SERVICE_NO_DELETE", "FILE_SAME_PACKAGE"} & set(rule_elements(error)), error
    base.check("Call", ZEROS, {"y": [1] * 4})


COMPATIBLE = {
    "field-added": ("string id = 2", "float added = 99 [(baton.ignore) = true]; string id = 2"),
    "optional-field-added": ("string id = 2", "optional bool added = 99 [(baton.ignore) = true]; string id = 2"),
    "field-deleted-and-reserved": (ID_FIELD, 'reserved 2; reserved "id";'),
    "answer-field-added": (
        "repeated float y = 1; }",
        "repeated float y = 1; string note = 2 [(baton.ignore) = true]; }",
    ),
    "message-added": ("enum Kind", "message Fresh { Fresh again = 1; } enum Kind"),
    "enum-value-added": ("DOG = 2;", "DOG = 2; COW = 3;"),
    "enum-value-deleted-and-reserved": ("DOG = 2;", 'reserved 2; reserved "DOG";'),
    "rpc-added": ("rpc Call(Q)", "rpc New(Q) returns (stream A); rpc Call(Q)"),
    "service-added": ("message Q ", "service T { rpc Call(Q) returns (A); } message Q "),
    "order": (
        "rpc Call(Q) returns (A); rpc Again(Q) returns (A);",
        "rpc Again(Q) returns (A); rpc Call(Q) returns (A);",
    ),
    "comments": ("service S", "// better explained\nservice S"),
    "deprecated": ("int32 b = 2", "int32 b = 2 [deprecated = true]"),
    "more-reserved": ("reserved 9;", "reserved 9, 10 to 20;"),
}


@pytest.mark.parametrize(("old", "new"), COMPATIBLE.values(), ids=COMPATIBLE)
def test_what_is_compatible_passes_and_old_clients_go_on(server, admin, name, old, new):
    mine = package()
    first = contract(BASE, mine)
    admin.must_push(name, ADD1, contract=first)
    service = Service(server, name, mine)
    messages, stubs = generate(first.encode())
    with calls.grpc_channel(server) as channel:
        stub = stubs.SStub(channel)
        asked = messages.Q(x=[0, 0, 0, 0], id="a", kind=messages.DOG)
        assert list(stub.Call(asked, timeout=10).y) == [1] * 4
        changed(admin.push(name, ADD2, contract=contract(BASE.replace(old, new, 1), mine)), 201)
        answer = stub.Call(asked, timeout=10)
        assert list(answer.y) == [2] * 4
    assert service.call("reflection", "Again", ZEROS)["y"] == [2] * 4
    assert admin.history(name)[0]["broken_rules"] == []


def test_breaking_on_purpose_is_allowed_and_told(server, admin, name):
    mine = package()
    admin.must_push(name, ADD1, contract=contract(BASE, mine))
    text = contract(BASE.replace("string id = 2", "string ident = 2"), mine)
    changed(admin.push(name, contract=text, query={"on_breaking": "allow"}), 201)
    assert "FIELD_SAME_NAME" in str(admin.history(name)[0]["broken_rules"])
    assert Service(server, name, mine).call("json", "Call", ZEROS | {"ident": "x"}) == {"y": [1] * 4}
    check_error(admin.push(name, contract=text, query={"on_breaking": "maybe"}), 400, "BAD_REQUEST")
    changed(admin.roll_back(name))
    Service(server, name, mine).check("Call", ZEROS | {"id": "x"}, {"y": [1] * 4})


# Under the same contract: what the model may not lose.


def test_a_model_that_takes_less_is_breaking(server, admin, name):
    body = "message Q { int64 x = 1; } message A { int64 y = 1; }"
    mine = package()
    wide, narrow = (graph(f"{kind}[N] X", "int64[N] Y", "Y = Cast <to = 7> (X)") for kind in ("int64", "int8"))
    admin.must_push(name, wide, contract=contract(body, mine))
    error = check_error(admin.push(name, narrow), 409, "CONTRACT_BREAKING")
    assert "BINDING_SAME_RANGE" in rule_elements(error)
    changed(admin.push(name, narrow, query={"on_breaking": "allow"}), 201)
    changed(admin.push(name, wide), 200)
    Service(server, name, mine).check("Call", {"x": 2**40}, {"y": 2**40})


def test_a_missing_value_that_is_not_accepted_any_more_is_breaking(admin, name):
    body = "message Q { optional int32 x = 1; } message A { double y = 1; }"
    takes, refuses = (graph(f"{kind}[N] X", "double[N] Y", "Y = Cast <to = 11> (X)") for kind in ("double", "int64"))
    admin.must_push(name, takes, contract=contract(body, package()))
    error = check_error(admin.push(name, refuses), 409, "CONTRACT_BREAKING")
    assert "BINDING_SAME_NULLABLE" in rule_elements(error)


def test_a_label_that_is_gone_is_breaking(admin, name):
    body = "message Q { repeated float x = 1; } message A { map<string, float> y = 1 [%s]; }"
    labels = [", ".join(f'(baton.label) = "{label}"' for label in names) for names in ("abcd", "abce")]
    mine = package()
    admin.must_push(name, ADD1, contract=contract(body % labels[0], mine))
    error = check_error(admin.push(name, contract=contract(body % labels[1], mine)), 409, "CONTRACT_BREAKING")
    assert "BINDING_LABEL_NO_DELETE" in rule_elements(error)


# Parts alone.


def test_parts_pushed_alone(server, admin, name):
    """The other parts come from the version being served."""
    mine = package()
    admin.must_push(name, ADD1)
    admin.must_push(name, contract=contract(BASE, mine))
    service = Service(server, name, mine)
    service.check("Call", ZEROS, {"y": [1] * 4})
    admin.must_push(name, ADD2)
    service.check("Call", ZEROS, {"y": [2] * 4})
    admin.must_push(name, manifest=f'[bind]\n"{mine}.Q.x" = {{ tensor = "X" }}\n')
    service.check("Call", ZEROS, {"y": [2] * 4})
    parts = admin.model(name)["versions"]
    assert {len(version["parts"]) for version in parts} == {1, 2, 3}, parts
    check_error(
        admin.push(name, manifest=f'[bind]\n"{mine}.Q.x" = {{ tensor = "Z" }}\n'), 422, "CONTRACT_MODEL_MISMATCH"
    )
    service.check("Call", ZEROS, {"y": [2] * 4})
    raw = requests.put(
        f"http://{server.admin}/v1/models/{name}/contract", data=contract(BASE + SPARE, mine), timeout=30
    )
    changed(raw, 201)
    service.check("Call", ZEROS, {"y": [2] * 4})


def test_a_model_without_a_contract_has_an_inferred_one(server, admin, name):
    plain = f"plain{name.replace('-', '')}"
    admin.must_push(plain, models.simple())
    service = Service(server, plain, f"baton.models.{plain}")
    method = service.method("Model/Predict")
    assert [field.is_repeated for field in method.input_type.fields] == [True]
    row = {"INPUT0": list(range(16)), "INPUT1": [1] * 16}
    fields = {field.name for field in method.input_type.fields[0].message_type.fields}
    rows_in, rows_out = method.input_type.fields[0].name, method.output_type.fields[0].name
    names = {field.lower().replace("_", ""): field for field in fields}
    request = {rows_in: [{names[key.lower()]: value for key, value in row.items()}] * 2}
    answer = service.call_all("Model/Predict", request)[rows_out]
    assert len(answer) == 2
    assert sorted(map(tuple, answer[0].values())) == sorted([tuple(range(1, 17)), tuple(range(-1, 15))])
    admin.must_push(plain, ADD1)
    again = Service(server, plain, f"baton.models.{plain}")
    assert again.method("Model/Predict"), "another model under the same name is never refused for its inferred contract"


def test_roll_back_and_activation_bring_the_contract_back(server, admin, name):
    one, two = package(), package()
    admin.must_push(name, ADD1, contract=contract(BASE, one))
    admin.must_push(name, ADD2, contract=contract(BASE, two), query={"on_breaking": "allow"})
    old, new = (Service(server, name, mine) for mine in (one, two))
    assert sorted(new.services) == ["S"] and not old.services
    changed(admin.roll_back(name))
    old = Service(server, name, one)
    old.check("Call", ZEROS, {"y": [1] * 4})
    changed(admin.activate(name, "2"))
    Service(server, name, two).check("Call", ZEROS, {"y": [2] * 4})


def test_a_restart_serves_the_same_contracts(start, name):
    server = start()
    admin = Admin(server.admin)
    mine = package()
    admin.must_push(name, ADD1, contract=contract(BASE, mine), manifest=f'[bind]\n"{mine}.Q.x" = {{ tensor = "X" }}\n')
    admin.must_push(name, ADD2)
    text = Service(server, name, mine).source()
    assert server.stop() == 0
    server = start()
    service = Service(server, name, mine)
    service.check("Call", ZEROS, {"y": [2] * 4})
    assert service.source() == text


# Load.


class Load:
    """Clients in threads until the end; `faults` are what none may have."""

    def __init__(self, *clients):
        self.faults, self.counts = [], [0] * len(clients)
        self.over = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(index, client)) for index, client in enumerate(clients)
        ]

    def _run(self, index, client):
        while not self.over.is_set():
            try:
                fault = client()
            except Exception as error:  # noqa: BLE001  (any failure of a call counts)
                fault = f"{type(error).__name__}: {str(error)[:300]}"
            if fault:
                self.faults.append(fault)
            self.counts[index] += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(30)


def test_an_old_client_runs_across_compatible_swaps_without_a_failure(server, admin, name):
    mine = package()
    first = contract(BASE, mine)
    admin.must_push(name, models.adds(0), contract=first)
    messages, stubs = generate(first.encode())
    url = f"http://{server.data}/{mine}.S/Call"
    session = requests.Session()
    asked = messages.Q(x=[1, 1, 1, 1], id="me", kind=messages.CAT)

    channel = calls.grpc_channel(server)

    def over_grpc():
        y = set(stubs.SStub(channel).Call(asked, timeout=10).y)
        return None if len(y) == 1 else f"mixed: {y}"

    def over_json():
        answer = session.post(url, json={"x": [1, 1, 1, 1], "kind": "DOG"}, timeout=10)
        return None if answer.status_code == 200 and len(set(answer.json()["y"])) == 1 else answer.text

    binary = requests.Session()

    def over_protobuf():
        answer = binary.post(
            url, data=asked.SerializeToString(), headers={"content-type": "application/proto"}, timeout=10
        )
        return (
            None
            if answer.status_code == 200 and len(set(messages.A.FromString(answer.content).y)) == 1
            else answer.text
        )

    with Load(over_grpc, over_json, over_protobuf, over_grpc) as load:
        fields = ""
        for swap in range(30):
            fields += f" float f{swap} = {100 + swap} [(baton.ignore) = true];"
            body = BASE.replace("message Q {", "message Q {" + fields).replace("y = 1; }", f"y = 1; {fields} }}")
            body = body.replace("rpc Call", f"rpc New{swap}(Q) returns (A); rpc Call")
            if swap % 3:
                body = body.replace(f"rpc New{swap}(Q) returns (A); ", "")
            text = contract(body, mine)
            parts = {"contract": text} if swap % 2 else {"model": models.adds(swap)}
            response = admin.push(name, query={"on_breaking": "allow"} if swap % 2 else None, **parts)
            assert response.status_code in (200, 201), response.text
            time.sleep(0.05)
    assert load.faults == [], (len(load.faults), load.faults[:3])
    assert min(load.counts) > 20, load.counts


def test_every_answer_is_of_one_version_whatever_is_swapped_meanwhile(server, admin, name):
    """Version k adds k and answers in a field k<k>: model, contract and header of each answer must agree."""
    mine = package()

    def body(amount: int) -> str:
        return f"message Q {{ repeated float x = 1; }} message A {{ repeated float k{amount} = {amount}; }}"

    amounts: dict[str, int] = {}  # version: what it adds
    guard = threading.Lock()
    numbers = iter(range(1, 10_000))

    def push() -> None:
        with guard:
            amount = next(numbers)
        parts = {"model": models.adds(amount), "contract": contract(body(amount), mine)}
        response = admin_of().push(name, query={"on_breaking": "allow"}, **parts)
        if response.status_code == 409:  # The other writer is at it.
            check_error(response, 409, "UPLOAD_IN_PROGRESS")
            return
        change = changed(response, 201)
        with guard:
            amounts[change["version"]] = amount

    local = threading.local()

    def admin_of():
        if not hasattr(local, "admin"):
            local.admin = Admin(server.admin)
        return local.admin

    def session():
        if not hasattr(local, "session"):
            local.session = requests.Session()
        return local.session

    push()
    seen = []  # (version, field number or name, value)
    channel = calls.grpc_channel(server)
    raw = channel.unary_unary(f"/{mine}.S/Call", request_serializer=None, response_deserializer=None)
    wire = b"\x0a\x10" + np.zeros(4, "<f4").tobytes()

    def decoded(content: bytes) -> tuple[int, float]:
        """The one field that is set: its number and its first element, without knowing the contract."""
        key = shift = at = 0
        while True:
            byte = content[at]
            key, shift, at = key | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        values = np.frombuffer(content[at + 1 :], "<f4")
        assert key & 7 == 2 and len(values) == 4 and len(set(values)) == 1, content
        return key >> 3, float(values[0])

    def typed_grpc():
        answer, call = raw.with_call(wire, timeout=10)
        seen.append((dict(call.initial_metadata())["baton-model-version"], *decoded(answer)))

    def typed_json():
        answer = session().post(f"http://{server.data}/{mine}.S/Call", json={"x": [0] * 4}, timeout=10)
        assert answer.status_code == 200, answer.text
        ((key, values),) = answer.json().items()
        assert len(set(values)) == 1, values
        seen.append((answer.headers["baton-model-version"], int(key.removeprefix("k")), values[0]))

    def typed_csv():
        answer = session().post(f"http://{server.data}/{mine}.S/Call", data="x[0],x[1],x[2],x[3]\n0,0,0,0\n",
                                headers={"content-type": "text/csv"}, timeout=10)  # fmt: skip
        assert answer.status_code == 200, answer.text
        header, row = answer.text.split()
        assert len(set(header.replace("[", ",").split(",")[::2])) == 1, header
        seen.append(
            (answer.headers["baton-model-version"], int(header[1 : header.index("[")]), float(row.split(",")[0]))
        )

    def tensors():
        tensor = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [0] * 4}
        answer = session().post(f"http://{server.data}/v2/models/{name}/infer", json={"inputs": [tensor]}, timeout=10)
        assert answer.status_code == 200, answer.text
        value = answer.json()["outputs"][0]["data"][0]
        version = answer.headers.get("baton-model-version") or answer.json()["model_version"]
        seen.append((version, int(value), value))

    def writer():
        push()
        time.sleep(random.uniform(0.01, 0.05))

    with Load(writer, writer, typed_grpc, typed_json, tensors, typed_csv, typed_grpc) as load:
        time.sleep(5)
    assert load.faults == [], (len(load.faults), load.faults[:3])
    assert len(amounts) > 20 and min(load.counts[2:]) > 50, load.counts
    wrong = [each for each in seen if not amounts[each[0]] == each[1] == each[2]]
    assert not wrong, (len(wrong), len(seen), wrong[:5])
    assert len({version for version, *_ in seen}) > 10


# Health and reflection.


@pytest.fixture(scope="module")
def health(server):
    with calls.grpc_channel(server) as channel:
        yield health_pb2_grpc.HealthStub(channel)


SERVING, UNKNOWN = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_knows_server_services_and_models(health, admin, name):
    mine = package()
    admin.must_push(name, ADD1, contract=contract(BASE + "service T { rpc Call(Q) returns (A); }", mine))
    for known in ("", f"{mine}.S", f"{mine}.T", name, "inference.GRPCInferenceService"):
        assert health.Check(health_pb2.HealthCheckRequest(service=known), timeout=10).status == SERVING, known
    for unknown in (f"{mine}.Nope", f"{name}-nope", "S"):
        with pytest.raises(grpc.RpcError) as error:
            health.Check(health_pb2.HealthCheckRequest(service=unknown), timeout=10)
        assert error.value.code() == grpc.StatusCode.NOT_FOUND, unknown


def test_watch_follows(health, admin, name):
    one, two = package(), package()
    watched = {each: [] for each in (f"{one}.S", f"{two}.S", name)}
    streams = [health.Watch(health_pb2.HealthCheckRequest(service=each), timeout=60) for each in watched]

    def follow(stream, seen):
        try:
            for answer in stream:
                seen.append(answer.status)
        except grpc.RpcError:
            pass

    threads = [threading.Thread(target=follow, args=each) for each in zip(streams, watched.values(), strict=True)]
    for thread in threads:
        thread.start()

    def latest(*statuses):
        eventually(lambda: [seen[-1:] for seen in watched.values()] == [[each] for each in statuses], str(statuses))

    try:
        latest(UNKNOWN, UNKNOWN, UNKNOWN)
        admin.must_push(name, ADD1, contract=contract(BASE, one))
        latest(SERVING, UNKNOWN, SERVING)
        admin.must_push(name, ADD1, contract=contract(BASE, two), query={"on_breaking": "allow"})
        latest(UNKNOWN, SERVING, SERVING)
        changed(admin.roll_back(name))
        latest(SERVING, UNKNOWN, SERVING)
        assert admin.remove(name, force=True).status_code == 204
        eventually(lambda: all(seen[-1] in (UNKNOWN, NOT_SERVING) for seen in watched.values()), "gone")
    except AssertionError as error:
        raise AssertionError(f"{error}: {watched}") from None
    finally:
        for stream in streams:
            stream.cancel()
        for thread in threads:
            thread.join(5)


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_follows_the_swap(server, admin, name, version):
    mine = package()

    def ask(**question):
        """A question over the version's own service name; the messages are the same on the wire."""
        with calls.grpc_channel(server) as channel:
            call = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            return next(call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10))

    def services():
        return {each.name for each in ask(list_services="").list_services_response.service}

    assert f"{mine}.S" not in services()
    admin.must_push(name, ADD1, contract=contract(BASE, mine))
    assert f"{mine}.S" in services() and {"grpc.health.v1.Health", "inference.GRPCInferenceService"} <= services()
    for question in (
        {"file_by_filename": f"{name}.proto"},
        {"file_containing_symbol": f"{mine}.S"},
        {"file_containing_symbol": f"{mine}.S.Call"},
        {"file_containing_symbol": f"{mine}.Extra"},
        {"file_containing_symbol": f"{mine}.Kind"},
        {"file_containing_symbol": f"{mine}.Q.x"},
        {"file_by_filename": "baton/options.proto"},
        {"file_by_filename": "google/protobuf/descriptor.proto"},
    ):
        assert ask(**question).file_descriptor_response.file_descriptor_proto, question
    for question in ({"file_by_filename": "nope.proto"}, {"file_containing_symbol": f"{mine}.Nope"}):
        assert ask(**question).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0], question
    admin.must_push(name, contract=contract(BASE.replace("rpc Call", "rpc Later(Q) returns (A); rpc Call"), mine))
    assert ask(file_containing_symbol=f"{mine}.S.Later").file_descriptor_response.file_descriptor_proto
    assert admin.remove(name, force=True).status_code == 204
    assert f"{mine}.S" not in services()


def test_one_reflection_stream_sees_what_is_served_at_each_question(server, admin, name):
    mine = package()
    with calls.grpc_channel(server) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert f"{mine}.S" not in database.get_services()
        admin.must_push(name, ADD1, contract=contract(BASE, mine))
        assert f"{mine}.S" in database.get_services()
        pool = reflected(channel)
        method = pool.FindServiceByName(f"{mine}.S").methods_by_name["Call"]
        call = channel.unary_unary(f"/{mine}.S/Call", request_serializer=lambda message: message.SerializeToString(),
                                   response_deserializer=message_class(method.output_type).FromString)  # fmt: skip
        assert as_dict(call(message_class(method.input_type)(x=[0] * 4), timeout=10)) == {"y": [1] * 4}


def test_openapi_describes_the_typed_services(server, admin, name):
    mine = package()
    admin.must_push(name, ADD1, contract=contract(BASE, mine))
    described = ok(requests.get(f"http://{server.admin}/openapi.json", timeout=10))
    assert f"/{mine}.S/Call" in described["paths"], sorted(described["paths"])[:80]
    operation = described["paths"][f"/{mine}.S/Call"]["post"]
    assert "application/json" in operation["requestBody"]["content"]
    assert "200" in operation["responses"]
    assert admin.remove(name, force=True).status_code == 204
    described = ok(requests.get(f"http://{server.admin}/openapi.json", timeout=10))
    assert f"/{mine}.S/Call" not in described["paths"]
