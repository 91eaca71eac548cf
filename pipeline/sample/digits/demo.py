"""`make pipeline`: a runner, an engine, a stream of labelled requests, and data that grows, drifts, is poisoned, is noise.

Everything on the screen comes from the real parts: events from the engine's stream, accuracy and versions from the answers of the
runner to requests that go on all the time. `--once` ends after the last act, with exit code 1 if an act did not come out.
"""

import argparse
import collections
import csv
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
BATON = os.environ.get("BATON_BIN", str(REPOSITORY / "target/release/baton"))
MODEL = "digits"
BATCH = 16
START_SECONDS = 60
ACT_SECONDS = 180
# Lost calls that are shown.
MOST_LOST = 10

screen = threading.Lock()


def say(text: str = "") -> None:
    with screen:
        print(text, flush=True)


class Stream(threading.Thread):
    """Labelled requests without a pause; once a second a line with accuracy, version and rate."""

    def __init__(self, address: str):
        super().__init__(daemon=True)
        self.address = address
        self.rows: list[tuple[list[float], int]] = []
        self.ended = threading.Event()
        self.answered = self.lost = 0
        self.versions: list[str] = []
        self.recent: collections.deque[float] = collections.deque(maxlen=3)

    def use(self, rows: list[list[str]]) -> None:
        """Pixels and, last, the label."""
        self.rows = [([float(cell) for cell in row[:-1]], int(row[-1])) for row in rows]

    @property
    def accuracy(self) -> float:
        """Of the last seconds."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        at, hits, seen, calls, version, second = 0, 0, 0, 0, "", time.monotonic()
        while not self.ended.is_set():
            rows = [self.rows[(at + index) % len(self.rows)] for index in range(BATCH)]
            at += BATCH
            body = {
                "inputs": [
                    {"name": "pixels", "datatype": "FP32", "shape": [BATCH, 64], "data": [row for row, _ in rows]}
                ]
            }
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(body))
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200:
                    raise ValueError(answer.get("error", response.status))
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.lost += 1
                if self.lost <= MOST_LOST:
                    say(f"           lost     {error}")
                connection.close()
                time.sleep(0.2)
                continue
            self.answered += 1
            calls += 1
            labels = next(output["data"] for output in answer["outputs"] if output["name"] == "label")
            hits += sum(int(label) == truth for label, (_, truth) in zip(labels, rows, strict=True))
            seen += BATCH
            if answer["model_version"] != version:
                version = answer["model_version"]
                self.versions.append(version)
            if time.monotonic() - second >= 1.0:
                share = hits / seen
                self.recent.append(share)
                bar = "#" * round(share * 30)
                say(f"           serving  version {version:>2}  accuracy {share:5.3f} {bar:<30} {calls:4} calls/s")
                hits = seen = calls = 0
                second = time.monotonic()
            time.sleep(0.005)


class Events(threading.Thread):
    """Follows the engine's events and prints them."""

    def __init__(self, engine: str):
        super().__init__(daemon=True)
        self.engine = engine
        self.seen: list[dict] = []
        self.changed = threading.Condition()

    def run(self) -> None:
        request = urllib.request.Request(f"{self.engine}/v1/events", headers={"Accept": "text/event-stream"})
        with urllib.request.urlopen(request) as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    self.take(json.loads(line[5:]))

    def take(self, record: dict) -> None:
        event = record.get("event", record)
        kind = event["type"].removeprefix("dev.baton.").removesuffix(".v1")
        data = event.get("data") or {}
        say(f"{time.strftime('%H:%M:%S')}   {kind:18} {described(kind, data)}")
        with self.changed:
            self.seen.append({"kind": kind, "data": data})
            self.changed.notify_all()

    def wait_for(self, *kinds: str, after: int) -> dict:
        """The first event of these kinds behind the first `after` ones."""
        deadline = time.monotonic() + ACT_SECONDS
        with self.changed:
            while True:
                for event in self.seen[after:]:
                    if event["kind"] in kinds:
                        return event
                if not self.changed.wait(timeout=max(0.0, deadline - time.monotonic())):
                    raise SystemExit(f"none of {', '.join(kinds)} came within {ACT_SECONDS} s")


def described(kind: str, data: dict) -> str:
    def reasons() -> str:
        return "; ".join(f"{reason['code']}: {reason['text']}" for reason in data.get("reasons", []))

    match kind:
        case "dataset.updated":
            return f"{data['file']}, {data['size']:,} bytes"
        case "dataset.validated":
            drift = "" if data.get("drift") is None else f", drift {data['drift']:.2f}"
            return f"{data['rows']} rows, {data['flagged']} marked{drift}"
        case "dataset.rejected" | "model.rejected":
            return reasons()
        case "training.finished":
            cost = data["cost"]
            metrics = ", ".join(f"{name} {value:.3f}" for name, value in data["metrics"].items())
            return f"{metrics}; {cost['cpu_s']:.1f} CPU s, {cost['max_rss_mb']:.0f} MB"
        case "training.failed":
            return f"{data['reason']}: {data['error'].strip().splitlines()[-1] if data['error'] else ''}"
        case "model.evaluated":
            active = (data.get("active") or {}).get("accuracy")
            against = "nothing served yet" if active is None else f"{active:.3f} of the served one"
            return f"accuracy {data['candidate'].get('accuracy', 0):.3f} against {against}: {data['verdict']} {reasons()}"
        case "model.deployed":
            return f"version {data['version']}, {data['digest'][:19]}"
    return ""


def free(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def wait_until_ready(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if urllib.request.urlopen(url, timeout=5).status == 200:
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--once", action="store_true", help="end after the last act")
    arguments.add_argument("--work", type=Path, default=REPOSITORY / ".baton/pipeline-demo", help="emptied first")
    arguments.add_argument("--data-port", default="127.0.0.1:8080")
    arguments.add_argument("--admin-port", default="127.0.0.1:8081")
    arguments.add_argument("--engine-port", default="127.0.0.1:8090")
    options = arguments.parse_args()

    def end(*_) -> None:
        # Once: make and a shell both pass the signal on, and a second one would interrupt the end itself.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)

    # Whoever ends this program ends what it has started, too.
    signal.signal(signal.SIGTERM, end)
    for address in (options.data_port, options.admin_port, options.engine_port):
        if not free(address):
            raise SystemExit(f"{address} is in use; stop what runs there (make run?) first")
    shutil.rmtree(options.work, ignore_errors=True)
    inbox, data = options.work / "inbox", options.work / "data"
    (inbox / MODEL).mkdir(parents=True)
    data.mkdir()
    subprocess.run([sys.executable, str(HERE / "make_data.py"), str(data)], check=True)

    engine = f"http://{options.engine_port}"
    # The trainer is `python3 train.py` in the manifest: this very Python, with its packages.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # A group of their own: Ctrl-C comes here only, and the stream outlives none of them.
    runner = subprocess.Popen(
        [BATON, "serve", "--store", str(options.work / "models"), "--listen", options.data_port]
        + ["--admin-listen", options.admin_port, "--log-level", "warn"],
        stdout=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    pipeline = subprocess.Popen(
        [BATON, "pipeline", "serve", str(HERE), "--data", str(options.work / "pipeline"), "--inbox", str(inbox)]
        + ["--listen", options.engine_port, "--server", f"http://{options.admin_port}"],
        stdout=subprocess.DEVNULL,
        stderr=(options.work / "engine.log").open("w"),
        env=environment,
        start_new_session=True,
    )
    try:
        wait_until_ready(f"http://{options.data_port}/livez", runner)
        wait_until_ready(f"{engine}/health/readiness", pipeline)
        return play(options, engine, inbox / MODEL, data)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in (pipeline, runner):
            process.send_signal(signal.SIGTERM)
        for process in (pipeline, runner):
            process.wait(timeout=30)


def play(options, engine: str, inbox: Path, data: Path) -> int:
    events, stream = Events(engine), Stream(options.data_port)
    events.start()

    def drop(name: str) -> int:
        """Puts a file into the inbox at once, as an upload does; gives how many events there were before."""
        before = len(events.seen)
        shutil.copy(data / name, inbox / f".{name}.part")
        os.rename(inbox / f".{name}.part", inbox / name)
        return before

    with (data / "stream.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    old, new = rows[: len(rows) // 2], rows[len(rows) // 2 :]

    def act(title: str) -> None:
        say(f"\n=== {title}")

    act("1. The first data arrive in the inbox: validate, train, evaluate, deploy")
    outcome = events.wait_for("model.deployed", "model.rejected", "dataset.rejected", "training.failed", after=drop("v1.csv"))
    if outcome["kind"] != "model.deployed":
        say(f"\nNo first model, so there is nothing more to show; the engine's log is {options.work / 'engine.log'}")
        return 1
    came_out: list[tuple[str, bool]] = [("a first model is served", True)]
    stream.use(old)
    stream.start()
    time.sleep(3.5)
    clean = stream.accuracy

    act("2. A new scanner sees white on black: accuracy falls")
    stream.use(new)
    time.sleep(4.5)
    drifted = stream.accuracy
    came_out.append((f"drift is felt: {clean:.3f} -> {drifted:.3f}", drifted < clean - 0.1))

    act("3. New data arrive: a better model takes over under load")
    outcome = events.wait_for("model.deployed", "model.rejected", "dataset.rejected", "training.failed", after=drop("v2.csv"))
    time.sleep(4.5)
    came_out.append((f"accuracy recovers: {stream.accuracy:.3f}", stream.accuracy > drifted + 0.1))
    came_out.append(("by a swap", outcome["kind"] == "model.deployed" and len(stream.versions) == 2))

    act("4. A poisoned file is rejected, with a report")
    outcome = events.wait_for("dataset.rejected", "model.deployed", "model.rejected", after=drop("poisoned.csv"))
    came_out.append(("the poisoned file is rejected", outcome["kind"] == "dataset.rejected"))
    report = (outcome["data"].get("report") or {}).get("digest", "")
    say(f"           report   {engine}/v1/reports/{report}")

    act("5. Noise passes as data, but the model that it makes is worse, and refused")
    outcome = events.wait_for("model.rejected", "model.deployed", "dataset.rejected", "training.failed", after=drop("noisy.csv"))
    came_out.append(("the worse model is refused", outcome["kind"] == "model.rejected"))
    time.sleep(1.5)

    act("6. The same file again starts nothing")
    before = drop("v2.csv")
    time.sleep(2)
    came_out.append(("nothing was started", len(events.seen) == before))
    stream.ended.set()
    stream.join()
    came_out.append((f"of {stream.answered + stream.lost} calls {stream.lost} were lost", stream.lost == 0))

    act("What came out")
    for text, good in came_out:
        say(f"  {'ok ' if good else 'NOT'}  {text}")
    say(f"\n  BATON_PIPELINE={engine} {BATON} history --runs --sort cost.cpu_s")
    subprocess.run([BATON, "history", "--runs", "--sort", "cost.cpu_s", "--pipeline", engine], check=False)
    if not options.once:
        say(f"\nDrop files of your own into {inbox}; Ctrl-C ends.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
    return 0 if all(good for _, good in came_out) else 1


if __name__ == "__main__":
    sys.exit(main())
