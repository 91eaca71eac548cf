"""`make bench-pipeline`: functions that scale to zero against services that are always up, on the same engine with the same stages.

N identical pipelines of four stages (validate, train, evaluate, deploy) begin together, once in a window of WINDOW seconds. Modes, which
differ in the scale annotations of the manifests and in nothing else:

  always1   one instance of each stage, always up
  always2   two instances of each stage, always up: the parallelism that `faas` may use
  faas      none to two instances of each stage, stopped after IDLE seconds without work

Variants: `rust` (validate, evaluate, deploy are `baton fn`; train is Python) and `python` (all four are Python with the usual packages).
Measured over the process tree of the engine (the runner is the same in all modes and not counted): memory as the integral of the
proportional set size, CPU seconds of all processes, living and ended, the time from the first event posted to the last deployment. Raw
results go to a JSON file, with the machine's load before each run.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BATON = os.environ.get("BATON_BIN", str(REPOSITORY / "target/release/baton"))
STAGES = ["validate", "train", "evaluate", "deploy"]
FIRES = {
    "validate": "dataset.updated",
    "train": "dataset.validated",
    "evaluate": "training.finished",
    "deploy": "model.evaluated",
}
SCALES = {"always1": (1, 1), "always2": (2, 2), "faas": (0, 2)}
TICK = os.sysconf("SC_CLK_TCK")
# What a CPU for a second costs in GB of memory for a second, as clouds price functions.
CPU_PER_GB = 9


def manifests(mode: str, variant: str, idle: float, train_seconds: float) -> str:
    smallest, largest = SCALES[mode]
    parts = []
    for stage in STAGES:
        is_rust = variant == "rust" and stage != "train"
        run = f"args: [fn, {stage}]" if is_rust else f"command: [python3, stage.py, {stage}]"
        local = "" if is_rust else f"\n        baton.dev/local-command: {sys.executable} {HERE / 'stage.py'} {stage}"
        parts.append(f"""
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {stage}}}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: "{smallest}"
        autoscaling.knative.dev/max-scale: "{largest}"
        autoscaling.knative.dev/window: {idle:g}s{local}
    spec:
      containerConcurrency: 1
      containers:
        - image: bench
          {run}
          env:
            - {{name: OMP_NUM_THREADS, value: "1"}}
            - {{name: TRAIN_SECONDS, value: "{train_seconds}"}}
            - name: BATON_POLICY
              value: |
                label = "label"
                holdout = 0.2
            - name: BATON_RULE
              value: "at_least = 0.3\\nmargin = -1.0"
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {stage}}}
spec:
  broker: default
  filter: {{attributes: {{type: dev.baton.{FIRES[stage]}.v1}}}}
  subscriber: {{ref: {{apiVersion: serving.knative.dev/v1, kind: Service, name: {stage}}}}}
""")
    broker = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n"
    return "---\n".join([broker, *parts])


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            pass
    return found


def proportional_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def cpu_seconds(pid: int) -> float:
    """Its own and that of its children that were waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK


class Meter(threading.Thread):
    """Samples the process tree; `areas` has the memory of each interval in MB s, with its time."""

    def __init__(self, root: int):
        super().__init__(daemon=True)
        self.root = root
        self.areas: list[tuple[float, float]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        before = time.monotonic()
        while not self.ended.wait(0.25):
            held = sum(map(proportional_mb, tree(self.root)))
            now = time.monotonic()
            self.areas.append((now, held * (now - before)))
            before = now

    def cpu(self) -> float:
        return sum(map(cpu_seconds, tree(self.root)))


def dataset(seed: int) -> bytes:
    """600 rows of scikit-learn's digits, drawn anew for each pipeline."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = random.Random(seed).sample(range(len(digits.target)), 600)
    lines = [",".join([*(f"pixel_{index}" for index in range(64)), "label"])]
    lines += [",".join([*(f"{value:g}" for value in digits.data[row]), str(digits.target[row])]) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready, what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def answers(url: str):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.loads(response.read() or b"{}") if "json" in response.headers.get("content-type", "") else {}
    except urllib.error.HTTPError:
        return {}
    except OSError:
        return None


def one_run(mode: str, variant: str, options, seed: int) -> dict:
    folder = Path(tempfile.mkdtemp(prefix="baton-bench-"))
    data, admin, engine = free_port(), free_port(), free_port()
    (folder / "pipeline").mkdir()
    (folder / "pipeline/pipeline.yaml").write_text(manifests(mode, variant, options.idle, options.train_seconds))
    started = []

    def start(*command: str) -> subprocess.Popen:
        log = (folder / f"{len(started)}.log").open("w")
        started.append(subprocess.Popen([BATON, *command], stdout=log, stderr=log))
        return started[-1]

    try:
        start(
            *("serve", "--store", str(folder / "models"), "--log-level", "warn"),
            *("--listen", f"127.0.0.1:{data}", "--admin-listen", f"127.0.0.1:{admin}"),
        )
        load = os.getloadavg()[0]
        root = start(
            *("pipeline", "serve", str(folder / "pipeline"), "--data", str(folder / "engine")),
            *("--listen", f"127.0.0.1:{engine}", "--server", f"http://127.0.0.1:{admin}"),
        )
        base = f"http://127.0.0.1:{engine}"
        for port in (admin, engine):
            address = f"http://127.0.0.1:{port}/health/readiness"
            wait_until(lambda address=address: answers(address) is not None, address)
        if mode != "faas":
            expected = len(STAGES) * SCALES[mode][0]
            wait_until(lambda: instances(base) >= expected, "instances of all stages", 180)
        meter = Meter(root.pid)
        cpu_before = meter.cpu()
        window_from = time.monotonic()
        meter.start()
        time.sleep(options.window * 0.1)
        first = time.monotonic()
        for pipeline in range(options.pipelines):
            push(folder / "engine/store", base, f"bench-{pipeline}", dataset(seed * 100 + pipeline))
        wait_until(lambda: ended(base) >= options.pipelines, f"pipelines that ended (see {folder})", 300)
        makespan = time.monotonic() - first
        rest = options.window - (time.monotonic() - window_from)
        if rest > 0:
            time.sleep(rest)
        meter.ended.set()
        meter.join()
        window = time.monotonic() - window_from
        tail = [area for at, area in meter.areas if at > first + makespan + options.idle + 2]
        outcome = answers(f"{base}/v1/events?limit=1000")["events"]
        deployed = sum(event["event"]["type"] == "dev.baton.model.deployed.v1" for event in outcome)
        return {
            "variant": variant,
            "mode": mode,
            "pipelines": options.pipelines,
            "train_cpu_s": options.train_seconds,
            "window_s": options.window,
            "idle_s": options.idle,
            "load_before": round(load, 2),
            "makespan_s": round(makespan, 2),
            "cpu_s": round(meter.cpu() - cpu_before, 2),
            "memory_mb_s": round(sum(area for _, area in meter.areas), 1),
            "average_mb": round(sum(area for _, area in meter.areas) / window, 1),
            "idle_mb": round(sum(tail) / (len(tail) * 0.25), 1) if tail else None,
            "deployed": deployed,
        }
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
        # What was left by a run that failed is looked at.
        if sys.exc_info()[0] is None:
            shutil.rmtree(folder, ignore_errors=True)


def instances(base: str) -> int:
    found = answers(f"{base}/v1/functions") or {}
    return sum(
        instance.get("state") in ("ready", "busy", "idle")
        for function in found.get("functions", found.get("services", []))
        for instance in function.get("instances", [])
    )


def ended(base: str) -> int:
    kinds = ("model.deployed", "model.rejected", "dataset.rejected", "training.failed")
    found = [answers(f"{base}/v1/events?type=dev.baton.{kind}.v1&limit=1000") or {} for kind in kinds]
    return sum(len(page.get("events", [])) for page in found)


def push(store: Path, base: str, name: str, content: bytes) -> None:
    path = store.parent / f"{name}.csv"
    path.write_bytes(content)
    command = [BATON, "dataset", "push", name, str(path), "--store", str(store), "--sink", f"{base}/"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def spread(values: list[float]) -> str:
    values = sorted(values)
    if len(values) < 4:
        return f"{statistics.median(values):.1f} ({values[0]:.1f}-{values[-1]:.1f})"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def show(results: list[dict]) -> None:
    """Medians with quartiles, and from which pause between bursts on the saved memory is worth more than the CPU time of cold starts."""
    columns = {"makespan_s": "makespan s", "cpu_s": "CPU s", "average_mb": "average MB", "idle_mb": "idle MB"}
    keys = list(dict.fromkeys((row["variant"], row["pipelines"], row["train_cpu_s"], row["mode"]) for row in results))
    values = {
        key: [row for row in results if (row["variant"], row["pipelines"], row["train_cpu_s"], row["mode"]) == key]
        for key in keys
    }
    print("\n| variant | pipelines | train CPU s | mode | runs | " + " | ".join(columns.values()) + " |")
    print("| --- " * (5 + len(columns)) + "|")
    for key in keys:
        rows = values[key]
        cells = [spread([row[name] for row in rows if row[name] is not None] or [float("nan")]) for name in columns]
        print("| " + " | ".join([*map(str, key), str(len(rows)), *cells]) + " |")
    print("median (quartiles, or range below four runs)\n")

    def middle(key, name: str) -> float:
        return statistics.median(row[name] for row in values[key])

    for key in keys:
        faas = (*key[:3], "faas")
        if key == faas or faas not in values or any(row["idle_mb"] is None for row in values[key] + values[faas]):
            continue
        cpu = middle(faas, "cpu_s") - middle(key, "cpu_s")
        memory = (middle(key, "idle_mb") - middle(faas, "idle_mb")) / 1024
        gap = max(0.0, CPU_PER_GB * cpu / memory)
        print(f"{key[0]}, {key[1]} pipelines: {cpu:+.1f} CPU s beside {key[3]}, paid for by a pause of {gap:.0f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=10)
    arguments.add_argument("--pipelines", type=int, default=8)
    arguments.add_argument("--train-seconds", type=float, default=0.5, help="CPU seconds of one training")
    arguments.add_argument("--window", type=float, default=20.0, help="seconds")
    arguments.add_argument("--idle", type=float, default=6.0, help="seconds until an idle instance ends, at least 6 as in Knative")
    arguments.add_argument("--variants", nargs="+", default=["rust", "python"], choices=["rust", "python"])
    arguments.add_argument("--modes", nargs="+", default=list(SCALES), choices=list(SCALES))
    arguments.add_argument("--out", type=Path, default=REPOSITORY / "bench/results/pipeline.json")
    arguments.add_argument("--show", nargs="+", type=Path, metavar="FILE", help="only print the table of results that are there")
    options = arguments.parse_args()
    if options.show:
        return show([row for path in options.show for row in json.loads(path.read_text())])
    results = []
    # Interleaved, so that what else the machine does falls on all modes alike.
    for run, variant, mode in itertools.product(range(options.runs), options.variants, options.modes):
        result = one_run(mode, variant, options, run)
        results.append(result)
        print(json.dumps(result), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
    show(results)


if __name__ == "__main__":
    main()
