"""SIGTERM: what was accepted is answered, then the process ends with exit code 0."""

import threading
import time

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc

from support import calls, models
from support.admin import Admin
from support.load import in_flight, learn_that_it_is_slow
from support.runner import eventually

CALLS = 10
ROUNDS = 30_000


@pytest.fixture
def busy(start):
    """A server with one slow model."""
    server = start()
    Admin(server.admin).must_push("slow", models.spins())
    learn_that_it_is_slow(server, "slow")
    return server


def call_rest(server, outcomes):
    body = {"inputs": [{"name": "rounds", "datatype": "INT64", "shape": [], "data": [ROUNDS]}]}
    response = calls.post_infer(server, "slow", body)
    outcomes.append(float(np.float32(response.json()["outputs"][0]["data"][0])))


def call_grpc(server, outcomes):
    with triton_grpc.InferenceServerClient(server.data) as client:
        inputs = calls.triton_inputs(triton_grpc, {"rounds": np.array(ROUNDS, dtype=np.int64)})
        outcomes.append(client.infer("slow", inputs).as_numpy("total").item())


def begin(server, count: int) -> tuple[list, list]:
    """Slow calls, half over REST and half over gRPC, all of them received by the server."""
    outcomes: list = []
    callers = [call_rest if number % 2 else call_grpc for number in range(count)]
    threads = [threading.Thread(target=caller, args=(server, outcomes)) for caller in callers]
    for thread in threads:
        thread.start()
    eventually(lambda: in_flight(server, "slow") + len(outcomes) >= count, "all calls are in flight", 10)
    return threads, outcomes


def test_sigterm_answers_all_calls_in_flight_and_exits_0(busy):
    threads, outcomes = begin(busy, CALLS)
    assert len(outcomes) < CALLS, "the calls must be slow enough to be in flight"
    busy.terminate()
    for thread in threads:
        thread.join(timeout=60)
    assert busy.wait() == 0
    assert len(outcomes) == CALLS
    assert len(set(outcomes)) == 1 and outcomes[0] != 0


def test_sigterm_refuses_new_connections_while_it_drains(busy):
    threads, outcomes = begin(busy, 4)
    busy.terminate()

    def is_refused() -> bool:
        try:
            return requests.get(f"http://{busy.data}/readyz", timeout=5).status_code == 503
        except requests.ConnectionError:
            return True

    eventually(is_refused, "new calls are turned away")
    for thread in threads:
        thread.join(timeout=60)
    assert busy.wait() == 0
    assert len(outcomes) == 4


def test_sigterm_of_an_idle_server_is_quick(busy):
    with triton_grpc.InferenceServerClient(busy.data) as client:
        assert client.is_server_live()
        session = requests.Session()
        assert session.get(f"http://{busy.data}/livez", timeout=10).status_code == 200
        started = time.monotonic()
        assert busy.stop() == 0
        assert time.monotonic() - started < 3, "idle connections must not hold it up"


def test_sigterm_during_an_upload_publishes_nothing(start):
    server = start()
    admin = Admin(server.admin)
    first = admin.must_push("m", models.adds(1))
    proceed = threading.Event()

    def chunks():
        yield models.adds(2)[:20]
        proceed.wait(20)
        yield models.adds(2)[20:]

    replies = []

    def push():
        try:
            replies.append(Admin(server.admin).push_raw("m", chunks()).status_code)
        except requests.ConnectionError:
            replies.append(None)

    thread = threading.Thread(target=push)
    thread.start()
    eventually(server.staged_files, "the upload is under way")
    server.terminate()
    time.sleep(0.2)
    proceed.set()
    thread.join()
    assert server.wait() == 0
    again = start()
    state = Admin(again.admin).model("m")
    # Either the upload was taken whole and acknowledged, or nothing of it is there.
    assert replies[0] in (201, 503, None)
    assert (state["active"] == "2") == (replies[0] == 201)
    assert state["versions"][-1]["digest"] == first["digest"]
    assert not again.staged_files()


def test_sigterm_ends_streams_after_their_answers(busy):
    answers = []
    client = triton_grpc.InferenceServerClient(busy.data)
    client.start_stream(callback=lambda result, error: answers.append((result, error)))
    inputs = calls.triton_inputs(triton_grpc, {"rounds": np.array(ROUNDS, dtype=np.int64)})
    client.async_stream_infer("slow", inputs)
    eventually(lambda: in_flight(busy, "slow") >= 1 or answers, "the stream's call is in flight")
    busy.terminate()
    eventually(lambda: answers, "the answer comes", 20)
    assert answers[0][1] is None
    client.stop_stream()
    client.close()
    assert busy.wait() == 0


def test_sigint_is_a_stop_too(start):
    server = start()
    server.process.send_signal(2)
    assert server.wait() == 0


def test_a_second_signal_ends_at_once_and_says_so(busy):
    body = {"inputs": [{"name": "rounds", "datatype": "INT64", "shape": [], "data": [50_000_000]}]}

    def call():
        try:
            calls.post_infer(busy, "slow", body)
        except requests.ConnectionError:
            pass

    thread = threading.Thread(target=call)
    thread.start()
    eventually(lambda: in_flight(busy, "slow") >= 1, "the call is in flight")
    busy.terminate()
    time.sleep(0.3)
    busy.terminate()
    assert busy.wait() == 70
    thread.join()
