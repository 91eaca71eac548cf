"""The promise: while models are swapped under load, no call is lost and no answer is mixed."""

import itertools
import queue
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from support import calls, models
from support.admin import changed
from support.load import in_flight, learn_that_it_is_slow
from support.runner import eventually

SWAPS = 60
ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)
NAMES = ("baton-model-version", "baton-generation", "baton-digest")


@dataclass
class Ledger:
    """What clients saw, kept outside of the server."""

    answers: list = field(default_factory=list)
    losses: list = field(default_factory=list)

    def note(self, client: str, first, second, identity) -> None:
        self.answers.append((client, first, second, identity))


def expected(amount: float):
    """The two outputs of `models.two_answers(amount)` for ROW."""
    return ROW + np.float32(amount), ROW * np.float32(amount)


def rest_client(address, name, ledger, client):
    with triton_http.InferenceServerClient(address) as connection:
        inputs = calls.triton_inputs(triton_http, {"X": ROW})
        while (yield):
            result = connection.infer(name, inputs)
            told = result.get_response()["parameters"]
            ledger.note(client, result.as_numpy("first"), result.as_numpy("second"), tuple(told[key] for key in NAMES))


def json_client(address, name, ledger, client):
    session = requests.Session()
    body = {"inputs": [calls.json_tensor("X", ROW)]}
    while (yield):
        response = session.post(f"http://{address}/v2/models/{name}/infer", json=body, timeout=30)
        assert response.status_code == 200, response.text
        first, second = (calls.from_json(output) for output in response.json()["outputs"][:2])
        told = response.json()["parameters"]
        assert calls.who(response) == tuple(told[key] for key in NAMES)
        ledger.note(client, first, second, calls.who(response))


def grpc_client(address, name, ledger, client):
    with triton_grpc.InferenceServerClient(address) as connection:
        inputs = calls.triton_inputs(triton_grpc, {"X": ROW})
        while (yield):
            note_grpc(ledger, client, connection.infer(name, inputs))


def stream_client(address, name, ledger, client):
    answers: queue.Queue = queue.Queue()
    with triton_grpc.InferenceServerClient(address) as connection:
        connection.start_stream(callback=lambda result, error: answers.put((result, error)))
        inputs = calls.triton_inputs(triton_grpc, {"X": ROW})
        while (yield):
            connection.async_stream_infer(name, inputs)
            result, error = answers.get(timeout=30)
            assert error is None, error
            note_grpc(ledger, client, result)
        connection.stop_stream()


def note_grpc(ledger, client, result):
    told = result.get_response().parameters
    identity = tuple(told[key].string_param for key in NAMES)
    assert result.get_response().model_version == identity[0]
    ledger.note(client, result.as_numpy("first"), result.as_numpy("second"), identity)


class Load:
    """Clients that call without a pause, each in a thread of its own, until the block ends."""

    KINDS = (rest_client, rest_client, json_client, grpc_client, grpc_client, stream_client)

    def __init__(self, server, name: str):
        self.ledger = Ledger()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(kind, server.data, name, f"{kind.__name__}-{number}"))
            for number, kind in enumerate(self.KINDS)
        ]

    def _run(self, kind, address, name, client):
        try:
            calling = kind(address, name, self.ledger, client)
            next(calling)
            while not self._end.is_set():
                calling.send(True)
            next(calling, None)
        except Exception as error:
            self.ledger.losses.append((client, repr(error)))

    def __enter__(self) -> Ledger:
        for thread in self._threads:
            thread.start()
        return self.ledger

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=30)


def check_ledger(ledger: Ledger, changes: list[tuple[dict, float]]) -> None:
    """Every answer names a generation that was acknowledged, and holds that version's outputs."""
    assert not ledger.losses
    known = {
        str(change["generation"]): ((change["version"], str(change["generation"]), change["digest"]), expected(amount))
        for change, amount in changes
    }
    for client, first, second, identity in ledger.answers:
        wanted_identity, (wanted_first, wanted_second) = known[identity[1]]
        assert identity == wanted_identity, client
        assert np.array_equal(first, wanted_first), (client, identity, first)
        assert np.array_equal(second, wanted_second), (client, identity, second)
    for client in {entry[0] for entry in ledger.answers}:
        seen = [int(identity[1]) for who, _, _, identity in ledger.answers if who == client]
        assert seen == sorted(seen), f"{client} went back to an older generation"


def test_swaps_under_load_lose_and_mix_nothing(server, admin, name, record_property):
    amounts = itertools.count(3)
    changes = [(admin.must_push(name, models.two_answers(1)), 1), (admin.must_push(name, models.two_answers(2)), 2)]

    def swap(number: int) -> tuple[dict, float]:
        """Takes turns: activate A, push the bytes of B, push something new, roll back."""
        kind = number % 4
        if kind == 0:
            return changed(admin.activate(name, "1")), 1
        if kind == 1:
            return changed(admin.push(name, models.two_answers(2)), 200), 2
        if kind == 2:
            amount = next(amounts)
            return admin.must_push(name, models.two_answers(amount, padding=20_000)), amount
        back = changed(admin.roll_back(name))
        return back, next(amount for change, amount in changes if change["version"] == back["version"])

    with Load(server, name) as ledger:
        for number in range(SWAPS):
            changes.append(swap(number))
            time.sleep(0.03)
    record_property("calls", len(ledger.answers))
    check_ledger(ledger, changes)
    clients = {client for client, *_ in ledger.answers}
    assert len(clients) == len(Load.KINDS)
    assert len({identity[1] for *_, identity in ledger.answers}) > SWAPS // 2
    assert len(ledger.answers) > 1000


def test_refused_pushes_under_load_disturb_nobody(server, admin, name):
    change = admin.must_push(name, models.two_answers(1))
    with Load(server, name) as ledger:
        for number in range(30):
            bad = models.two_answers(2)[: 40 + number] if number % 2 else models.unknown_operator()
            assert admin.push_raw(name, bad).status_code == 422
            time.sleep(0.01)
    check_ledger(ledger, [(change, 1)])
    assert len(ledger.answers) > 300


def test_unloading_another_model_disturbs_nobody(server, admin, name):
    change = admin.must_push(name, models.two_answers(1))
    other = f"{name}-other"
    with Load(server, name) as ledger:
        for number in range(10):
            admin.push_raw(other, models.two_answers(number, padding=1_000_000))
            admin.call("POST", f"/v2/repository/models/{other}/unload")
        admin.remove(other, force=True)
    check_ledger(ledger, [(change, 1)])


def test_slow_calls_finish_on_the_version_that_they_began_with(server, admin, name):
    first = admin.must_push(name, models.spins())
    learn_that_it_is_slow(server, name)
    answers = []

    def call():
        with triton_grpc.InferenceServerClient(server.data) as client:
            inputs = {"rounds": np.array(40_000, dtype=np.int64)}
            answers.append(client.infer(name, calls.triton_inputs(triton_grpc, inputs)))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: in_flight(server, name) == 4, "the calls are in flight", 10)
    admin.must_push(name, models.adds(1))
    admin.remove(name, "1")
    for thread in threads:
        thread.join()
    digests = [answer.get_response().parameters["baton-digest"].string_param for answer in answers]
    assert digests == [first["digest"]] * 4


def test_a_call_that_turns_out_slow_does_not_hold_up_others_for_long(server, admin, adder, name):
    """Two cores serve; after one slow call the model is known to be slow, and its calls run beside the others."""
    admin.must_push(name, models.spins())
    order = []
    with triton_grpc.InferenceServerClient(server.data) as client:
        rounds = calls.triton_inputs(triton_grpc, {"rounds": np.array(40_000, dtype=np.int64)})
        row = calls.triton_inputs(triton_grpc, {"X": ROW})
        client.infer(name, rounds)
        slow = threading.Thread(target=lambda: (client.infer(name, rounds), order.append("slow")))
        slow.start()
        eventually(lambda: in_flight(server, name) == 1, "the slow call is under way", 10)
        client.infer(adder[0], row)
        order.append("fast")
        slow.join()
    assert order == ["fast", "slow"]
