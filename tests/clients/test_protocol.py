"""The Open Inference Protocol as tritonclient and kserve use it: health, metadata, infer, what answers carry."""

import asyncio
import json

import grpc as grpcio
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from support import calls, dtypes, kserve_calls, models

IDENTITY = ("baton-model-version", "baton-generation", "baton-digest")
SAMPLE = np.arange(32, dtype=np.int32).reshape(2, 16)
PAIR = {"INPUT0": SAMPLE, "INPUT1": np.full((2, 16), 100, dtype=np.int32)}
ROW = {"X": np.array([[1, 2, 3, 4]], dtype=np.float32)}


def check_pair(outputs):
    dtypes.assert_same(outputs["OUTPUT0"], PAIR["INPUT0"] + PAIR["INPUT1"])
    dtypes.assert_same(outputs["OUTPUT1"], PAIR["INPUT0"] - PAIR["INPUT1"])


@pytest.fixture(params=["http", "http-aio", "grpc", "grpc-aio"])
def ask(request, server):
    """Calls a method of one of the four tritonclients."""
    module = {
        "http": triton_http,
        "http-aio": triton_http_aio,
        "grpc": triton_grpc,
        "grpc-aio": triton_grpc_aio,
    }[request.param]

    def sync(method, *arguments, **options):
        with module.InferenceServerClient(server.data) as client:
            return getattr(client, method)(*arguments, **options)

    async def later(method, *arguments, **options):
        async with module.InferenceServerClient(server.data) as client:
            return await getattr(client, method)(*arguments, **options)

    def run(method, *arguments, **options):
        if request.param.startswith("grpc") and method.startswith("get_"):
            options["as_json"] = True
        if request.param.endswith("aio"):
            return asyncio.run(later(method, *arguments, **options))
        return sync(method, *arguments, **options)

    return run


# Health and metadata.


def test_live_ready_and_model_ready(ask, simple):
    assert ask("is_server_live") is True
    assert ask("is_server_ready") is True
    assert ask("is_model_ready", simple) is True
    assert ask("is_model_ready", simple, "1") is True
    assert ask("is_model_ready", simple, "7") is False
    assert ask("is_model_ready", "no-such-model") is False


def test_kserve_reads_health_over_rest_and_grpc(server, simple):
    assert kserve_calls.run("rest_health", server.data, simple) == (True, True, True)
    assert kserve_calls.run("grpc_health", server.data, simple) == (True, True, True)


def test_server_metadata_lists_what_is_implemented(ask):
    metadata = ask("get_server_metadata")
    assert metadata["name"] and metadata["version"]
    extensions = set(metadata["extensions"])
    assert {"binary_tensor_data", "parameters", "statistics", "model_configuration"} <= extensions
    not_implemented = {"sequence", "classification", "system_shared_memory", "cuda_shared_memory", "trace", "logging"}
    assert not extensions & not_implemented


def test_model_metadata_describes_inputs_and_outputs(ask, simple):
    for version in ("", "1"):
        metadata = ask("get_model_metadata", simple, version)
        assert metadata["name"] == simple
        assert metadata["versions"] == ["1"]
        assert metadata["platform"]
        shapes = {
            tensor["name"]: (tensor["datatype"], [int(size) for size in tensor["shape"]])
            for tensor in metadata["inputs"] + metadata["outputs"]
        }
        assert shapes == {name: ("INT32", [-1, 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")}


def test_model_config_has_what_load_generators_read(ask, simple):
    config = ask("get_model_config", simple)
    config = config.get("config", config)
    assert config["name"] == simple
    assert int(config.get("max_batch_size", 0)) == 0
    assert [tensor["name"] for tensor in config["input"]] == ["INPUT0", "INPUT1"]
    assert {tensor["data_type"] for tensor in config["input"] + config["output"]} == {"TYPE_INT32"}
    assert [int(size) for size in config["input"][0]["dims"]] == [-1, 16]


def test_statistics_count_requests_and_never_go_back_over_a_swap(ask, admin, name, server):
    def counted():
        (entry,) = ask("get_inference_statistics", name)["model_stats"]
        assert entry["name"] == name
        return int(entry.get("inference_count", 0)), int(entry["inference_stats"]["success"].get("ns", 0))

    admin.must_push(name, models.adds(1))
    for _ in range(3):
        calls.triton_grpc_raw(server, name, ROW)
    before = counted()
    assert before[0] == 3 and before[1] > 0
    admin.must_push(name, models.adds(2))
    calls.triton_http_binary(server, name, ROW)
    after = counted()
    assert after[0] == 4 and after[1] >= before[1]


def test_failures_are_counted_in_statistics(ask, admin, name, server):
    admin.must_push(name, models.adds(1))
    for _ in range(2):
        assert calls.post_infer(server, name, {"inputs": []}).status_code == 400
    (entry,) = ask("get_inference_statistics", name)["model_stats"]
    assert int(entry["inference_stats"]["fail"]["count"]) == 2


def test_statistics_of_all_models_name_each(ask, simple, adder):
    names = {entry["name"] for entry in ask("get_inference_statistics")["model_stats"]}
    assert {simple, adder[0]} <= names


def test_bare_rest_bodies_are_the_protocols(server, simple):
    def body(path):
        answer = requests.get(f"http://{server.data}{path}", timeout=10)
        assert answer.status_code == 200
        return answer.json()

    assert body("/v2/health/live") == {"live": True}
    assert body("/v2/health/ready") == {"ready": True}
    assert body(f"/v2/models/{simple}/ready") == {"name": simple, "ready": True}
    assert simple in body("/v2/models")["models"]
    assert requests.get(f"http://{server.data}/livez", timeout=10).status_code == 200
    assert requests.get(f"http://{server.data}/readyz", timeout=10).status_code == 200


# Inference.


@pytest.mark.parametrize("client", calls.ALL)
def test_several_inputs_and_outputs(server, simple, client):
    check_pair(calls.ALL[client](server, simple, PAIR))


@pytest.mark.parametrize("client", calls.ALL)
def test_inputs_may_come_in_any_order(server, simple, client):
    check_pair(calls.ALL[client](server, simple, dict(reversed(PAIR.items()))))


@pytest.mark.parametrize("client", calls.ALL)
def test_requested_outputs_come_alone_and_in_order(server, simple, client):
    assert list(calls.ALL[client](server, simple, PAIR, outputs=["OUTPUT1"])) == ["OUTPUT1"]
    outputs = calls.ALL[client](server, simple, PAIR, outputs=["OUTPUT1", "OUTPUT0"])
    assert list(outputs) == ["OUTPUT1", "OUTPUT0"]
    check_pair(outputs)


def test_several_string_inputs_and_outputs(server, admin, name):
    admin.must_push(name, models.simple_text())
    inputs = {"A": dtypes.BY_NAME["BYTES"].array((2, 2)), "B": np.array([["x", "ÿ"]], dtype=np.object_)}
    for client in ("triton-http-binary", "triton-http-json", "triton-grpc", "grpc-typed", "kserve-rest"):
        outputs = calls.ALL[client](server, name, inputs)
        dtypes.assert_same(outputs["B_OUT"], inputs["A"])
        dtypes.assert_same(outputs["A_OUT"], inputs["B"])


@pytest.mark.parametrize("client", ["triton-http-binary", "triton-http-json", "triton-grpc", "plain-json"])
def test_tensor_names_may_hold_any_characters(server, admin, client):
    admin.push("odd-names", models.odd_names())
    (output,) = calls.output_names(server, "odd-names")
    got = calls.ALL[client](server, "odd-names", {"serving_default_x:0/in put": ROW["X"]}, outputs=[output])
    dtypes.assert_same(got[output], -ROW["X"])


def test_an_input_with_a_default_may_be_left_out(server, admin, name):
    admin.must_push(name, models.optional_input())
    for client in ("triton-http-binary", "triton-grpc", "plain-json"):
        dtypes.assert_same(calls.ALL[client](server, name, ROW)["Y"], ROW["X"] + 10)


def test_an_input_with_a_default_is_a_constant_and_not_an_input(server, admin, name):
    admin.must_push(name, models.optional_input())
    inputs = {**ROW, "bias": np.full(4, -1, dtype=np.float32)}
    body = {"inputs": [calls.json_tensor(title, array) for title, array in inputs.items()]}
    answer = calls.post_infer(server, name, body)
    assert answer.status_code == 400 and answer.json()["code"] == "INPUT_NAMES", answer.text


def test_a_model_without_inputs_answers(server, admin, name):
    admin.must_push(name, models.no_inputs())
    wanted = np.arange(4, dtype=np.float32)
    dtypes.assert_same(calls.plain_json(server, name, {})["Y"], wanted)
    dtypes.assert_same(calls.triton_grpc_raw(server, name, {})["Y"], wanted)


def test_models_that_give_nan_and_infinity_are_answered(server, admin, name):
    admin.must_push(name, models.log())
    sent = {"X": np.array([-1, 0, 1], dtype=np.float32)}
    wanted = np.array([np.nan, -np.inf, 0], dtype=np.float32)
    for client in ("triton-http-binary", "triton-http-json", "triton-grpc", "plain-json"):
        dtypes.assert_same(calls.ALL[client](server, name, sent)["Y"], wanted)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_http_compression_of_request_and_response(server, identities, encoding, binary):
    sent = np.tile(np.arange(64, dtype=np.float32), 64)
    with triton_http.InferenceServerClient(server.data) as client:
        result = client.infer(
            identities["FP32"],
            calls.triton_inputs(triton_http, {"X": sent}, binary_data=binary),
            outputs=[triton_http.InferRequestedOutput("Y", binary_data=binary)],
            request_compression_algorithm=encoding,
            response_compression_algorithm=encoding,
        )
    dtypes.assert_same(result.as_numpy("Y"), sent)
    body = {"inputs": [calls.json_tensor("X", sent)]}
    answer = calls.post_infer(server, identities["FP32"], body, headers={"Accept-Encoding": encoding})
    assert answer.headers.get("Content-Encoding") == encoding
    dtypes.assert_same(calls.from_json(answer.json()["outputs"][0]), sent)


def test_http_aio_compression(server, identities):
    sent = np.zeros(4096, dtype=np.float32)

    async def call():
        async with triton_http_aio.InferenceServerClient(server.data) as client:
            return await client.infer(
                identities["FP32"],
                calls.triton_inputs(triton_http_aio, {"X": sent}),
                request_compression_algorithm="gzip",
                response_compression_algorithm="gzip",
            )

    dtypes.assert_same(asyncio.run(call()).as_numpy("Y"), sent)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_grpc_compression(grpc, identities, algorithm):
    sent = np.zeros(4096, dtype=np.float32)
    inputs = calls.triton_inputs(triton_grpc, {"X": sent})
    result = grpc.infer(identities["FP32"], inputs, compression_algorithm=algorithm)
    dtypes.assert_same(result.as_numpy("Y"), sent)


def test_binary_data_of_an_output_goes_before_binary_data_output(server, simple):
    head = {
        "inputs": [calls.json_tensor(name, array) for name, array in PAIR.items()],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": False}}, {"name": "OUTPUT1"}],
    }
    answer = calls.post_infer(server, simple, head)
    length = int(answer.headers["inference-header-content-length"])
    first, second = json.loads(answer.content[:length])["outputs"]
    assert "data" in first and "data" not in second
    assert second["parameters"]["binary_data_size"] == len(answer.content) - length
    dtypes.assert_same(calls.from_json(first), PAIR["INPUT0"] + PAIR["INPUT1"])
    assert answer.content[length:] == (PAIR["INPUT0"] - PAIR["INPUT1"]).tobytes()


def test_without_binary_data_output_the_answer_is_json(server, simple):
    head = {"inputs": [{"name": name, "datatype": "INT32", "shape": [2, 16], "parameters": {"binary_data_size": 128}}
                       for name in PAIR]}  # fmt: skip
    blob = b"".join(array.tobytes() for array in PAIR.values())
    answer = calls.post_binary(server, simple, head, blob)
    assert "inference-header-content-length" not in answer.headers
    check_pair({output["name"]: calls.from_json(output) for output in answer.json()["outputs"]})


def test_the_binary_header_is_read_in_any_case(server, adder):
    head = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}
    text = json.dumps(head).encode()
    for header in ("inference-header-content-length", "INFERENCE-HEADER-CONTENT-LENGTH"):
        answer = calls.post_infer(server, adder[0], text + ROW["X"].tobytes(), headers={header: str(len(text))})
        assert answer.status_code == 200, answer.text


def test_a_raw_binary_request_is_one_tensor(server, adder):
    sent = np.arange(12, dtype=np.float32).reshape(3, 4)
    headers = {"Inference-Header-Content-Length": "0"}
    answer = calls.post_infer(server, adder[0], sent.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["shape"] == [3, 4]
    assert answer.content[length:] == (sent + 1).tobytes()


def test_async_infer_of_tritonclient_http(server, simple):
    with triton_http.InferenceServerClient(server.data, concurrency=4) as client:
        pending = [client.async_infer(simple, calls.triton_inputs(triton_http, PAIR)) for _ in range(8)]
        for request in pending:
            result = request.get_result(timeout=30)
            check_pair({name: result.as_numpy(name) for name in ("OUTPUT0", "OUTPUT1")})


def test_many_calls_at_once_over_one_grpc_channel(server, simple):
    async def call():
        async with triton_grpc_aio.InferenceServerClient(server.data) as client:
            inputs = calls.triton_inputs(triton_grpc_aio, PAIR)
            return await asyncio.gather(*(client.infer(simple, inputs, request_id=str(n)) for n in range(100)))

    results = asyncio.run(call())
    assert [result.get_response().id for result in results] == [str(n) for n in range(100)]
    for result in results:
        check_pair({name: result.as_numpy(name) for name in ("OUTPUT0", "OUTPUT1")})


def test_objects_of_the_client_can_be_used_again(server, simple, grpc):
    inputs = calls.triton_inputs(triton_grpc, PAIR)
    for factor in (1, 2, 3):
        for tensor, array in zip(inputs, PAIR.values(), strict=True):
            tensor.set_data_from_numpy(array * factor)
        result = grpc.infer(simple, inputs)
        dtypes.assert_same(result.as_numpy("OUTPUT0"), (PAIR["INPUT0"] + PAIR["INPUT1"]) * factor)


# What answers carry.


def test_request_ids_are_echoed(server, simple, http, grpc):
    for id_ in ("42", "ünïcode-🦊", "x" * 200):
        tensors = calls.triton_inputs(triton_http, PAIR)
        assert http.infer(simple, tensors, request_id=id_).get_response()["id"] == id_
        tensors = calls.triton_inputs(triton_grpc, PAIR)
        assert grpc.infer(simple, tensors, request_id=id_).get_response().id == id_


def test_without_a_request_id_none_is_invented(simple, http, grpc):
    response = http.infer(simple, calls.triton_inputs(triton_http, PAIR)).get_response()
    assert not response.get("id")
    assert grpc.infer(simple, calls.triton_inputs(triton_grpc, PAIR)).get_response().id == ""


def test_custom_parameters_priority_and_timeout_are_accepted(simple, http, grpc):
    options = {"parameters": {"a": 1, "b": "text", "c": True}, "priority": 1, "timeout": 20_000_000}
    http.infer(simple, calls.triton_inputs(triton_http, PAIR), **options)
    grpc.infer(simple, calls.triton_inputs(triton_grpc, PAIR), **options)


def test_every_answer_names_version_generation_and_digest(server, adder):
    name, push = adder
    wanted = {
        "baton-model-version": push["version"],
        "baton-generation": str(push["generation"]),
        "baton-digest": push["digest"],
    }
    rest = calls.post_infer(server, name, {"inputs": [calls.json_tensor("X", ROW["X"])]})
    assert {header: rest.headers[header] for header in IDENTITY} == wanted
    assert rest.json()["parameters"].items() >= wanted.items()
    assert rest.json()["model_name"] == name and rest.json()["model_version"] == push["version"]

    with calls.grpc_channel(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response, call = stub.ModelInfer.with_call(calls.grpc_request(name, ROW), timeout=10)
    metadata = dict(call.initial_metadata()) | dict(call.trailing_metadata())
    assert {header: metadata[header] for header in IDENTITY} == wanted
    assert {key: value.string_param for key, value in response.parameters.items()}.items() >= wanted.items()
    assert response.model_version == push["version"]

    for id_, version, parameters in kserve_calls.run("identity", server.data, name, ROW, "my-id"):
        assert id_ == "my-id"
        assert version in (push["version"], None)  # kserve's REST client drops it
        assert parameters.items() >= wanted.items()


def test_a_version_in_the_address_is_honoured(server, adder):
    name, push = adder
    body = {"inputs": [calls.json_tensor("X", ROW["X"])]}
    assert calls.post_infer(server, name, body, version=push["version"]).status_code == 200
    with triton_grpc.InferenceServerClient(server.data) as client:
        inputs = calls.triton_inputs(triton_grpc, ROW)
        assert client.infer(name, inputs, model_version=push["version"]).get_response().model_version == "1"
        with pytest.raises(InferenceServerException, match="version"):
            client.infer(name, inputs, model_version="99")


def test_a_required_digest_is_honoured(server, adder):
    name, push = adder
    body = {"inputs": [calls.json_tensor("X", ROW["X"])]}
    right, wrong = push["digest"], "sha256:" + "0" * 64
    assert calls.post_infer(server, name, body, headers={"baton-require-digest": right}).status_code == 200
    refused = calls.post_infer(server, name, body, headers={"baton-require-digest": wrong})
    assert (refused.status_code, refused.json()["code"]) == (412, "DIGEST_NOT_ACTIVE")
    with triton_grpc.InferenceServerClient(server.data) as client:
        inputs = calls.triton_inputs(triton_grpc, ROW)
        client.infer(name, inputs, headers={"baton-require-digest": right})
        with pytest.raises(InferenceServerException) as failure:
            client.infer(name, inputs, headers={"baton-require-digest": wrong})
        assert failure.value.status() == "StatusCode.FAILED_PRECONDITION"


def test_errors_reach_every_client_as_text(server, adder, http, grpc):
    wrong = {"X": np.zeros((1, 5), dtype=np.float32)}
    for client, module in ((http, triton_http), (grpc, triton_grpc)):
        with pytest.raises(InferenceServerException) as failure:
            client.infer(adder[0], calls.triton_inputs(module, wrong))
        message = failure.value.message()
        assert '"X"' in message and "[1,5]" in message.replace(" ", ""), message
    status, message = kserve_calls.run("rest_failure", server.data, adder[0], wrong)
    assert status == 400 and '"X"' in message
    status, message = kserve_calls.run("grpc_failure", server.data, adder[0], wrong)
    assert status == "INVALID_ARGUMENT" and '"X"' in message
    status, message = kserve_calls.run("rest_failure", server.data, "no-such-model", wrong)
    assert status == 404 and "no-such-model" in message


def test_a_model_that_fails_while_running_is_a_model_error(server, admin, name):
    admin.must_push(name, models.gathers())
    sent = {"index": np.array([99], dtype=np.int64)}
    answer = calls.post_infer(server, name, {"inputs": [calls.json_tensor("index", sent["index"])]})
    assert (answer.status_code, answer.json()["code"], answer.json()["source"]) == (500, "MODEL_FAILED", "model")
    with triton_grpc.InferenceServerClient(server.data) as client:
        with pytest.raises(InferenceServerException) as failure:
            client.infer(name, calls.triton_inputs(triton_grpc, sent))
    assert failure.value.status() == "StatusCode.INTERNAL"
    good = {"index": np.array([3], dtype=np.int64)}
    assert calls.triton_grpc_raw(server, name, good)["Y"] == [3]


def test_shared_memory_and_classification_are_refused_not_ignored(server, adder):
    tensor = calls.json_tensor("X", ROW["X"])
    shared = {"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"shared_memory_region": "r"}}
    top = {"inputs": [tensor], "outputs": [{"name": "Y", "parameters": {"classification": 1}}]}
    for body in ({"inputs": [shared]}, top):
        answer = calls.post_infer(server, adder[0], body)
        assert (answer.status_code, answer.json()["code"]) == (501, "UNSUPPORTED"), answer.text
    request = calls.grpc_request(adder[0], ROW)
    request.outputs.add(name="Y").parameters["classification"].int64_param = 1
    with calls.grpc_channel(server) as channel:
        with pytest.raises(grpcio.RpcError, match="classification"):
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)


def test_a_deadline_ends_a_slow_call(server, slow):
    inputs = {"rounds": np.array(50_000_000, dtype=np.int64)}
    with triton_grpc.InferenceServerClient(server.data) as client:
        with pytest.raises(InferenceServerException) as failure:
            client.infer(slow, calls.triton_inputs(triton_grpc, inputs), client_timeout=0.3)
        assert failure.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    with triton_http.InferenceServerClient(server.data) as client:
        with pytest.raises(InferenceServerException) as failure:
            client.infer(slow, calls.triton_inputs(triton_http, inputs), timeout=300_000)
        assert failure.value.status() == "504"
    # Both runs were stopped: the compute threads are free for this one.
    calls.triton_grpc_raw(server, slow, {"rounds": np.array(1, dtype=np.int64)})


# Unimplemented parts of Triton's surface.


def test_unimplemented_grpc_methods_say_so(grpc):
    for call in (grpc.get_trace_settings, grpc.get_log_settings, grpc.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException) as failure:
            call()
        assert failure.value.status() == "StatusCode.UNIMPLEMENTED"


def test_unknown_paths_and_methods_are_errors_in_the_same_form(server, simple):
    unknown = requests.get(f"http://{server.data}/v2/nonsense", timeout=10)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "ROUTE_UNKNOWN")
    wrong = requests.get(f"http://{server.data}/v2/models/{simple}/infer", timeout=10)
    assert (wrong.status_code, wrong.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "POST" in wrong.headers["allow"]


def test_no_admin_route_on_the_data_port(server, simple):
    for method, path in (
        ("GET", "/v1/models"),
        ("PUT", f"/v1/models/{simple}/artifact"),
        ("DELETE", f"/v1/models/{simple}"),
        ("POST", f"/v1/models/{simple}:rollback"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
    ):
        answer = requests.request(method, f"http://{server.data}{path}", data=b"x", timeout=10)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"


def test_kept_alive_grpc_channels_survive(server, simple):
    options = triton_grpc.KeepAliveOptions(keepalive_time_ms=200, keepalive_permit_without_calls=True)
    with triton_grpc.InferenceServerClient(server.data, keepalive_options=options) as client:
        for _ in range(3):
            assert client.is_server_live()
            result = client.infer(simple, calls.triton_inputs(triton_grpc, PAIR))
            check_pair({name: result.as_numpy(name) for name in ("OUTPUT0", "OUTPUT1")})


def test_grpc_metadata_of_an_unknown_model_is_not_found(server):
    with calls.grpc_channel(server) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for method, request in (
            (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="nobody")),
            (stub.ModelConfig, service_pb2.ModelConfigRequest(name="nobody")),
            (stub.ModelStatistics, service_pb2.ModelStatisticsRequest(name="nobody")),
        ):
            with pytest.raises(grpcio.RpcError) as failure:
                method(request, timeout=10)
            assert failure.value.code().name == "NOT_FOUND"
