"""Pushes that must be refused: each a clear error, while the version before it keeps answering."""

import gzip
import http.client
import io
import json
import pickle
import socket
import threading
import time
import zipfile

import numpy as np
import onnxruntime
import pytest

from support import calls, models
from support.admin import Admin, changed, check_error
from support.runner import eventually

ROW = calls.json_tensor("X", np.zeros((1, 4), dtype=np.float32))
GOOD = models.adds(1)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)

onnxruntime.set_default_logger_severity(4)


def digest_served(server, name: str) -> str:
    answer = calls.post_infer(server, name, {"inputs": [ROW]})
    assert answer.status_code == 200, answer.text
    return answer.headers["baton-digest"]


@pytest.fixture
def held(server, admin, name):
    """A served model; at the end of the test the same bundle must answer, nothing must be left in staging."""
    digest = admin.must_push(name, GOOD)["digest"]
    before = admin.model(name)
    yield name
    assert digest_served(server, name) == digest
    eventually(lambda: not server.staged_files(), f"staging is empty, not {server.staged_files()}")
    assert admin.model(name) == before


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as folder:
        folder.writestr("model.onnx", GOOD)
    return content.getvalue()


def elf() -> bytes:
    with open("/bin/true", "rb") as file:
        return file.read()


NOT_A_MODEL = {
    "png": PNG,
    "gzip": gzip.compress(GOOD),
    "zip": archive(),
    "pickle": pickle.dumps({"model": GOOD}),
    "text": b"this is not a model\n" * 20,
    "json": b'{"model": "iris"}',
    "html": b"<!DOCTYPE html><html></html>",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
}


@pytest.mark.parametrize("kind", NOT_A_MODEL)
def test_a_file_that_is_no_model_is_the_wrong_format(admin, held, kind):
    for push in (admin.push, admin.push_raw):
        check_error(push(held, NOT_A_MODEL[kind]), 422, "WRONG_FORMAT")


def test_a_program_is_no_native_library(admin, held):
    for push in (admin.push, admin.push_raw):
        check_error(push(held, elf()), 422, "DYLIB_FORMAT")


def test_an_empty_upload_is_empty(admin, held):
    for part in ("artifact", "contract", "manifest"):
        check_error(admin.push_raw(held, b"", part), 400, "UPLOAD_EMPTY")
    check_error(admin.push(held, b""), 400, "UPLOAD_EMPTY")


def loads(model: bytes) -> bool:
    try:
        onnxruntime.InferenceSession(model)
    except Exception:
        return False
    return True


def test_a_truncated_model_is_refused_at_every_length(admin, held):
    model = models.two_answers(2, padding=500)
    lengths = [length for length in range(1, len(model), max(1, len(model) // 60)) if not loads(model[:length])]
    assert len(lengths) > 40
    for length in lengths:
        check_error(admin.push_raw(held, model[:length]), 422, {"WRONG_FORMAT", "MODEL_REFUSED"})


def test_damaged_models_are_refused_or_served_and_never_end_the_server(server, admin, name):
    random = np.random.default_rng(5)
    model = models.two_answers(2)
    for _ in range(150):
        damaged = bytearray(model)
        for position in random.integers(0, len(model), 3):
            damaged[position] = random.integers(0, 256)
        reply = admin.push_raw(name, bytes(damaged))
        assert reply.status_code in (200, 201, 422), reply.text
        if reply.status_code == 422:
            check_error(reply, 422, {"WRONG_FORMAT", "MODEL_REFUSED", "MODEL_UNSUPPORTED", "EXTERNAL_DATA"})
    assert server.is_running()


EXTERNAL = {
    "initializer-in-folder": models.external_initializer("weights.bin"),
    "initializer-parent": models.external_initializer("../weights.bin"),
    "initializer-detour": models.external_initializer("a/../../weights.bin"),
    "initializer-absolute": models.external_initializer("/etc/passwd"),
    "initializer-url": models.external_initializer("http://127.0.0.1:1/w"),
    "initializer-empty": models.external_initializer(""),
    "memory-address": models.external_initializer("*/_ORT_MEM_ADDR_/*", 4096),
    "constant": models.external_constant(),
    "subgraph": models.external_in_subgraph(),
    "function": models.external_in_function(),
    "sparse-values": models.external_sparse("values"),
    "sparse-indices": models.external_sparse("indices"),
}


@pytest.mark.parametrize("place", EXTERNAL)
def test_external_data_is_refused_wherever_it_is_named(admin, held, place):
    body = check_error(admin.push_raw(held, EXTERNAL[place]), 422, "EXTERNAL_DATA")
    assert "outside" in body["error"], "the tensor is named"


BROKEN = {
    "function-cycle": (models.calls_itself(), "MODEL_CYCLE"),
    "nested-9": (models.nested_ifs(9), "MODEL_TOO_DEEP"),
    "nested-16": (models.nested_ifs(16), "MODEL_TOO_DEEP"),
    "integer-by-zero": (models.divides_by_zero(), "MODEL_REFUSED"),
    "unknown-operator": (models.unknown_operator(), "MODEL_REFUSED"),
    "future-opset": (models.future_opset(), "MODEL_REFUSED"),
    "graph-cycle": (models.cyclic_graph(), "MODEL_REFUSED"),
    "initializer-too-large": (models.lying_initializer([1 << 20]), "MODEL_REFUSED"),
    "initializer-negative": (models.lying_initializer([-4]), "MODEL_REFUSED"),
    "initializer-overflow": (models.lying_initializer([1 << 31, 1 << 31]), "MODEL_REFUSED"),
    "sequence": (models.sequence_output(), "MODEL_UNSUPPORTED"),
    "optional": (models.optional_output(), "MODEL_UNSUPPORTED"),
    "float8": (models.float8_output(), "MODEL_UNSUPPORTED"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_cannot_be_served_is_refused_with_its_reason(admin, held, kind):
    model, code = BROKEN[kind]
    started = time.monotonic()
    check_error(admin.push_raw(held, model), 422, code)
    assert time.monotonic() - started < 5


def test_nesting_within_the_limit_is_served(server, admin, name):
    changed(admin.push_raw(name, models.nested_ifs(4)), 201)
    assert calls.triton_grpc_raw(server, name, {"yes": np.array(True)})["Y"].tolist() == [1, 1, 1, 1]


# Digests, sizes, encodings.


def test_a_wrong_digest_is_a_mismatch(admin, held):
    headers = {"baton-digest": "sha256:" + "0" * 64}
    check_error(admin.push_raw(held, models.adds(2), headers=headers), 422, "DIGEST_MISMATCH")


@pytest.mark.parametrize(
    "digest", ["sha256:" + "0" * 63, "sha1:" + "0" * 40, "0" * 64, "sha256:../../x", "sha256:" + "G" * 64, ""]
)
def test_a_malformed_digest_is_an_error(admin, held, digest):
    check_error(admin.push_raw(held, models.adds(2), headers={"baton-digest": digest}), 400, "BAD_DIGEST")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_an_encoded_upload_is_refused(admin, held, encoding):
    body = gzip.compress(models.adds(2))
    check_error(admin.push_raw(held, body, headers={"Content-Encoding": encoding}), 415, "ENCODING_REFUSED")


class Upload:
    """A PUT whose body is sent by hand."""

    def __init__(self, server, name: str, length: int, part: str = "artifact"):
        host, port = server.admin.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        head = f"PUT /v1/models/{name}/{part} HTTP/1.1\r\nHost: {server.admin}\r\nContent-Length: {length}\r\n\r\n"
        self.socket.sendall(head.encode())

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def response(self) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        return response

    def close(self) -> None:
        self.socket.close()


class Answer:
    """An `http.client` response in the form that `check_error` reads."""

    def __init__(self, response: http.client.HTTPResponse):
        self.status_code = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()

    def json(self):
        return json.loads(self.text)


@pytest.mark.parametrize(
    ("part", "size", "code"),
    [
        ("artifact", 3 << 30, "UPLOAD_TOO_LARGE"),
        ("contract", 300 << 10, "CONTRACT_TOO_LARGE"),
        ("manifest", 65 << 10, "UPLOAD_TOO_LARGE"),
    ],
)
def test_an_upload_that_declares_too_much_is_refused_before_its_body(server, held, part, size, code):
    upload = Upload(server, held, size, part)
    check_error(Answer(upload.response()), 413, code)
    upload.close()


def test_a_chunked_upload_is_cut_at_the_limit(admin, held):
    chunks = (b"#" * 8192 for _ in range(12))
    check_error(admin.push_raw(held, chunks, "manifest"), 413, "UPLOAD_TOO_LARGE")


def test_a_part_of_a_form_is_cut_at_its_limit(admin, held):
    check_error(admin.push(held, manifest=b"#" * (65 << 10)), 413, "UPLOAD_TOO_LARGE")


# Interrupted and slow uploads, two at once.


def test_an_aborted_upload_leaves_no_trace(server, admin, held, name):
    upload = Upload(server, held, 1 << 20)
    upload.send(GOOD[:100])
    eventually(server.staged_files, "the upload is being staged")
    upload.close()
    eventually(lambda: not server.staged_files(), "the staged bytes are gone")
    fresh = f"{name}-fresh"
    upload = Upload(server, fresh, 1 << 20)
    upload.send(GOOD[:100])
    upload.close()
    eventually(lambda: admin.get(f"/v1/models/{fresh}").status_code == 404, "an unfinished first push is no model")
    eventually(lambda: admin.push_raw(fresh, GOOD).status_code == 201, "the name is free again")


def test_of_two_pushes_at_once_one_is_refused(server, admin, name):
    before = admin.must_push(name, GOOD)
    second = models.adds(2)
    upload = Upload(server, name, len(second))
    upload.send(second[:50])
    eventually(server.staged_files, "the first push is under way")
    check_error(admin.push_raw(name, models.adds(3)), 409, "UPLOAD_IN_PROGRESS")
    check_error(admin.activate(name, "1"), 409, "UPLOAD_IN_PROGRESS")
    assert digest_served(server, name) == before["digest"]
    upload.send(second[50:])
    assert upload.response().status == 201
    upload.close()
    assert admin.model(name)["generation"] == before["generation"] + 1


def test_two_racing_pushes_give_one_201_and_one_409(server, name):
    for round_ in range(5):
        barrier, codes = threading.Barrier(2), []

        def push(amount, barrier=barrier, codes=codes):
            client = Admin(server.admin)
            # Large enough that the two overlap.
            model = models.two_answers(amount, padding=2_000_000)
            barrier.wait()
            codes.append(client.push_raw(name, model).status_code)

        threads = [threading.Thread(target=push, args=(2 * round_ + n + 1,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(codes) == [201, 409], codes


def test_a_stalled_upload_is_ended_and_others_go_on(server, admin, held):
    upload = Upload(server, held, 1 << 20)
    upload.send(GOOD[:10])
    eventually(server.staged_files, "the upload is being staged")
    assert digest_served(server, held)
    check_error(Answer(upload.response()), 408, "UPLOAD_TOO_SLOW")
    upload.close()


# Names.

BAD_NAMES = [
    "..%2fx",
    "%2e%2e",
    "%2e",
    "..%252f",
    "a%5c..%5cb",
    "%3b%2f..%2f",
    "%2fabs",
    "a%00b",
    "%20",
    "-a",
    "_a",
    ".a",
    "a..b",
    "A",
    "Iris",
    "%EF%BC%A1%EF%BC%A2%EF%BC%A3",
    "%E2%80%AEabc",
    "a%0ab",
    "x" * 64,
    "x" * 300,
    "a+b",
    "a:b",
    "a*b",
]


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_a_bad_name_is_refused_and_touches_nothing(server, admin, adder, bad):
    around = sorted(path.name for path in server.store.parent.iterdir())
    for response in (admin.push_raw(bad, GOOD), admin.push(bad, GOOD)):
        check_error(response, 400, "BAD_NAME")
    assert admin.get(f"/v1/models/{bad}").status_code in (400, 404)
    assert calls.post_infer(server, bad, {"inputs": [ROW]}).status_code in (400, 404)
    assert sorted(path.name for path in server.store.parent.iterdir()) == around
    assert digest_served(server, adder[0])


@pytest.mark.parametrize("target", ["../x", "..", ".", "", "/abs", ";/../", "a/../b", "a\\..\\b", "%zz", "%ff"])
def test_a_path_that_is_not_one_name_is_refused(server, target):
    connection = http.client.HTTPConnection(server.admin, timeout=10)
    connection.putrequest("PUT", f"/v1/models/{target}/artifact", skip_accept_encoding=True)
    connection.putheader("Content-Length", str(len(GOOD)))
    connection.endheaders(GOOD)
    answer = Answer(connection.getresponse())
    check_error(answer, answer.status_code, {"BAD_NAME", "ROUTE_UNKNOWN", "METHOD_NOT_ALLOWED", "BAD_REQUEST"})
    assert answer.status_code in (400, 404, 405)


# Forms, manifests, records.

BOUNDARY = "frontier"


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="../../etc/x"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in parts
    )
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def put_form(admin, name: str, body: bytes, boundary: str | None = BOUNDARY):
    kind = "multipart/form-data" + (f"; boundary={boundary}" if boundary else "")
    return admin.call("PUT", f"/v1/models/{name}", data=body, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    "body",
    [
        form(("modell", GOOD)),
        form(("model", GOOD), ("model", GOOD)),
        b"no form at all",
        form(("model", GOOD)).replace(b"name=", b"nome="),
    ],
    ids=["unknown-part", "part-twice", "no-form", "no-name"],
)
def test_a_bad_form_is_refused(admin, held, body):
    check_error(put_form(admin, held, body), 400, {"BAD_MULTIPART", "UPLOAD_TRUNCATED"})


def test_a_form_without_its_end_is_refused(admin, held):
    check_error(
        put_form(admin, held, form(("model", models.adds(2)), end=False)), 400, {"BAD_MULTIPART", "UPLOAD_TRUNCATED"}
    )


def test_a_form_without_a_boundary_is_refused_with_the_other_way(admin, held):
    body = check_error(put_form(admin, held, form(("model", GOOD)), boundary=None), 400, "BAD_MULTIPART")
    assert "artifact" in body["error"]


def test_ten_thousand_parts_and_a_huge_boundary_are_refused_quickly(admin, held):
    started = time.monotonic()
    for body in (form(*[("model", b"x")] * 10_000), b"--" + b"b" * 10_000_000):
        check_error(put_form(admin, held, body), 400, {"BAD_MULTIPART", "UPLOAD_TRUNCATED"})
    assert time.monotonic() - started < 2


def test_a_file_name_in_a_form_is_ignored(server, admin, name):
    assert put_form(admin, name, form(("model", GOOD))).status_code == 201
    assert digest_served(server, name)


BAD_MANIFESTS = {
    "unknown key": b"speed = 1\n",
    "unknown table": b"[fast]\nx = 1\n",
    "duplicate key": b'description = "a"\ndescription = "b"\n',
    "not toml": b"{]",
    "deep": b"x = " + b"[" * 10_000,
    "not a number": b"[golden]\nabsolute = nan\n",
    "wrong type": b"description = 3\n",
    "not utf-8": b"\xff\xfe",
    "a url": b'model = "http://169.254.169.254/"\n',
}


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_with_the_place(admin, held, kind):
    check_error(admin.push_raw(held, BAD_MANIFESTS[kind], "manifest"), 400, "BAD_MANIFEST")


@pytest.mark.parametrize("record", [b"nonsense", b"[1]", b"{", b"\xff"])
def test_a_bad_provenance_record_is_refused(admin, held, record):
    check_error(admin.push(held, models.adds(2), provenance=record), 400, "BAD_PROVENANCE")


def test_a_contract_that_is_no_text_is_refused(admin, held):
    check_error(admin.push_raw(held, b"\xff\xfe\x00", "contract"), 422, "BAD_CONTRACT")
