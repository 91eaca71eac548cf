"""One inference through each client: `call(server, model, inputs, outputs=None) -> outputs by name`."""

import asyncio
import json

import grpc as grpcio
import ml_dtypes  # noqa: F401  (numpy learns bfloat16 from it)
import numpy as np
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import dtypes, kserve_calls

HTTP_TIMEOUT = 60
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def triton_inputs(module, arrays: dict[str, np.ndarray], **options) -> list:
    """`InferInput`s of a tritonclient module."""
    inputs = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), dtypes.name_of(array))
        tensor.set_data_from_numpy(dtypes.as_bytes(array), **options)
        inputs.append(tensor)
    return inputs


def _named(result, wanted=None) -> dict[str, np.ndarray]:
    response = result.get_response()
    listed = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [output["name"] if isinstance(output, dict) else output.name for output in listed]
    assert wanted is None or names == list(wanted), f"outputs {names}, requested {wanted}"
    return {name: dtypes.as_bytes(result.as_numpy(name)) for name in names}


def _requested(module, names, **options):
    return None if names is None else [module.InferRequestedOutput(name, **options) for name in names]


def triton_http_binary(server, model, inputs, outputs=None):
    with triton_http.InferenceServerClient(server.data) as client:
        requested = _requested(triton_http, outputs)
        return _named(client.infer(model, triton_inputs(triton_http, inputs), outputs=requested), outputs)


def triton_http_json(server, model, inputs, outputs=None):
    with triton_http.InferenceServerClient(server.data) as client:
        names = outputs or output_names(server, model)
        requested = _requested(triton_http, names, binary_data=False)
        tensors = triton_inputs(triton_http, inputs, binary_data=False)
        return _named(client.infer(model, tensors, outputs=requested), names)


def triton_http_async(server, model, inputs, outputs=None):
    async def call():
        async with triton_http_aio.InferenceServerClient(server.data) as client:
            requested = _requested(triton_http_aio, outputs)
            return await client.infer(model, triton_inputs(triton_http_aio, inputs), outputs=requested)

    return _named(asyncio.run(call()), outputs)


def triton_grpc_raw(server, model, inputs, outputs=None):
    with triton_grpc.InferenceServerClient(server.data) as client:
        requested = _requested(triton_grpc, outputs)
        return _named(client.infer(model, triton_inputs(triton_grpc, inputs), outputs=requested), outputs)


def triton_grpc_async(server, model, inputs, outputs=None):
    async def call():
        async with triton_grpc_aio.InferenceServerClient(server.data) as client:
            requested = _requested(triton_grpc_aio, outputs)
            return await client.infer(model, triton_inputs(triton_grpc_aio, inputs), outputs=requested)

    return _named(asyncio.run(call()), outputs)


def grpc_typed(server, model, inputs, outputs=None):
    """Elements in `contents` instead of raw bytes."""
    request = grpc_request(model, inputs, typed=True)
    request.outputs.extend(
        service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs or ()
    )
    with grpc_channel(server) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=HTTP_TIMEOUT)
    return _named(triton_grpc.InferResult(response), outputs)


def plain_json(server, model, inputs, outputs=None):
    """What curl would send: JSON in and out, nested data."""
    body = {"inputs": [json_tensor(name, array) for name, array in inputs.items()]}
    if outputs is not None:
        body["outputs"] = [{"name": name} for name in outputs]
    answer = post_infer(server, model, body)
    assert answer.status_code == 200, answer.text
    assert "inference-header-content-length" not in answer.headers
    return {output["name"]: from_json(output) for output in answer.json()["outputs"]}


def kserve_rest(server, model, inputs, outputs=None):
    return kserve_calls.run("rest_infer", server.data, model, inputs, outputs, True)


def kserve_rest_json(server, model, inputs, outputs=None):
    return kserve_calls.run("rest_infer", server.data, model, inputs, outputs, False)


def kserve_grpc(server, model, inputs, outputs=None):
    return kserve_calls.run("grpc_infer", server.data, model, inputs, outputs)


def grpc_channel(server) -> grpcio.Channel:
    return grpcio.insecure_channel(server.data, options=UNLIMITED)


def grpc_request(model: str, inputs: dict[str, np.ndarray], *, typed: bool = False):
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        dtype = dtypes.BY_NAME[dtypes.name_of(array)]
        tensor = request.inputs.add(name=name, datatype=dtype.name, shape=array.shape)
        if typed:
            getattr(tensor.contents, dtype.contents).extend(dtypes.as_bytes(array).reshape(-1).tolist())
        else:
            request.raw_input_contents.append(raw_bytes(array))
    return request


def raw_bytes(array: np.ndarray) -> bytes:
    """Little-endian elements; length-prefixed for BYTES."""
    array = dtypes.as_bytes(array)
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(len(item).to_bytes(4, "little") + item for item in array.reshape(-1))


def json_tensor(name: str, array: np.ndarray, *, flat: bool = False) -> dict:
    data = dtypes.as_bytes(array)
    if data.dtype == np.object_:
        data = np.vectorize(bytes.decode, otypes=[object])(data) if data.size else data
    elif data.dtype.kind == "V" or dtypes.name_of(array) == "BF16":
        data = data.astype(np.float32)
    data = data.reshape(-1) if flat else data
    return {"name": name, "datatype": dtypes.name_of(array), "shape": list(array.shape), "data": data.tolist()}


def from_json(tensor: dict) -> np.ndarray:
    dtype = dtypes.BY_NAME[tensor["datatype"]]
    if dtype.is_bytes:
        flat = np.empty(len(tensor["data"]), dtype=np.object_)
        flat[:] = [text.encode() for text in tensor["data"]]
    else:
        flat = np.array(tensor["data"], dtype=dtype.numpy)
    return flat.reshape(tensor["shape"])


def post_infer(server, model: str, body, *, headers=None, version: str = "") -> requests.Response:
    """POST of a dict as JSON, or of bytes as they are."""
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(f"http://{server.data}{path}", data=data, headers=headers, timeout=HTTP_TIMEOUT)


def post_binary(server, model: str, head: dict, blob: bytes, *, length=None, headers=None) -> requests.Response:
    """The binary extension by hand: JSON, then the blobs."""
    text = json.dumps(head).encode()
    announced = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
    return post_infer(server, model, text + blob, headers={**announced, **(headers or {})})


def output_names(server, model: str) -> list[str]:
    metadata = requests.get(f"http://{server.data}/v2/models/{model}", timeout=HTTP_TIMEOUT).json()
    return [output["name"] for output in metadata["outputs"]]


def who(response: requests.Response) -> tuple[str, str, str]:
    """Version, generation and digest that a REST answer names."""
    names = ("baton-model-version", "baton-generation", "baton-digest")
    return tuple(response.headers[name] for name in names)


ALL = {
    "triton-http-binary": triton_http_binary,
    "triton-http-json": triton_http_json,
    "triton-http-aio": triton_http_async,
    "triton-grpc": triton_grpc_raw,
    "triton-grpc-aio": triton_grpc_async,
    "grpc-typed": grpc_typed,
    "plain-json": plain_json,
    "kserve-rest": kserve_rest,
    "kserve-rest-json": kserve_rest_json,
    "kserve-grpc": kserve_grpc,
}
