"""The contract of functions: one corpus of events against functions on very different ground
(pipeline/conformance/README.md)."""

import base64
import hashlib
import http.client
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support import pipeline
from support.pipeline import FUNCTIONS_FRAMEWORK, PYTHON, function
from support.runner import REPOSITORY, eventually

EXAMPLES = REPOSITORY / "pipeline/examples"
EVENTS = REPOSITORY / "pipeline/conformance/events"
STRUCTURED = "application/cloudevents+json"
NAME = "echo"
SEEN = os.environ.get("BATON_SEEN_EXAMPLE", str(REPOSITORY / "target/release/examples/seen"))
# Statuses after which an event is delivered again.
RETRIED = {404, 408, 409, 429, *range(500, 600)}
# What func-python 0.8.1 and the SDK below it answer with a 500, which is theirs to mend.
FAULTS = {
    "func-python": {
        "refused-base64-number",
        "refused-batch",
        "refused-structured-array",
        "refused-structured-lone-surrogate",
        "refused-structured-nested",
        "refused-structured-null",
    }
}


@dataclass(frozen=True)
class Case:
    name: str
    headers: list[tuple[str, str]]
    body: bytes
    # What a server that checks answers, or None for a good event.
    status: int | None
    seen: dict | None


def load(path: Path) -> Case:
    content = json.loads(path.read_text(encoding="utf-8"))
    letter, count = content.get("fill", ["", 0])

    def fill(value):
        return json.loads(json.dumps(value).replace("@FILL@", letter * count))

    body = (
        base64.b64decode(content["body_base64"]) if "body_base64" in content else fill(content.get("body", "")).encode()
    )
    headers = [tuple(fill(line).split(": ", 1)) for line in content["headers"]]
    return Case(path.stem, headers, body, content.get("status"), fill(content.get("seen")))


CASES = [load(path) for path in sorted(EVENTS.glob("*.json"))]
GOOD = [case for case in CASES if case.seen]
BAD = [case for case in CASES if case.status]


def send(address: str, case: Case, path: str = "/") -> tuple[int, dict[str, str], bytes]:
    """Headers as they are, doubled ones too, which `requests` cannot."""
    at = urlsplit(address)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
    try:
        connection.putrequest("POST", at.path + path, skip_accept_encoding=True)
        for name, value in [*case.headers, ("content-length", str(len(case.body)))]:
            connection.putheader(name, value)
        connection.endheaders(case.body)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def event_of(headers: dict[str, str], body: bytes) -> dict:
    """An answer's one event, in either mode."""
    if headers.get("content-type", "").partition(";")[0] == STRUCTURED:
        return json.loads(body)
    event = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    return {**event, "datacontenttype": headers["content-type"], "data": json.loads(body)}


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def check_seen(address: str, case: Case, kind: str = "") -> dict:
    """The function saw what was sent, and answered as the contract says."""
    status, headers, body = send(address, case)
    assert status == 200, (case.name, status, body[:500])
    event, wanted = event_of(headers, body), case.seen["attributes"]
    assert event["specversion"] == "1.0" and event["type"] == "dev.baton.example.seen.v1"
    assert event["source"] == f"/baton/functions/{NAME}"
    assert event["id"] == digest(wanted["source"], wanted["id"], NAME), case.name
    assert event["pipelinerun"] == wanted.get("pipelinerun", digest(wanted["source"], wanted["id"])[:16])
    assert event.get("subject") == wanted.get("subject")
    assert event["datacontenttype"].startswith("application/json")
    got = event["data"]["attributes"]
    if kind == "func-python":
        # Its SDK gives an event without time the time now, and writes the others in its own way.
        got, wanted = {**got, "time": None}, {**wanted, "time": None}
    assert got == wanted, case.name
    for field in ("data", "data_base64", "length"):
        assert event["data"].get(field) == case.seen.get(field), (case.name, field)
    return event


FUNCTIONS = {
    "built-in": [SEEN],
    "python": [str(PYTHON), str(EXAMPLES / "python/function.py")],
    "func-python": [str(PYTHON), str(EXAMPLES / "func-python/function.py")],
    "node": ["node", str(EXAMPLES / "node/function.mjs")],
}


def run(kind: str, folder: Path):
    """A function of this kind, as `support.pipeline.function` gives it."""
    command = FUNCTIONS[kind]
    if kind == "node" and shutil.which("node") is None:
        pytest.skip("there is no Node.js on this machine")
    if not os.path.isfile(command[-1]):
        build = "cargo build --release -p baton-pipeline --example seen"
        pytest.fail(f"{command[-1]} is missing: {build}, or set BATON_SEEN_EXAMPLE")
    return function(command, folder, folder / "log")


@pytest.fixture(scope="module", params=FUNCTIONS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def address(kind, tmp_path_factory):
    with run(kind, tmp_path_factory.mktemp(kind)) as running:
        yield running.address


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_function_sees_what_was_sent_and_answers_the_same_when_it_is_sent_again(address, kind, case):
    first, second = check_seen(address, case, kind), check_seen(address, case, kind)
    assert first["id"] == second["id"]


def test_events_at_once_and_in_any_order_are_answered_each_with_its_own(address, kind):
    many = [*GOOD, *reversed(GOOD), *GOOD[::2]]
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(lambda case: check_seen(address, case, kind), many))
    sent = {(case.seen["attributes"]["source"], case.seen["attributes"]["id"]) for case in GOOD}
    assert len({answer["id"] for answer in answers}) == len(sent)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_what_is_no_event_harms_no_function_and_is_not_worth_another_try(address, kind, case):
    status, _, body = send(address, case)
    if kind == "built-in":
        assert status == case.status, body
        assert body, "a reason"
    else:
        # These see only what the engine has checked; they must not make it try again.
        assert (status in RETRIED) == (case.name in FAULTS.get(kind, ())), (status, body)
    check_seen(address, GOOD[0], kind)


@pytest.mark.parametrize("path", ["/health/readiness", "/health/liveness"])
def test_functions_tell_that_they_are_ready(address, path):
    at = urlsplit(address)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_function_ends_when_it_is_told_to(kind, tmp_path):
    with run(kind, tmp_path) as running:
        check_seen(running.address, GOOD[0], kind)
        running.process.terminate()
        assert running.process.wait(timeout=15) == 0, running.log.read_text()


# A receiver.


def test_functions_framework_receives_what_was_sent(tmp_path):
    received = tmp_path / "received"
    command = [
        str(FUNCTIONS_FRAMEWORK / "bin/functions-framework"),
        "--target",
        "receive",
        "--signature-type",
        "cloudevent",
    ]
    with function(
        [*command, "--host", "127.0.0.1"],
        EXAMPLES / "functions-framework",
        tmp_path / "log",
        ready=None,
        RECEIVED=str(received),
    ) as running:
        for case in GOOD:
            status, headers, body = send(running.address, case)
            assert status == 200, (case.name, status, body)
            assert not any(name.startswith("ce-") for name in headers), "it can answer now: say so in the example"
            seen = json.loads(received.read_text().splitlines()[-1])
            attributes = case.seen["attributes"]
            assert (seen["attributes"]["id"], seen["attributes"]["source"]) == (attributes["id"], attributes["source"])
            if "data" in case.seen:
                assert seen["data"] == case.seen["data"], case.name
        for case in BAD:
            status, _, _ = send(running.address, case)
            assert 200 <= status < 600, case.name
        assert len(received.read_text().splitlines()) >= len(GOOD)


# The emulator of AWS Lambda; builds for minutes, hence not part of every run (`make pipeline-conformance-lambda`).


@pytest.mark.skipif(
    "BATON_CARGO_LAMBDA" not in os.environ, reason="builds for minutes: make pipeline-conformance-lambda"
)
@pytest.mark.timeout(1800)
def test_a_function_on_aws_lambda_keeps_the_contract(tmp_path):
    port = pipeline.free_port()
    folder = EXAMPLES / "lambda"
    command = [
        os.environ["BATON_CARGO_LAMBDA"],
        "lambda",
        "watch",
        "--invoke-address",
        "127.0.0.1",
        "--invoke-port",
        str(port),
    ]
    environment = {
        **pipeline.clean_environment(),
        "K_SERVICE": NAME,
        "CARGO_TARGET_DIR": str(REPOSITORY / "target/lambda"),
    }
    subprocess.run(["cargo", "build", "--locked"], cwd=folder, env=environment, check=True)
    with (tmp_path / "log").open("wb") as log:
        emulator = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            eventually(lambda: is_open(port), "the emulator listens", 120)
            address = f"http://127.0.0.1:{port}/lambda-url/seen"
            for case in GOOD:
                check_seen(address, case)
        finally:
            pipeline.stop(emulator)


def is_open(port: int) -> bool:
    try:
        http.client.HTTPConnection("127.0.0.1", port, timeout=2).connect()
        return True
    except OSError:
        return False
