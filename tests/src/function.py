"""The function and job of the engine's tests: does what the event's data say, and writes down what it did.

Files in $NOTES: `calls` (a line for each call that was answered: name, pid, event id), `most` (calls and instances at a time, as seen from
inside), `pids` (every process that was started).
"""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

NOTES = pathlib.Path(os.environ["NOTES"])
NAME = os.environ.get("K_SERVICE", "job")
REPLY = os.environ.get("REPLY")


def note(file, line):
    with open(NOTES / file, "ab", buffering=0) as out:
        out.write(f"{line}\n".encode())


def started():
    note("pids", os.getpid())
    folder = NOTES / f"instances-{NAME}"
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    alive = [entry for entry in folder.iterdir() if pathlib.Path("/proc", entry.name).exists()]
    note("most", f"{NAME} instances {len(alive)}")


def daemon():
    """A process that forks twice, in a session of its own, with nothing of the engine in its environment."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note("pids", os.getpid())
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)


class Function(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.busy = pathlib.Path("/nonexistent")
        self.answer(200, {}, b"ok")

    def answer(self, status, headers, body):
        # Before the answer: the next call may come before this one has returned.
        self.busy.unlink(missing_ok=True)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        data = json.loads(body) if body else {}
        event = self.headers["ce-id"]
        folder = NOTES / f"busy-{NAME}"
        folder.mkdir(exist_ok=True)
        self.busy = folder / uuid.uuid4().hex
        self.busy.touch()
        note("most", f"{NAME} calls {len(list(folder.iterdir()))}")
        try:
            self.act(data.get("do", {}).get(NAME, "reply"), event, data)
        finally:
            self.busy.unlink(missing_ok=True)

    def act(self, what, event, data):
        before = (NOTES / "calls").read_text().count(f" {event}\n") if (NOTES / "calls").exists() else 0
        note("calls", f"{NAME} {os.getpid()} {event}")
        word, _, number = what.partition(" ")
        if word == "sleep":
            time.sleep(float(number))
        if word == "hang":
            time.sleep(600)
        if word == "crash" and (not number or before < int(number)):
            print("about to crash", flush=True)
            os._exit(7)
        if word == "deaf":
            self.server.socket.close()
        if word == "daemon":
            daemon()
        if word == "status" or word == "later" and before < 2:
            return self.answer(int(number), {}, b"told to")
        if word == "grow":
            hold = bytearray(int(number) << 20)
            hold[::4096] = b"x" * len(hold[::4096])
            time.sleep(600)
        if word == "malformed":
            return self.answer(200, {"ce-id": "1", "ce-specversion": "1.0"}, b"")
        if word == "silent" or not REPLY:
            note_dead(lambda name: self.headers.get(f"ce-{name}"))
            return self.answer(204, {}, b"")
        parts = [self.headers["ce-source"], event, NAME]
        if self.headers.get("ce-batonrevision"):
            parts.append(self.headers["ce-batonrevision"])
        reply = {
            "ce-specversion": "1.0",
            "ce-id": hashlib.sha256("\0".join(parts).encode()).hexdigest(),
            "ce-source": f"/baton/functions/{NAME}",
            "ce-type": REPLY,
            "ce-subject": self.headers.get("ce-subject", "none"),
            "content-type": "application/json",
        }
        if self.headers.get("ce-pipelinerun"):
            reply["ce-pipelinerun"] = self.headers["ce-pipelinerun"]
        self.answer(200, reply, json.dumps(data).encode())


def note_dead(attribute):
    """Why an event was given up elsewhere, if it was."""
    explained = {name: attribute(name) for name in ("knativeerrordest", "knativeerrorcode", "knativeerrordata")}
    if explained["knativeerrordest"]:
        explained["knativeerrordata"] = base64.b64decode(explained["knativeerrordata"]).decode()
        note("dead", json.dumps(explained))


def serve():
    wait = float(os.environ.get("START", "0"))
    note("ports", os.environ["PORT"])
    if wait:
        time.sleep(wait)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Function)
    server.serve_forever()


def job():
    event = json.loads((pathlib.Path(os.environ["K_EVENT_PATH"]) / "event").read_text())
    note("jobs", f"{os.environ['K_REVISION']} {event['id']} {os.nice(0)} {os.environ['K_EXECUTION_MODE']}")
    note_dead(event.get)
    attempts = (NOTES / "jobs").read_text().count(f" {event['id']} ")
    word, _, number = event["data"].get("do", {}).get("job", "answer").partition(" ")
    print("line", "of the log", flush=True)
    if word == "fail" and attempts <= int(number):
        print("no luck", file=sys.stderr)
        sys.exit(3)
    if word == "sleep":
        subprocess.Popen(["sleep", "600"])
        time.sleep(float(number))
    if word == "grow":
        hold = bytearray(int(number) << 20)
        hold[::4096] = b"x" * len(hold[::4096])
        time.sleep(600)
    if word == "quiet":
        return
    sink = urlsplit(os.environ["K_SINK"])
    answer = {
        "specversion": "1.0",
        "id": hashlib.sha256((event["id"] + os.environ["K_REVISION"]).encode()).hexdigest(),
        "source": "/baton/jobs/train",
        "type": "dev.baton.training.finished.v1",
        "subject": "m",
        "datacontenttype": "application/json",
        "pipelinerun": event["pipelinerun"],
        "data": {"run": event["pipelinerun"]},
    }
    connection = http.client.HTTPConnection(sink.hostname, sink.port)
    connection.request("POST", sink.path, json.dumps(answer), {"content-type": "application/cloudevents+json"})
    status = connection.getresponse().status
    assert status == 202, status


started()
job() if os.environ.get("K_EXECUTION_MODE") == "batch" else serve()
