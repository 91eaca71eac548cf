"""KServe's own client, in a process of its own: its gRPC messages and tritonclient's cannot share one interpreter."""

import asyncio
import atexit
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache

CALL_SECONDS = 60


@cache
def _pool() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def run(function: str, *arguments):
    """Calls one of the functions below in the other process."""
    return _pool().submit(_dispatch, function, arguments).result(timeout=CALL_SECONDS)


def _dispatch(function: str, arguments):
    try:
        return asyncio.run(globals()[function](*arguments))
    except Exception as error:
        # The client's own exceptions do not survive the way back.
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _request(model, inputs, outputs, binary, request_id=None):
    from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput
    from kserve.utils.numpy_codec import from_np_dtype

    tensors = []
    for name, array in inputs.items():
        tensor = InferInput(name, list(array.shape), from_np_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=binary)
        tensors.append(tensor)
    requested = None if outputs is None else [RequestedOutput(name) for name in outputs]
    parameters = {"binary_data_output": True} if binary else None
    return InferRequest(model, tensors, request_id=request_id, request_outputs=requested, parameters=parameters)


def _outputs(response):
    return {output.name: output.as_numpy() for output in response.outputs}


def _rest_client():
    from kserve.inference_client import InferenceRESTClient, RESTConfig

    return InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))


def _grpc_client(address):
    from kserve.inference_client import InferenceGRPCClient

    return InferenceGRPCClient(address, timeout=30)


async def rest_infer(address, model, inputs, outputs, binary):
    request = _request(model, inputs, outputs, binary)
    return _outputs(await _rest_client().infer(f"http://{address}", request, model_name=model))


async def grpc_infer(address, model, inputs, outputs):
    async with _grpc_client(address) as client:
        return _outputs(await client.infer(_request(model, inputs, outputs, binary=True)))


async def rest_health(address, model):
    client, base = _rest_client(), f"http://{address}"
    return (
        await client.is_server_live(base),
        await client.is_server_ready(base),
        await client.is_model_ready(base, model),
    )


async def grpc_health(address, model):
    async with _grpc_client(address) as client:
        return await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready(model)


async def rest_failure(address, model, inputs):
    """Status code and message of a refused call."""
    import httpx

    try:
        await _rest_client().infer(f"http://{address}", _request(model, inputs, None, True), model_name=model)
    except httpx.HTTPStatusError as error:
        return error.response.status_code, str(error)
    return None


async def grpc_failure(address, model, inputs):
    import grpc

    try:
        async with _grpc_client(address) as client:
            await client.infer(_request(model, inputs, None, True))
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return None


async def identity(address, model, inputs, request_id):
    """Id, version and response parameters over REST and gRPC."""
    rest = await _rest_client().infer(
        f"http://{address}", _request(model, inputs, None, True, request_id), model_name=model
    )
    async with _grpc_client(address) as client:
        grpc = await client.infer(_request(model, inputs, None, True, request_id))
    return [(answer.id, answer.model_version, _plain(answer.parameters)) for answer in (rest, grpc)]


def _plain(parameters):
    def text(value):
        return value.string_param if hasattr(value, "string_param") else value

    return {name: text(value) for name, value in dict(parameters or {}).items()}
