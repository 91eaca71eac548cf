"""Requests that no client should send: each gets its code over REST and gRPC, and the model goes on answering."""

import gzip
import json
import time
import zlib

import grpc as grpcio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support import calls, models
from support.admin import check_error

ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)
RAW = ROW.tobytes()
GOOD = calls.json_tensor("X", ROW)
GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


@pytest.fixture(autouse=True)
def still_answers(server, adder):
    """After each of these requests the model answers as before, in the same process."""
    yield
    assert server.is_running()
    answer = calls.post_infer(server, adder[0], {"inputs": [GOOD]})
    assert answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]
    assert answer.headers["baton-digest"] == adder[1]["digest"]


def rest(server, adder, body, status: int, code, **options) -> dict:
    return check_error(calls.post_infer(server, adder[0], body, **options), status, code)


def grpc_error(server, request) -> grpcio.RpcError:
    with calls.grpc_channel(server) as channel:
        with pytest.raises(grpcio.RpcError) as failure:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    return failure.value


def check_grpc(server, request, status: int, code: str) -> None:
    error = grpc_error(server, request)
    assert error.code().name == GRPC_STATUS[status], error.details()
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    assert code.encode() in details, f"{code} is not in {details}"


def tensor(**changes) -> dict:
    return {**GOOD, **changes}


def message(model: str, *, datatype="FP32", shape=(1, 4), raw=RAW):
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="X", datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)
    return request


# I1: shapes, I2: datatypes and counts, I3: shapes that overflow.

SHAPES = {
    "rank-1": [4],
    "rank-3": [1, 1, 4],
    "scalar": [],
    "fixed-dimension": [1, 5],
    "zero-columns": [1, 0],
    "only-zero": [0],
    "minus-one": [-1, 4],
    "minus-one-huge": [-1, 1 << 62],
    "product-overflow": [1 << 32, 1 << 32],
    "byte-overflow": [1 << 61, 4],
    "most-negative": [-(1 << 63)],
    "rank-million": [1] * 1_000_000,
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_wrong_shape_is_refused_over_rest_and_grpc(server, adder, kind):
    shape = SHAPES[kind]
    started = time.monotonic()
    data = [0.0] * {"fixed-dimension": 5, "scalar": 1, "zero-columns": 0, "only-zero": 0}.get(kind, 4)
    rest(server, adder, {"inputs": [tensor(shape=shape, data=data)]}, 400, "BAD_SHAPE")
    check_grpc(server, message(adder[0], shape=shape, raw=bytes(4 * len(data))), 400, "BAD_SHAPE")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("shape", [[1e30], ["4"], "4", [1.5], [None], {"a": 1}, None, [[1, 4]], [1 << 64], [True, 4]])
def test_a_shape_that_is_no_list_of_sizes_is_refused(server, adder, shape):
    rest(server, adder, {"inputs": [tensor(shape=shape)]}, 400, {"BAD_SHAPE", "BAD_JSON"})


def test_a_shape_error_names_tensor_wanted_and_got(server, adder):
    body = {"inputs": [tensor(shape=[1, 5], data=[0] * 5)]}
    text = rest(server, adder, body, 400, "BAD_SHAPE")["error"]
    assert "X" in text and "4]" in text and "[1,5]" in text.replace(" ", "")


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1, 2, 3], [4]], [1, [2, 3, 4]], [[1], 2, 3, 4], [[[1, 2]], [3, 4]]])
def test_ragged_data_is_refused(server, adder, data):
    rest(server, adder, {"inputs": [tensor(data=data)]}, 400, "BAD_SHAPE")


def test_data_nested_otherwise_than_the_shape_says_is_refused(server, adder):
    for data in ([[1, 2], [3, 4]], [[1], [2], [3], [4]]):
        rest(server, adder, {"inputs": [tensor(data=data)]}, 400, "BAD_SHAPE")


@pytest.mark.parametrize("datatype", ["INT64", "FP64", "BYTES", "BOOL", "FP16"])
def test_another_datatype_than_the_models_is_refused(server, adder, datatype):
    data = {"BYTES": ["a"] * 4, "BOOL": [True] * 4}.get(datatype, [1, 2, 3, 4])
    rest(server, adder, {"inputs": [tensor(datatype=datatype, data=data)]}, 400, "BAD_DTYPE")
    raw = {"INT64": bytes(32), "FP64": bytes(32), "BYTES": bytes(16), "BOOL": bytes(4), "FP16": bytes(8)}[datatype]
    check_grpc(server, message(adder[0], datatype=datatype, raw=raw), 400, "BAD_DTYPE")


@pytest.mark.parametrize("datatype", ["FLOAT", "fp32", "", "FP128", "STRING", "\x1b[31m", "X" * 10_000])
def test_an_unknown_datatype_is_refused(server, adder, datatype):
    rest(server, adder, {"inputs": [tensor(datatype=datatype)]}, 400, "BAD_DTYPE")
    check_grpc(server, message(adder[0], datatype=datatype), 400, "BAD_DTYPE")


@pytest.mark.parametrize("count", [0, 3, 5, 8, 1000])
def test_a_count_that_does_not_fit_the_shape_is_refused(server, adder, count):
    rest(server, adder, {"inputs": [tensor(data=[0.0] * count)]}, 400, "BAD_COUNT")
    check_grpc(server, message(adder[0], raw=bytes(4 * count)), 400, "BAD_COUNT")
    typed = service_pb2.ModelInferRequest(model_name=adder[0])
    typed.inputs.add(name="X", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([0.0] * count)
    check_grpc(server, typed, 400, "BAD_COUNT")


@pytest.mark.parametrize(
    "data", ["text", ["1", "2", "3", "4"], [None] * 4, [{}] * 4, [1, 2, 3, "NaN?"], True, {"a": 1}]
)
def test_data_of_another_kind_is_refused(server, adder, data):
    rest(server, adder, {"inputs": [tensor(data=data)]}, 400, {"BAD_JSON", "BAD_DTYPE", "BAD_COUNT"})


@pytest.mark.parametrize(
    ("datatype", "number"),
    [("INT8", 128), ("INT8", -129), ("UINT8", -1), ("UINT8", 256), ("INT32", 2**31), ("INT64", 2**63), ("UINT64", -1),
     ("UINT64", 2**64), ("INT32", 1.5)],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_not_wrapped(server, identities, datatype, number):
    body = {"inputs": [{"name": "X", "datatype": datatype, "shape": [1], "data": [number]}]}
    answer = calls.post_infer(server, identities[datatype], body)
    check_error(answer, 400, {"BAD_JSON", "BAD_DTYPE"})


@pytest.mark.parametrize(
    ("datatype", "field", "number"), [("INT8", "int", 128), ("UINT8", "uint", 256), ("INT16", "int", 1 << 20)]
)
def test_a_typed_number_out_of_its_range_is_refused_not_wrapped(server, identities, datatype, field, number):
    request = service_pb2.ModelInferRequest(model_name=identities[datatype])
    contents = request.inputs.add(name="X", datatype=datatype, shape=[1]).contents
    getattr(contents, f"{field}_contents").append(number)
    check_grpc(server, request, 400, "BAD_DTYPE")


def test_typed_contents_in_the_wrong_field_are_refused(server, adder):
    request = service_pb2.ModelInferRequest(model_name=adder[0])
    request.inputs.add(name="X", datatype="FP32", shape=[1, 4]).contents.fp64_contents.extend([1, 2, 3, 4])
    check_grpc(server, request, 400, "BAD_COUNT")


def test_raw_and_typed_contents_exclude_each_other(server, adder):
    request = message(adder[0])
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    assert grpc_error(server, request).code().name == "INVALID_ARGUMENT"


@pytest.mark.parametrize("blobs", [2, 3])
def test_more_raw_contents_than_inputs_are_refused(server, adder, blobs):
    request = message(adder[0])
    request.raw_input_contents.extend([RAW] * (blobs - 1))
    assert grpc_error(server, request).code().name == "INVALID_ARGUMENT"


def test_fewer_raw_contents_than_inputs_are_refused(server, simple):
    pair = np.ones((1, 16), dtype=np.int32)
    request = calls.grpc_request(simple, {"INPUT0": pair, "INPUT1": pair})
    request.raw_input_contents.pop()
    assert grpc_error(server, request).code().name == "INVALID_ARGUMENT"


# I8: unknown models and versions.


@pytest.mark.parametrize("model", ["nobody", "ADDER", "adder2", "a" * 5000])
def test_an_unknown_model_is_not_found(server, model):
    check_error(calls.post_infer(server, model, {"inputs": [GOOD]}), 404, "MODEL_UNKNOWN")
    check_grpc(server, message(model), 404, "MODEL_UNKNOWN")


@pytest.mark.parametrize("version", ["99", "0", "abc", "01", "-1", "99999999999999999999"])
def test_an_unknown_version_is_not_found(server, adder, version):
    rest(server, adder, {"inputs": [GOOD]}, 404, "VERSION_UNKNOWN", version=version)
    request = message(adder[0])
    request.model_version = version
    check_grpc(server, request, 404, "VERSION_UNKNOWN")


def test_a_version_that_is_not_served_says_which_is(server, admin, name):
    for amount in (1, 2):
        admin.must_push(name, models.adds(amount))
    body = check_error(calls.post_infer(server, name, {"inputs": [GOOD]}, version="1"), 404, "VERSION_NOT_ACTIVE")
    assert "version 2" in body["error"]
    request = message(name)
    request.model_version = "1"
    check_grpc(server, request, 404, "VERSION_NOT_ACTIVE")


def test_an_empty_model_name_is_an_error_over_grpc(server):
    assert grpc_error(server, message("")).code().name in ("NOT_FOUND", "INVALID_ARGUMENT")


# I10: names of inputs and outputs.


@pytest.mark.parametrize(
    "inputs",
    [[], [tensor(name="Z")], [GOOD, tensor(name="Z")], [GOOD, GOOD], [tensor(name="")], [tensor(name="x")]],
    ids=["none", "unknown", "extra", "twice", "empty", "case"],
)
def test_wrong_input_names_are_refused(server, adder, inputs):
    rest(server, adder, {"inputs": inputs}, 400, "INPUT_NAMES")
    request = service_pb2.ModelInferRequest(model_name=adder[0])
    for entry in inputs:
        request.inputs.add(name=entry["name"], datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(RAW)
    check_grpc(server, request, 400, "INPUT_NAMES")


@pytest.mark.parametrize("outputs", [["Z"], ["Y", "Z"], ["Y", "Y"], [""], ["y"]])
def test_wrong_output_names_are_refused(server, adder, outputs):
    rest(server, adder, {"inputs": [GOOD], "outputs": [{"name": name} for name in outputs]}, 400, "OUTPUT_NAMES")
    request = message(adder[0])
    for output in outputs:
        request.outputs.add(name=output)
    check_grpc(server, request, 400, "OUTPUT_NAMES")


def test_thousands_of_tensors_are_refused(server, adder):
    body = {"inputs": [GOOD], "outputs": [{"name": f"o{number}"} for number in range(5000)]}
    rest(server, adder, body, 400, {"OUTPUT_NAMES", "BAD_REQUEST"})


# I11: JSON.

PLAIN = json.dumps({"inputs": [GOOD]}).encode()
BAD_JSON = {
    "empty": b"",
    "space": b"   ",
    "text": b"hello",
    "array": b"[]",
    "null": b"null",
    "cut": PLAIN[:-5],
    "trailing-data": PLAIN + b"x",
    "two-documents": PLAIN + PLAIN,
    "deep-array": b'{"inputs": ' + b"[" * 100_000,
    "deep-data": PLAIN.replace(b"[[1.0", b"[" * 100_000 + b"1.0"),
    "deep-parameters": b'{"parameters": {"a": ' + b'{"a":' * 100_000,
    "twice-inputs": PLAIN[:-1] + b', "inputs": []}',
    "twice-name": PLAIN.replace(b'"name": "X"', b'"name": "X", "name": "X"'),
    "huge-number": PLAIN.replace(b"1.0", b"1e400"),
    "hex": PLAIN.replace(b"1.0", b"0x10"),
    "leading-zero": PLAIN.replace(b"1.0", b"01.0"),
    "plus": PLAIN.replace(b"1.0", b"+1.0"),
    "bare-point": PLAIN.replace(b"1.0", b"1."),
    "comma": PLAIN.replace(b"1.0,", b"1.0,,"),
    "comma-at-the-end": PLAIN.replace(b"4.0]", b"4.0,]"),
    "lone-surrogate": PLAIN.replace(b'"X"', b'"\\ud800"'),
    "not-utf-8": PLAIN.replace(b'"X"', b'"\xff"'),
    "bom": b"\xef\xbb\xbf" + PLAIN,
    "control-character": PLAIN.replace(b'"X"', b'"\x01"'),
    "inputs-missing": b'{"id": "1"}',
    "inputs-object": b'{"inputs": {}}',
    "name-number": PLAIN.replace(b'"X"', b"7"),
    "id-number": PLAIN[:-1] + b', "id": 7}',
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_json_is_refused(server, adder, kind):
    started = time.monotonic()
    rest(server, adder, BAD_JSON[kind], 400, "BAD_JSON")
    assert time.monotonic() - started < 2


def test_a_million_unknown_keys_are_read_or_refused_in_bounded_time(server, adder):
    keys = ",".join(f'"k{number}": 1' for number in range(1_000_000)).encode()
    started = time.monotonic()
    answer = calls.post_infer(server, adder[0], PLAIN[:-1] + b"," + keys + b"}")
    assert answer.status_code in (200, 400)
    assert time.monotonic() - started < 5


def test_unknown_keys_are_tolerated(server, adder):
    body = {"inputs": [{**GOOD, "comment": 1}], "model_name": "other", "extra": {"a": [1]}}
    assert calls.post_infer(server, adder[0], body).status_code == 200


def test_a_tensor_with_no_data_or_both_kinds_is_refused(server, adder):
    bare = {key: value for key, value in GOOD.items() if key != "data"}
    for entry in (bare, {**GOOD, "parameters": {"binary_data_size": 16}}):
        answer = calls.post_binary(server, adder[0], {"inputs": [entry]}, RAW if "data" in entry else b"")
        check_error(answer, 400, {"BAD_REQUEST", "BAD_JSON", "BAD_BINARY_HEADER"})


# I12: the binary extension.

HEAD = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}
LENGTHS = ["-1", "99999999", str(1 << 64), "abc", "1.5", "", "0x10", "12 12", "+5"]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_bad_json_length_is_refused(server, adder, length):
    answer = calls.post_binary(server, adder[0], HEAD, RAW, length=length)
    check_error(answer, 400, {"BAD_BINARY_HEADER"} if length != "+5" else {"BAD_BINARY_HEADER", "BAD_JSON"})


@pytest.mark.parametrize("size", [0, 8, 15, 17, 32, 1 << 40, (1 << 64) - 1, -1, "16", 1.5, None, True])
def test_binary_sizes_that_do_not_fit_the_body_are_refused(server, adder, size):
    head = {"inputs": [{**HEAD["inputs"][0], "parameters": {"binary_data_size": size}}]}
    answer = calls.post_binary(server, adder[0], head, RAW)
    check_error(answer, 400, {"BAD_BINARY_HEADER", "BAD_COUNT"})


def test_a_body_longer_or_shorter_than_its_parts_is_refused(server, adder):
    for blob in (b"", RAW[:-1], RAW + b"x"):
        check_error(calls.post_binary(server, adder[0], HEAD, blob), 400, "BAD_BINARY_HEADER")


def test_binary_data_without_the_header_is_refused(server, adder):
    check_error(calls.post_infer(server, adder[0], json.dumps(HEAD).encode()), 400, "BAD_BINARY_HEADER")
    answer = calls.post_infer(server, adder[0], json.dumps(HEAD).encode() + RAW)
    check_error(answer, 400, {"BAD_BINARY_HEADER", "BAD_JSON"})


@pytest.mark.parametrize("length", [0, 1, 15, 17])
def test_a_raw_request_of_the_wrong_size_is_refused(server, adder, length):
    headers = {"Inference-Header-Content-Length": "0"}
    answer = calls.post_infer(server, adder[0], bytes(length), headers=headers)
    if length == 0:
        assert answer.status_code in (200, 400)  # no rows at all
    else:
        check_error(answer, 400, {"BAD_COUNT", "BAD_SHAPE", "BAD_BINARY_HEADER"})


def test_a_raw_request_to_a_model_with_two_inputs_is_refused(server, simple):
    answer = calls.post_infer(server, simple, bytes(64), headers={"Inference-Header-Content-Length": "0"})
    check_error(answer, 400, "BAD_BINARY_HEADER")


# I13: byte strings.

TEXT_BLOBS = {
    "length-beyond-end": b"\xff\xff\xff\xff",
    "length-just-beyond": b"\x05\0\0\0abcd",
    "cut-length": b"\x01\0\0",
    "trailing-byte": b"\x01\0\0\0ax",
    "too-many-elements": b"\0\0\0\0" * 3,
    "too-few-elements": b"",
    "a-million-elements": b"\0\0\0\0" * 1_000_000,
}


@pytest.mark.parametrize("kind", TEXT_BLOBS)
def test_malformed_byte_strings_are_refused(server, identities, kind):
    blob = TEXT_BLOBS[kind]
    head = {"inputs": [{"name": "X", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(blob)}}]}
    codes = {"BAD_BYTES", "BAD_COUNT"} if "elements" in kind else {"BAD_BYTES"}
    check_error(calls.post_binary(server, identities["BYTES"], head, blob), 400, codes)
    request = message(identities["BYTES"], datatype="BYTES", shape=[1], raw=blob)
    error = grpc_error(server, request)
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert error.code().name == "INVALID_ARGUMENT" and any(code.encode() in details for code in codes)


# I14: sizes and encodings.


def test_a_body_over_the_limit_is_refused_before_it_is_read(server, adder):
    answer = calls.post_infer(server, adder[0], bytes(65 << 20))
    check_error(answer, 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(server, adder, encoding):
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = pack(PLAIN[:-1] + b" " * (200 << 20) + b"}")
    assert len(bomb) < 300_000
    rest(server, adder, bomb, 413, "BODY_TOO_LARGE", headers={"Content-Encoding": encoding})


def test_a_small_grpc_message_that_unpacks_to_a_huge_one_is_refused(server, adder):
    request = message(adder[0], raw=bytes(100 << 20))
    with calls.grpc_channel(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpcio.RpcError) as failure:
            stub.ModelInfer(request, timeout=20, compression=grpcio.Compression.Gzip)
    assert failure.value.code().name == "RESOURCE_EXHAUSTED", failure.value.details()


def test_a_grpc_message_over_the_limit_is_refused(server, adder):
    error = grpc_error(server, message(adder[0], raw=bytes(65 << 20)))
    assert error.code().name == "RESOURCE_EXHAUSTED", error.details()


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "nonsense"])
def test_an_unknown_encoding_is_refused(server, adder, encoding):
    rest(server, adder, PLAIN, 415, "ENCODING_REFUSED", headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_as_it_says_is_refused(server, adder, encoding):
    rest(server, adder, PLAIN, 400, {"BAD_REQUEST", "BAD_JSON"}, headers={"Content-Encoding": encoding})


def test_identity_encoding_is_accepted(server, adder):
    answer = calls.post_infer(server, adder[0], PLAIN, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 200


# I21: ids and headers.


@pytest.mark.parametrize(
    "id_", ["", "\x1b[31mred\x1b[0m", "two\nlines", "nul\0", '"quoted"', "\u202eright", "x" * 100_000]
)
def test_odd_request_ids_are_echoed_whole_and_never_reach_the_log_raw(server, adder, id_):
    answer = calls.post_infer(server, adder[0], {"inputs": [GOOD], "id": id_})
    if answer.status_code != 400:
        assert answer.status_code == 200 and answer.json()["id"] == id_
    request = message(adder[0])
    request.id = id_
    with calls.grpc_channel(server) as channel:
        assert service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10).id == id_
    failing = {"inputs": [tensor(shape=[4], data=[1, 2, 3, 4])], "id": id_}
    check_error(calls.post_infer(server, adder[0], failing), 400, {"BAD_SHAPE", "BAD_REQUEST"})
    assert "\x1b[31mred" not in server.log and "\nlines" not in server.log


def test_a_request_id_of_ten_megabytes_is_answered_or_refused(server, adder):
    answer = calls.post_infer(server, adder[0], {"inputs": [GOOD], "id": "x" * 10_000_000})
    assert answer.status_code in (200, 400, 413)


@pytest.mark.parametrize("digest", ["nonsense", "sha256:", "sha256:" + "0" * 63, "SHA256:" + "0" * 64])
def test_a_malformed_required_digest_is_refused(server, adder, digest):
    rest(server, adder, PLAIN, 400, "BAD_DIGEST", headers={"baton-require-digest": digest})


def test_errors_of_two_calls_have_two_request_ids(server, adder):
    bodies = [rest(server, adder, b"", 400, "BAD_JSON") for _ in range(2)]
    assert bodies[0]["request_id"] != bodies[1]["request_id"]


def test_no_error_repeats_megabytes_of_the_request(server, adder):
    for body in (
        {"inputs": [tensor(name="N" * 1_000_000)]},
        {"inputs": [tensor(datatype="D" * 1_000_000)]},
        {"inputs": [tensor(data=["d" * 1_000_000])]},
        {"inputs": [GOOD], "outputs": [{"name": "O" * 1_000_000}]},
        b'{"inputs": "' + b"j" * 1_000_000 + b'"}',
    ):
        answer = calls.post_infer(server, adder[0], body)
        assert answer.status_code == 400
        assert len(answer.content) < 20_000, f"{len(answer.content)} bytes: {answer.text[:80]}"
