"""gRPC streaming: many requests on one stream, errors in band, answers in order."""

import asyncio
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
from tritonclient.utils import InferenceServerException

from support import calls, models


class Stream:
    """`start_stream` with a queue of what comes back."""

    def __init__(self, address: str):
        self.client = triton_grpc.InferenceServerClient(address)
        self.answers: queue.Queue = queue.Queue()
        self.client.start_stream(callback=lambda result, error: self.answers.put((result, error)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_stream()
        self.client.close()

    def send(self, model: str, value: float, width: int = 4, request_id: str = "") -> None:
        array = np.full((1, width), value, dtype=np.float32)
        inputs = calls.triton_inputs(triton_grpc, {"X": array})
        self.client.async_stream_infer(model, inputs, request_id=request_id)

    def receive(self):
        return self.answers.get(timeout=20)


def test_answers_come_in_order(server, adder):
    with Stream(server.data) as stream:
        for number in range(50):
            stream.send(adder[0], number, request_id=str(number))
        for number in range(50):
            result, error = stream.receive()
            assert error is None
            assert result.get_response().id == str(number)
            assert result.as_numpy("Y")[0, 0] == number + 1


def test_an_error_is_in_band_and_the_stream_goes_on(server, adder):
    with Stream(server.data) as stream:
        stream.send(adder[0], 1, width=5)
        result, error = stream.receive()
        assert isinstance(error, InferenceServerException) and result is None
        assert "[1,5]" in str(error).replace(" ", "")
        stream.send("no-such-model", 1)
        assert "no-such-model" in str(stream.receive()[1])
        stream.send(adder[0], 1)
        result, error = stream.receive()
        assert error is None and result.as_numpy("Y")[0, 0] == 2


def test_a_stream_follows_a_swap(server, admin, name):
    admin.must_push(name, models.adds(1))
    with Stream(server.data) as stream:
        stream.send(name, 0)
        assert stream.receive()[0].as_numpy("Y")[0, 0] == 1
        second = admin.must_push(name, models.adds(2))
        stream.send(name, 0)
        result, _ = stream.receive()
        assert result.as_numpy("Y")[0, 0] == 2
        assert result.get_response().parameters["baton-digest"].string_param == second["digest"]


def test_two_models_share_a_stream(server, adder, admin, name):
    admin.must_push(name, models.adds(5))
    with Stream(server.data) as stream:
        for model in (adder[0], name, adder[0]):
            stream.send(model, 10)
        assert [stream.receive()[0].as_numpy("Y")[0, 0] for _ in range(3)] == [11, 15, 11]


def test_aio_stream(server, adder):
    async def requests():
        for number in range(10):
            array = np.full((1, 4), number, dtype=np.float32)
            inputs = calls.triton_inputs(triton_grpc_aio, {"X": array})
            yield {"model_name": adder[0], "inputs": inputs, "request_id": str(number)}

    async def run():
        async with triton_grpc_aio.InferenceServerClient(server.data) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(run())
    assert [error for _, error in answers] == [None] * 10
    assert [result.as_numpy("Y")[0, 0] for result, _ in answers] == list(range(1, 11))


def test_a_cancelled_stream_leaves_the_server_answering(server, adder):
    stream = Stream(server.data)
    for number in range(20):
        stream.send(adder[0], number)
    stream.client.stop_stream(cancel_requests=True)
    stream.client.close()
    assert calls.triton_grpc_raw(server, adder[0], {"X": np.zeros((1, 4), np.float32)})["Y"][0, 0] == 1


def test_every_answer_of_a_stream_is_final(server, adder):
    with Stream(server.data) as stream:
        inputs = calls.triton_inputs(triton_grpc, {"X": np.zeros((1, 4), np.float32)})
        stream.client.async_stream_infer(adder[0], inputs, enable_empty_final_response=True)
        result, error = stream.receive()
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param is True
        with pytest.raises(queue.Empty):
            stream.answers.get(timeout=0.2)
