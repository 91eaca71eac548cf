"""Ways to call: the four kinds of streams, gRPC-Web and Connect by hand, content types and Accept, the headers."""

import base64
import gzip
import json
import queue
import struct
import threading
import time

import grpc
import numpy as np
import pytest
import requests

from support import calls, models
from support.admin import check_error, ok
from support.typed import Service, as_dict, assert_same, contract, graph, package

DOT3 = graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}")
KINDS = """
service S {
  rpc One(Row) returns (R); rpc Many(Rows) returns (Rs);
  rpc UpRows(stream Row) returns (Rs); rpc UpBatches(stream Rows) returns (Rs); rpc UpColumns(stream Row) returns (Ys);
  rpc DownRows(Rows) returns (stream R); rpc DownOne(Row) returns (stream R); rpc DownBatch(Rows) returns (stream Rs);
  rpc Both(stream Row) returns (stream R); rpc BothBatches(stream Rows) returns (stream Rs);
}
message Row { float a = 1; float b = 2; float c = 3; } message R { float y = 1; }
message Rows { repeated Row rows = 1; } message Rs { repeated R rows = 1; } message Ys { repeated float y = 1; }
"""


def rows(count: int, start: int = 0) -> list[dict]:
    return [{"a": index % 10, "c": index // 10} for index in range(start, start + count)]


def answers(count: int, start: int = 0) -> list[dict]:
    return [{"y": float(index % 10 + 100 * (index // 10))} for index in range(start, start + count)]


@pytest.fixture(scope="module")
def kinds(server, admin):
    mine = package()
    admin.must_push("kinds", DOT3, contract=contract(KINDS, mine))
    return Service(server, "kinds", mine)


def streamed(service: Service, method: str, *messages: dict, **options):
    """Calls a method of any kind; a list of answers if it streams them."""
    kind, call = service.method(method), service.reflected_call(method)
    made = [service._message(method, each) for each in messages]
    answer = call(iter(made) if kind.client_streaming else made[0], timeout=30, **options)
    return [as_dict(each) for each in answer] if kind.server_streaming else as_dict(answer)


@pytest.mark.parametrize(
    ("method", "sent", "wanted"),
    [
        ("One", rows(1, 42), answers(1, 42)[0]),
        ("Many", [{"rows": rows(5)}], {"rows": answers(5)}),
        ("UpRows", rows(5), {"rows": answers(5)}),
        ("UpRows", [], {"rows": []}),
        ("UpRows", rows(1), {"rows": answers(1)}),
        ("UpBatches", [{"rows": rows(3)}, {}, {"rows": rows(4, 3)}], {"rows": answers(7)}),
        ("UpColumns", rows(4), {"y": [each["y"] for each in answers(4)]}),
        ("DownRows", [{"rows": rows(5)}], answers(5)),
        ("DownRows", [{}], []),
        ("DownOne", rows(1, 3), answers(1, 3)),
        ("DownBatch", [{"rows": rows(5)}], [{"rows": answers(5)}]),
        ("Both", rows(7), answers(7)),
        ("Both", [], []),
        ("BothBatches", [{"rows": rows(2)}, {}, {"rows": rows(3, 2)}],
         [{"rows": answers(2)}, {"rows": []}, {"rows": answers(3, 2)}]),
    ],
)  # fmt: skip
def test_what_a_stream_stands_for(kinds, method, sent, wanted):
    assert_same(streamed(kinds, method, *sent), wanted, method)


def test_long_streams_keep_their_order(kinds):
    many = 3000
    assert_same(streamed(kinds, "Both", *rows(many)), answers(many))
    assert_same(streamed(kinds, "UpRows", *rows(many)), {"rows": answers(many)})
    assert_same(streamed(kinds, "DownRows", {"rows": rows(many)}), answers(many))


def test_a_bidi_stream_answers_before_its_client_is_done(kinds):
    with Talk(kinds, "Both") as talk:
        for index in range(5):
            assert talk.ask(rows(1, index)[0]) == answers(1, index)[0]


class Talk:
    """A bidirectional stream, one request and its answer at a time."""

    def __init__(self, service: Service, method: str):
        self.service, self.method = service, method
        self.requests = queue.Queue()
        self.call = service.reflected_call(method)(iter(self.requests.get, None), timeout=60)

    def ask(self, message: dict) -> dict:
        self.requests.put(self.service._message(self.method, message))
        return as_dict(next(self.call))

    def headers(self) -> dict:
        return dict(self.call.initial_metadata())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)
        self.call.cancel()


ADDS = """service S { rpc One(Q) returns (A); rpc Both(stream Q) returns (stream A); rpc Up(stream Q) returns (As); }
message Q { repeated float x = 1; } message A { repeated float y = 1; } message As { repeated A rows = 1; }"""
ZEROS = {"x": [0, 0, 0, 0]}


def test_streams_keep_the_version_that_they_began_with(server, admin, name):
    mine = package()
    admin.must_push(name, models.adds(1), contract=contract(ADDS, mine))
    service = Service(server, name, mine)
    with Talk(service, "Both") as old:
        assert old.ask(ZEROS) == {"y": [1] * 4}
        assert old.headers()["baton-model-version"] == "1"
        up = queue.Queue()
        up.put(service._message("Up", ZEROS))
        future = service.reflected_call("Up").future(iter(up.get, None), timeout=60)
        time.sleep(0.2)
        admin.must_push(name, models.adds(2))
        extended = ADDS.replace(
            "repeated float y = 1;", "repeated float y = 1; string more = 2 [(baton.ignore) = true];"
        )
        admin.must_push(name, models.adds(3), contract=contract(extended, mine))
        with Talk(service, "Both") as new:
            for _ in range(3):
                assert old.ask(ZEROS) == {"y": [1] * 4}
                assert new.ask(ZEROS)["y"] == [3] * 4
            assert new.headers()["baton-model-version"] == "3"
        up.put(service._message("Up", ZEROS))
        up.put(None)
        assert as_dict(future.result()) == {"rows": [{"y": [1] * 4}] * 2}
        admin.must_push(name, models.adds(4), contract="", query={"on_breaking": "allow"})
        assert old.ask(ZEROS) == {"y": [1] * 4}, "its version's contract is gone for others, not for it"


def test_a_stream_that_goes_wrong_ends_there_with_the_message_named(kinds):
    """The answers that were given stay given."""
    good = kinds._message("BothBatches", {"rows": rows(2)})
    raw = kinds.channel.stream_stream(kinds.path("BothBatches"), request_serializer=None, response_deserializer=None)
    stream = raw(iter([good.SerializeToString(), b"\x0a\x7f\x01", good.SerializeToString()]), timeout=30)
    assert len(next(stream)) > 0
    with pytest.raises(grpc.RpcError) as error:
        next(stream)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT, error.value


def test_a_stream_is_cancelled_by_its_client_and_the_next_works(kinds):
    for _ in range(20):
        with Talk(kinds, "Both") as talk:
            talk.ask(rows(1)[0])
    assert_same(streamed(kinds, "One", rows(1, 7)[0]), answers(1, 7)[0])


def test_a_deadline_of_a_typed_call(server, admin, name):
    mine = package()
    admin.must_push(
        name, models.spins(), contract=contract("message Q { int64 rounds = 1; } message A { float total = 1; }", mine)
    )
    service = Service(server, name, mine)
    for _ in range(3):
        service.json("Call", {"rounds": 1000})
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        service.reflected_call("Call")(service._message("Call", {"rounds": 10_000_000}), timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    began = time.monotonic()
    headers = {"connect-protocol-version": "1", "connect-timeout-ms": "300"}
    answer = service.post("Call", json.dumps({"rounds": 10_000_000}), "application/json", **headers)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded"), answer.text
    assert time.monotonic() - began < 3
    for wrong in ("abc", "-1", "99999999999999"):
        answer = service.post("Call", "{}", "application/json", **headers | {"connect-timeout-ms": wrong})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument"), (wrong, answer.text)


# Methods that the server does not have.


@pytest.mark.parametrize("path", ["/nope.v1.S/Call", "/{package}.S/Nope", "/{package}.Nope/One", "/{package}.S/one"])
def test_unknown_methods(kinds, path):
    path = path.format(package=kinds.package)
    with pytest.raises(grpc.RpcError) as error:
        kinds.channel.unary_unary(path)(b"", timeout=10)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED, error.value
    answer = requests.post(f"http://{kinds.server.data}{path}", data="{}", timeout=10)
    check_error(answer, 404, "ROUTE_UNKNOWN")


def test_other_verbs_are_refused(kinds):
    for verb in ("get", "put", "delete", "patch"):
        answer = getattr(requests, verb)(kinds.url("One"), timeout=10)
        check_error(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "POST", answer.headers


def test_the_admin_port_takes_calls_too(kinds):
    url = f"http://{kinds.server.admin}{kinds.path('One')}"
    answer = requests.post(url, json={"a": 1}, timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"y": 1}), answer.text


@pytest.mark.parametrize("method", ["UpRows", "DownRows", "Both"])
@pytest.mark.parametrize("content_type", ["application/json", "application/protobuf"])
def test_methods_with_a_stream_are_called_over_grpc(kinds, method, content_type):
    error = check_error(
        kinds.post(method, b"{}" if "json" in content_type else b"", content_type),
        415,
        {"ENCODING_REFUSED", "UNSUPPORTED"},
    )
    assert "gRPC" in error["error"], error


# Content types.

ONE = ({"a": 1, "b": 2, "c": 3}, {"y": 321})
WIRE = b"\x0d" + struct.pack("<f", 1) + b"\x15" + struct.pack("<f", 2) + b"\x1d" + struct.pack("<f", 3)
WIRE_ANSWER = b"\x0d" + struct.pack("<f", 321)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x-www-form-urlencoded",
        None,
        "",
    ],
)
def test_json_and_what_stands_for_it(kinds, content_type):
    answer = kinds.post("One", json.dumps(ONE[0]).encode(), content_type)
    assert (answer.status_code, answer.json()) == (200, ONE[1]), answer.text
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    "content_type", ["application/proto", "application/protobuf", "application/x-protobuf", "APPLICATION/PROTO"]
)
def test_protobuf_under_its_names(kinds, content_type):
    answer = kinds.post("One", WIRE, content_type)
    assert (answer.status_code, answer.content) == (200, WIRE_ANSWER), answer.text
    assert answer.headers["content-type"] == content_type.lower()


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/html", "application/xml", "application/octet-stream", "text/x-protobuf",
     "multipart/form-data; boundary=x",
     "application/x-ndjson", "application/connect+proto", "application/connect+json", "application/grpc+json",
     "application/grpcx",
     "application/jsonx", "application/json+x", "nonsense", "image/png"],
)  # fmt: skip
def test_other_content_types_are_refused(kinds, content_type):
    answer = kinds.post("One", b"{}", content_type)
    if content_type.startswith("application/grpc") and answer.status_code == 200:
        assert int(answer.headers["grpc-status"]) != 0, answer.headers
        return
    assert answer.status_code == 415, (answer.status_code, answer.text)
    if answer.content:
        check_error(answer, 415, "ENCODING_REFUSED")


@pytest.mark.parametrize(
    ("sent", "accept", "wanted"),
    [
        ("json", "application/json", "application/json"),
        ("json", "*/*", "application/json"),
        ("json", "application/protobuf", "application/protobuf"),
        ("json", "application/x-protobuf", "application/x-protobuf"),
        ("protobuf", "application/json", "application/json"),
        ("protobuf", "*/*", "application/protobuf"),
        ("json", "text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        # CSV is always answered in CSV.
        ("csv", "application/json", "text/csv"),
        ("json", "text/csv", "text/csv"),
    ],
)
def test_accept_names_another_form(kinds, sent, accept, wanted):
    method = "Many" if "csv" in (sent, wanted[5:]) else "One"
    body = {
        "json": json.dumps({"rows": [ONE[0]]} if method == "Many" else ONE[0]),
        "protobuf": WIRE,
        "csv": "a,b,c\n1,2,3\n",
    }
    types = {"json": "application/json", "protobuf": "application/protobuf", "csv": "text/csv"}
    answer = kinds.post(method, body[sent], types[sent], accept=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == wanted, answer.headers
    if wanted == "application/json":
        assert answer.json() == ({"rows": [ONE[1]]} if method == "Many" else ONE[1])
    elif wanted == "text/csv":
        header, line = answer.text.split()
        assert (header, float(line)) == ("y", 321)
    else:
        assert answer.content == WIRE_ANSWER


def test_errors_are_json_whatever_is_accepted(kinds):
    answer = kinds.post("One", b"\xff", "application/protobuf", accept="application/protobuf")
    check_error(answer, 400, "BAD_MESSAGE")


# gRPC-Web.


def frames(body: bytes) -> list[tuple[int, bytes]]:
    out = []
    while body:
        flag, length = struct.unpack(">BI", body[:5])
        assert len(body) >= 5 + length, body
        out.append((flag, body[5 : 5 + length]))
        body = body[5 + length :]
    return out


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def grpc_web(service, method, messages: list[bytes], content_type: str, **headers):
    body = b"".join(frame(message) for message in messages)
    text = "-text" in content_type
    answer = service.post(method, base64.b64encode(body) if text else body, content_type, x_grpc_web="1", **headers)
    assert answer.status_code == 200, answer.text
    content = answer.content
    assert ("-text" in answer.headers["content-type"]) == text, answer.headers
    if text:  # Base64 of each part, one after the other.
        parts, rest = [], content
        while rest:
            end = rest.find(b"=")
            end = len(rest) if end < 0 else end + (2 if rest[end : end + 2] == b"==" else 1)
            parts, rest = [*parts, base64.b64decode(rest[:end])], rest[end:]
        content = b"".join(parts)
    found = frames(content)
    trailers = dict(answer.headers)
    if found and found[-1][0] & 0x80:
        lines = found.pop()[1].decode().split("\r\n")
        trailers |= {
            key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines if line)
        }
    assert all(flag == 0 for flag, _ in found), found
    return answer, [message for _, message in found], trailers


WEB = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
]


@pytest.mark.parametrize("content_type", WEB)
@pytest.mark.parametrize("accepts", ["as grpc-web's own clients", "nothing", "anything"])
def test_grpc_web(kinds, content_type, accepts):
    """Its clients send Accept; whoever does not gets the form that was sent."""
    accept = {"nothing": {}, "anything": {"accept": "*/*"}}.get(accepts, {"accept": content_type})
    answer, messages, trailers = grpc_web(kinds, "One", [WIRE], content_type, **accept)
    assert messages == [WIRE_ANSWER] and trailers["grpc-status"] == "0", (messages, trailers)
    assert answer.headers["content-type"].startswith(content_type.removesuffix("+proto")), answer.headers
    assert answer.headers["baton-model-version"] == "1"
    _, messages, trailers = grpc_web(kinds, "DownRows", [b"\x0a\x0f" + WIRE + b"\x0a\x00"], content_type, **accept)
    assert [len(message) for message in messages][0] == 5 and len(messages) == 2 and trailers["grpc-status"] == "0"
    assert messages[0] == WIRE_ANSWER


@pytest.mark.parametrize("content_type", WEB)
def test_errors_over_grpc_web(kinds, content_type):
    _, messages, trailers = grpc_web(kinds, "One", [b"\xff"], content_type, accept=content_type)
    assert not messages and trailers["grpc-status"] == "3" and trailers["grpc-message"], trailers
    answer = requests.post(f"http://{kinds.server.data}/{kinds.package}.S/Nope", data=frame(b""), timeout=10,
                           headers={"content-type": "application/grpc-web"})  # fmt: skip
    trailers = answer.headers.get("grpc-status") or answer.text
    assert answer.status_code == 404 or "12" in trailers, (answer.headers, answer.text)


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\0\0\0\0\x05ab", b"\0\xff\xff\xff\xff", b"\x01\0\0\0\x01a", b"!!"],
    ids=["empty", "short", "cut", "4-gib", "compressed", "no-base64"],
)
@pytest.mark.parametrize("content_type", [WEB[0], WEB[2]])
def test_broken_frames_over_grpc_web(kinds, content_type, body):
    sent = base64.b64encode(body) if "text" in content_type and body != b"!!" else body
    answer = kinds.post("One", sent, content_type)
    if answer.status_code == 200:
        content = base64.b64decode(answer.content) if "text" in content_type else answer.content
        status = answer.headers.get("grpc-status") or content.decode(errors="replace")
        assert "grpc-status:0" not in status.replace(" ", "") and status != "0", (answer.headers, content)
    else:
        assert 400 <= answer.status_code < 500, answer.text
    assert kinds.json("One", ONE[0]) == ONE[1]


# Connect.

CONNECT = {"connect_protocol_version": "1"}


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/json", json.dumps(ONE[0])), ("application/proto", WIRE)]
)
def test_connect_unary(kinds, content_type, body):
    answer = kinds.post("One", body, content_type, **CONNECT, connect_timeout_ms="5000")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == content_type
    assert answer.content == WIRE_ANSWER if "proto" in content_type else answer.json() == ONE[1]


@pytest.mark.parametrize(
    ("method", "body", "content_type", "status", "code"),
    [
        ("One", "{", "application/json", 400, "invalid_argument"),
        ("One", '{"nope": 1}', "application/json", 400, "invalid_argument"),
        ("One", b"\xff", "application/proto", 400, "invalid_argument"),
        ("Nope", "{}", "application/json", 501, "unimplemented"),
        ("One", "{}", "text/plain", 415, None),
    ],
)
def test_errors_have_connects_shape(kinds, method, body, content_type, status, code):
    url = f"http://{kinds.server.data}/{kinds.package}.S/{method}"
    headers = {"content-type": content_type, "connect-protocol-version": "1"}
    answer = requests.post(url, data=body, headers=headers, timeout=10)
    assert answer.status_code == status, answer.text
    if code:
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["code"] == code, answer.text
        assert isinstance(answer.json()["message"], str) and answer.json()["message"]


def test_connects_version_is_checked(kinds):
    answer = kinds.post("One", "{}", "application/json", connect_protocol_version="2")
    assert answer.status_code == 400, answer.text


# Headers.


def test_answers_name_their_version(kinds, admin):
    active = admin.model("kinds")
    answer = kinds.post_json("One", ONE[0])
    call = kinds.reflected_call("One")
    _, over_grpc = call.with_call(kinds._message("One", ONE[0]), timeout=10)
    for headers in (answer.headers, dict(over_grpc.initial_metadata())):
        assert headers["baton-model-version"] == active["active"]
        assert headers["baton-generation"] == str(active["generation"])
        assert headers["baton-digest"] == active["digest"]


def test_a_digest_may_be_required(kinds, admin):
    digest = admin.model("kinds")["digest"]
    assert kinds.post_json("One", ONE[0], baton_require_digest=digest).status_code == 200
    wrong = "sha256:" + "0" * 64
    check_error(kinds.post_json("One", ONE[0], baton_require_digest=wrong), 412, "DIGEST_NOT_ACTIVE")
    for metadata, code in ((digest, None), (wrong, grpc.StatusCode.FAILED_PRECONDITION)):
        call = kinds.reflected_call("One")
        options = {"metadata": [("baton-require-digest", metadata)], "timeout": 10}
        if code is None:
            call(kinds._message("One", ONE[0]), **options)
        else:
            with pytest.raises(grpc.RpcError) as error:
                call(kinds._message("One", ONE[0]), **options)
            assert error.value.code() == code


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(kinds, algorithm):
    """Taken, or refused by name."""
    call = kinds.reflected_call("Many")
    try:
        answer = call(kinds._message("Many", {"rows": rows(100)}), timeout=10, compression=algorithm)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    else:
        assert_same(as_dict(answer), {"rows": answers(100)})


def test_a_body_that_is_compressed_over_http(kinds):
    answer = kinds.post("One", gzip.compress(json.dumps(ONE[0]).encode()), "application/json", content_encoding="gzip")
    if answer.status_code == 200:
        assert answer.json() == ONE[1]
    else:
        check_error(answer, 415, "ENCODING_REFUSED")


def test_large_messages_go_both_ways_over_grpc(typed):
    """Far more than gRPC's usual four megabytes."""
    service = typed(graph("float[N,M] X", "float[N,M] Y", "Y = Identity(X)"),
                    "message Q { repeated float x = 1; } message A { repeated float y = 1; }")  # fmt: skip
    request, answer = service.classes("Call")
    values = np.arange(5 << 20, dtype=np.float32)
    got = service.reflected_call("Call")(request(x=values), timeout=60)
    assert isinstance(got, answer) and np.array_equal(np.array(got.y, np.float32), values)


def test_typed_calls_are_concurrent(kinds):
    """Forty clients of one channel and of HTTP, each with answers of its own."""
    faults = []

    def client(index: int) -> None:
        for _ in range(10):
            method = (kinds.json, kinds.protobuf, kinds.reflection)[index % 3]
            got = method("One", {"a": index})
            if got != {"y": float(index)}:
                faults.append((index, got))

    threads = [threading.Thread(target=client, args=(index,)) for index in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults, faults[:5]


def test_the_tensor_protocol_goes_on_beside_the_typed_service(kinds):
    got = calls.triton_grpc_raw(kinds.server, "kinds", {"X": np.array([[1, 2, 3]], np.float32)})
    assert got["Y"].tolist() == [321]
    assert ok(requests.get(f"http://{kinds.server.data}/v2/models/kinds", timeout=10))["inputs"][0]["name"] == "X"
