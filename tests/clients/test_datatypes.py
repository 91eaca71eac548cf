"""Every datatype and shape through every client: what went in comes back bit for bit."""

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from support import calls, dtypes

SHAPES = [(2, 3), (1,), (), (0, 4), (1, 2, 1, 3)]
# What a client itself does not offer.
NOT_OFFERED = {
    "triton-http-json": {"BF16"},
    "grpc-typed": {"FP16", "BF16"},
    "kserve-rest": {"BF16"},
    "kserve-rest-json": {"FP16", "BF16"},
    "kserve-grpc": {"BF16"},
}
OFFERED = [
    pytest.param(client, dtype, id=f"{client}-{dtype.name}")
    for client in calls.ALL
    for dtype in dtypes.DTYPES
    if dtype.name not in NOT_OFFERED.get(client, ())
]
NON_FINITE = [float("nan"), float("inf"), float("-inf"), -0.0]
ODD_TEXT = [b"\xff\xfe\x00\x80", b"\0\0\0", "ü".encode("latin-1"), b""]


@pytest.mark.parametrize(("client", "dtype"), OFFERED)
def test_every_datatype_and_shape_comes_back_unchanged(server, identities, client, dtype):
    for shape in SHAPES:
        if client == "kserve-rest-json" and 0 in shape:
            continue  # the client sends no data at all for an empty JSON tensor
        sent = dtype.array(shape)
        got = calls.ALL[client](server, identities[dtype.name], {"X": sent})
        dtypes.assert_same(got["Y"], sent)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("client", ["triton-http-binary", "triton-grpc", "plain-json"])
def test_nan_and_infinity_pass_in_and_out(server, identities, client, dtype):
    sent = np.array(NON_FINITE, dtype=dtype.numpy)
    got = calls.ALL[client](server, identities[dtype.name], {"X": sent})
    dtypes.assert_same(got["Y"], sent)


@pytest.mark.parametrize("name", ["FP16", "FP32", "FP64"])
def test_nan_and_infinity_pass_through_tritonclients_json(server, identities, name):
    sent = np.array(NON_FINITE, dtype=dtypes.BY_NAME[name].numpy)
    dtypes.assert_same(calls.triton_http_json(server, identities[name], {"X": sent})["Y"], sent)


@pytest.mark.parametrize(
    "client", ["triton-http-binary", "triton-http-aio", "triton-grpc", "grpc-typed", "kserve-grpc"]
)
def test_byte_strings_that_are_no_utf8_pass_in_binary(server, identities, client):
    sent = np.array(ODD_TEXT, dtype=np.object_)
    dtypes.assert_same(calls.ALL[client](server, identities["BYTES"], {"X": sent})["Y"], sent)


def test_json_says_so_when_an_output_is_no_utf8(server, identities):
    sent = np.array([b"\xff"], dtype=np.object_)
    head = {"inputs": [{"name": "X", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}]}
    answer = calls.post_binary(server, identities["BYTES"], head, calls.raw_bytes(sent))
    assert answer.status_code == 400
    assert "binary_data" in answer.json()["error"]


@pytest.mark.parametrize("dtype", dtypes.DTYPES, ids=lambda dtype: dtype.name)
def test_json_data_may_be_flat_or_nested(server, identities, dtype):
    sent = dtype.array((2, 2, 2))
    for flat in (True, False):
        body = {"inputs": [calls.json_tensor("X", sent, flat=flat)]}
        answer = calls.post_infer(server, identities[dtype.name], body)
        assert answer.status_code == 200, answer.text
        dtypes.assert_same(calls.from_json(answer.json()["outputs"][0]), sent)


def test_a_scalar_may_be_a_bare_value_in_json(server, identities):
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [], "data": 2.5}]}
    answer = calls.post_infer(server, identities["FP32"], body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["shape"] == []


def test_integers_are_exact_to_the_last_digit_in_json(server, identities):
    for name, number in (("INT64", -(2**63)), ("INT64", 2**53 + 1), ("UINT64", 2**64 - 1)):
        body = {"inputs": [{"name": "X", "datatype": name, "shape": [1], "data": [number]}]}
        answer = requests.post(f"http://{server.data}/v2/models/{identities[name]}/infer", json=body, timeout=10)
        assert answer.json()["outputs"][0]["data"] == [number]


@pytest.mark.parametrize("dtype", dtypes.DTYPES, ids=lambda dtype: dtype.name)
def test_binary_and_json_forms_mix_within_one_request(server, identities, dtype):
    sent = dtype.array((3, 2))
    head = {"inputs": [calls.json_tensor("X", sent)], "outputs": [{"name": "Y", "parameters": {"binary_data": True}}]}
    answer = calls.post_infer(server, identities[dtype.name], head)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == calls.raw_bytes(sent)


def test_large_tensors_pass_both_ways(server, identities):
    sent = np.random.default_rng(1).normal(size=(3, 1024, 1024)).astype(np.float32)
    for client in ("triton-http-binary", "triton-grpc"):
        dtypes.assert_same(calls.ALL[client](server, identities["FP32"], {"X": sent})["Y"], sent)


@pytest.mark.parametrize("module", [triton_http, triton_grpc], ids=["http", "grpc"])
def test_metadata_names_each_datatype(server, identities, module):
    with module.InferenceServerClient(server.data) as client:
        for datatype, name in identities.items():
            metadata = client.get_model_metadata(name, **({"as_json": True} if module is triton_grpc else {}))
            assert [tensor["datatype"] for tensor in metadata["inputs"] + metadata["outputs"]] == [datatype] * 2
