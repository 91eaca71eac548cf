"""What the tests of functions and trainers share: processes in environments of their own, and a broker's ingress that
notes all."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .runner import REPOSITORY, eventually

PIPELINE = Path(os.environ.get("BATON_PIPELINE_VENV", REPOSITORY / ".venv/pipeline"))
FUNCTIONS_FRAMEWORK = Path(os.environ.get("BATON_FUNCTIONS_FRAMEWORK_VENV", REPOSITORY / ".venv/functions-framework"))
PYTHON = PIPELINE / "bin/python"
VALIDATED = "dev.baton.dataset.validated.v1"
JOB_SECONDS = 60
FUNCTION_SECONDS = 30


class Sink:
    """Takes events as the broker's ingress does. `answers` are statuses for the first requests, `None` breaks the
    connection."""

    def __init__(self, answers=(), after=202):
        self.requests: list[dict] = []
        self.taken: list[dict] = []
        self.answers, self.after = list(answers), after
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.headers["content-type"] == "application/cloudevents+json"
                sink.requests.append(event)
                status = sink.answers.pop(0) if sink.answers else sink.after
                if status is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if 200 <= status < 300:
                    sink.taken.append(event)
                self.send_response(status)
                self.send_header("content-length", "6")
                self.end_headers()
                self.wfile.write(b"answer")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("dev.baton.").removesuffix(".v1") for event in self.taken]

    def one(self, kind: str) -> dict:
        (event,) = [event for event in self.taken if event["type"] == f"dev.baton.{kind}.v1"]
        return event


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(store: Path, content: bytes) -> dict:
    """A blob, as `fn validate` stores it; its reference."""
    path = store / "blobs/sha256" / sha256(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": f"sha256:{path.name}", "size": len(content)}


def blob(store: Path, reference: dict) -> bytes:
    content = (store / "blobs/sha256" / reference["digest"].removeprefix("sha256:")).read_bytes()
    assert "sha256:" + sha256(content) == reference["digest"] and len(content) == reference["size"]
    return content


def validated(store: Path, rows: bytes, **changes) -> dict:
    """A `dataset.validated` event whose training data, `rows`, are in the store; `changes` to its data, `None` takes a
    field away."""
    data = {
        "dataset": "flowers",
        "digest": "sha256:" + sha256(b"original" + rows),
        "file": "flowers.csv",
        "rows": rows.count(b"\n") - 1,
        "report": put(store, b"{}"),
        "training": put(store, rows),
        "holdout": put(store, b"holdout of " + rows),
        "flagged": 0,
        "drift": None,
        "policy": "sha256:" + sha256(b""),
        "cost": {"cpu_s": 0.1, "wall_s": 0.1, "max_rss_mb": 10.0},
        **changes,
    }
    return {
        "specversion": "1.0",
        "source": "/baton/functions/validate",
        "id": "5" * 64,
        "type": VALIDATED,
        "subject": "flowers",
        "datacontenttype": "application/json",
        "pipelinerun": "0123456789abcdef",
        "data": {name: value for name, value in data.items() if value is not None},
    }


def start_job(folder: Path, trainer: Path, store, sink, event, *, python=PYTHON, **options) -> subprocess.Popen:
    """Starts a trainer as the engine does: event in a file, the rest in the environment. `options`: more variables, in
    upper case."""
    at = folder / "event-folder"
    at.mkdir(parents=True, exist_ok=True)
    (at / "event").write_text(event if isinstance(event, str) else json.dumps(event), encoding="utf-8")
    environment = {
        **clean_environment(),
        "K_EVENT_PATH": str(at),
        "K_SINK": sink if isinstance(sink, str) else sink.url,
        "K_EXECUTION_MODE": "batch",
        "K_SERVICE": "train",
        "K_CONFIGURATION": "train",
        "K_REVISION": "train-00aa",
        "BATON_ARTIFACTS": str(store),
        "BATON_POLICY": 'label = "label"\n',
        "BATON_SINK_PATIENCE_S": "20",
    }
    before = options.pop("preexec_fn", None)
    environment.update({name: value for name, value in options.items() if value is not None})
    for name in [name for name, value in options.items() if value is None]:
        del environment[name]
    return subprocess.Popen(
        [str(python), str(trainer)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def run_job(*arguments, **options) -> subprocess.CompletedProcess:
    """Runs a trainer to its end."""
    process = start_job(*arguments, **options)
    out, err = process.communicate(timeout=JOB_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def clean_environment() -> dict[str, str]:
    """This process's, without what would speak to a job or a function."""
    mine = ("BATON_", "K_", "PORT", "LISTEN_ADDRESS", "PYTHONPATH", "VIRTUAL_ENV", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(mine)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass(frozen=True)
class Running:
    """A function that is ready."""

    address: str
    process: subprocess.Popen
    log: Path


@contextmanager
def function(
    command: list[str], folder: Path, log: Path, ready="/health/readiness", seconds=FUNCTION_SECONDS, **variables
):
    """A function as a process, started as the engine starts it; yields it when it is ready, ends it by its id."""
    port = free_port()
    environment = {
        **clean_environment(),
        "PORT": str(port),
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "K_SERVICE": "echo",
        "K_CONFIGURATION": "echo",
        "K_REVISION": "echo-00aa",
        **variables,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, f"{command} ended with {process.returncode}:\n{log.read_text()[-3000:]}"
        try:
            if ready is None:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return True
            return urllib.request.urlopen(address + ready, timeout=5).status == 200
        except urllib.error.HTTPError:
            return False
        except OSError:
            return False

    try:
        eventually(is_ready, f"{command} is ready", seconds)
        yield Running(address, process, log)
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """SIGTERM, and SIGKILL if that is not heard."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(path: Path, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"not within {seconds} s: {path}"
        time.sleep(0.01)
