"""The Python helper for trainers: real processes with a real store, and a sink that does all that a sink may do."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import requests
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from support import pipeline
from support.pipeline import PYTHON, Sink, blob, put, run_job, sha256, start_job, validated
from support.runner import REPOSITORY, eventually

SOURCES = REPOSITORY / "pipeline/python"
sys.path.insert(0, str(SOURCES / "src"))

import baton_pipeline  # noqa: E402
from baton_pipeline import events, export, job, origin, parameters, store  # noqa: E402
from baton_pipeline.errors import PipelineError  # noqa: E402
from baton_pipeline.meter import Meter  # noqa: E402
from baton_pipeline.run import Run  # noqa: E402
from baton_pipeline.sink import Sink as Sender  # noqa: E402
from baton_pipeline.table import Table  # noqa: E402

DIGITS = REPOSITORY / "pipeline/sample/digits"
CSV = b"width,height,label\n" + b"".join(b"%d,%d.5,%d\n" % (n, n % 7, n % 2) for n in range(40))
# Fast: no arrays, no ONNX. What it trained with goes into the model, so that another training makes another one.
PLAIN = """
    import json, os, pathlib, sys, tempfile
    from baton_pipeline import main, training_run

    def train(run):
        rows = list(run.rows())
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder, "model.so")
            model.write_text(json.dumps([len(rows), run.parameter("depth", 3)]))
            BODY
            run.finish_files(folder, {"accuracy": 0.5, "rows": len(rows)})
"""
MAIN = PLAIN + "\n    main(train)\n"
WITH = PLAIN + "\n    with training_run() as run:\n        train(run)\n"
# Writes nothing but to the store.
IN_MEMORY = """
    import os
    from baton_pipeline import main
    from baton_pipeline.run import Result

    def train(run):
        BODY
        run.result = Result({"model.so": b"1"}, {})

    main(train)
"""
FINISHED_FIELDS = {
    *("run", "model", "dataset", "dataset_digest", "parameters", "code", "environment", "who", "started", "finished"),
    *("bundle", "metrics", "cost", "holdout", "report", "reused"),
}
FAILED_FIELDS = {"run", "model", "dataset", "dataset_digest", "reason", "error", "cost"}


@pytest.fixture
def sink():
    sinks = []

    def make(*answers, after=202):
        sinks.append(Sink(answers, after))
        return sinks[-1]

    yield make
    for made in sinks:
        made.close()


@pytest.fixture
def trainer(tmp_path):
    """Writes a trainer into a folder of its own."""

    def write(body="pass", program=MAIN, name="trainer"):
        path = tmp_path / name / "train.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(program).replace("BODY", body), encoding="utf-8")
        return path

    return write


@pytest.fixture
def at(tmp_path):
    """The store's folder."""
    return tmp_path / "store"


def check_failed(sink, process, reason: str, *words: str) -> dict:
    """The job said why it failed, and ended with 1."""
    assert process.returncode == 1, process.stderr
    assert sink.kinds()[-1] == "training.failed", process.stderr
    data = sink.one("training.failed")["data"]
    assert set(data) == FAILED_FIELDS
    assert data["reason"] == reason, data
    for word in words:
        assert word in data["error"], data["error"]
    return data


def staged(at: Path) -> list[Path]:
    return [path for path in at.rglob("*") if "#" in path.name]


# What a job says.


@pytest.mark.parametrize("program", [MAIN, WITH], ids=["main", "with"])
def test_a_training_says_all_that_the_reference_promises(tmp_path, at, sink, trainer, program):
    broker, event = sink(), validated(at, CSV)
    process = run_job(
        tmp_path, trainer(program=program), at, broker, event, BATON_PARAM_DEPTH="5", BATON_WHO="somebody"
    )
    assert process.returncode == 0, process.stderr
    assert broker.kinds() == ["training.started", "training.finished"]
    started, finished = broker.taken
    for sent in broker.taken:
        kind = sent["type"].removeprefix("dev.baton.").removesuffix(".v1")
        parts = [event["source"], event["id"], "train", "train-00aa", kind]
        assert sent["id"] == sha256("\0".join(parts).encode())
        assert (sent["source"], sent["subject"]) == ("/baton/jobs/train", "flowers")
        assert (sent["specversion"], sent["datacontenttype"]) == ("1.0", "application/json")
        assert sent["pipelinerun"] == sent["data"]["run"] == event["pipelinerun"]
    data = finished["data"]
    assert set(data) == FINISHED_FIELDS
    assert started["data"] == {name: data[name] for name in started["data"]}
    assert set(started["data"]) == FINISHED_FIELDS - {
        *("finished", "bundle", "metrics", "cost", "holdout", "report", "reused")
    }
    assert (data["dataset"], data["dataset_digest"]) == ("flowers", event["data"]["digest"])
    assert (data["holdout"], data["report"]) == (event["data"]["holdout"], event["data"]["report"])
    assert (data["metrics"], data["parameters"]) == ({"accuracy": 0.5, "rows": 40}, {"depth": 5})
    assert (data["who"], data["reused"]) == ("somebody", False)
    assert data["code"]["digest"].startswith("sha256:") and data["environment"]["packages"]["numpy"]
    assert set(data["cost"]) == {"cpu_s", "wall_s", "max_rss_mb"} and min(data["cost"].values()) > 0

    bundle = json.loads(blob(at, data["bundle"]))
    assert (bundle["model"], bundle["run"], bundle["dataset"]) == ("flowers", data["run"], "flowers")
    assert (bundle["label"], bundle["features"]) == ("label", ["width", "height"])
    assert (bundle["holdout"], bundle["report"]) == (data["holdout"], data["report"])
    assert set(bundle["parts"]) == {"model.so", "baton.toml", "provenance.json"}
    assert json.loads(blob(at, bundle["parts"]["model.so"])) == [40, 5]
    provenance = json.loads(blob(at, bundle["parts"]["provenance.json"]))
    assert provenance["environment"] == data["environment"] and provenance["code"]["files"].keys() == {"train.py"}
    assert not staged(at)


@pytest.mark.parametrize("classes", [["no", "yes"], [False, True], [1, 2]])
def test_the_bundle_names_the_classes(tmp_path, at, sink, trainer, classes):
    broker = sink()
    program = trainer(f"run.finish_files(folder, {{}}, classes={classes}); return")
    assert run_job(tmp_path, program, at, broker, validated(at, CSV)).returncode == 0
    bundle = json.loads(blob(at, broker.one("training.finished")["data"]["bundle"]))
    provenance = json.loads(blob(at, bundle["parts"]["provenance.json"]))
    assert bundle["classes"] == provenance["classes"] == [str(label) for label in classes]


KEYED = b"id,width,height,label\n" + b"".join(b"%d,%d,%d,%d\n" % (n, n, n % 7, n % 2) for n in range(40))


@pytest.mark.parametrize(
    ("change", "policy", "wanted"),
    [
        ({}, 'label = "label"', ["id", "width", "height"]),
        ({}, 'label = "label"\nkey = "id"', ["width", "height"]),
        ({"key": "id"}, 'label = "label"', ["width", "height"]),
        ({"key": "id", "features": ["height", "width"]}, 'label = "label"', ["height", "width"]),
        ({"features": ["height"]}, 'label = "label"\nfeatures = ["width"]', ["height"]),
    ],
)
def test_the_key_is_no_feature(tmp_path, at, sink, trainer, change, policy, wanted):
    broker = sink()
    process = run_job(tmp_path, trainer(), at, broker, validated(at, KEYED, **change), BATON_POLICY=policy)
    assert process.returncode == 0, process.stderr
    assert json.loads(blob(at, broker.one("training.finished")["data"]["bundle"]))["features"] == wanted


def test_names_come_from_the_revision_the_policy_or_the_data_set(tmp_path, at, sink, trainer):
    event = validated(at, CSV)
    del event["pipelinerun"]
    broker = sink()
    process = run_job(
        *(tmp_path, trainer(), at, broker, event),
        **{"K_SERVICE": None, "K_REVISION": "my-train-00bb", "BATON_POLICY": 'label = "label"\nmodel = "petals"'},
    )
    assert process.returncode == 0, process.stderr
    sent = broker.one("training.finished")
    assert (sent["source"], sent["subject"], sent["data"]["model"]) == ("/baton/jobs/my-train", "petals", "petals")
    assert sent["pipelinerun"] == sha256(f"{event['source']}\0{event['id']}".encode())[:16]


def test_children_count_in_the_cost(tmp_path, at, sink, trainer):
    burn = (
        "import time; x = bytearray(150_000_000); t = time.process_time()\\nwhile time.process_time() - t < 0.5: pass"
    )
    broker = sink()
    body = f'import subprocess; subprocess.run([sys.executable, "-c", "{burn}"], check=True)'
    assert run_job(tmp_path, trainer(body), at, broker, validated(at, CSV)).returncode == 0
    cost = broker.one("training.finished")["data"]["cost"]
    assert cost["cpu_s"] >= 0.5 and cost["wall_s"] >= 0.5 and cost["max_rss_mb"] >= 140


def test_memory_is_in_megabytes():
    usages = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    assert Meter().cost()["max_rss_mb"] == pytest.approx(max(usages) * 1024 / 1e6, rel=0.02)


# The sink.


def test_an_event_is_sent_again_until_it_is_taken(sink, monkeypatch):
    monkeypatch.setattr("baton_pipeline.sink.FIRST_PAUSE_S", 0.001)
    broker = sink(503, None, 404, 429, 500, 409, 408, 599)
    Sender(broker.url, 30).post({"type": "t", "id": "ä"})
    assert len(broker.requests) == 9 and broker.taken == [{"type": "t", "id": "ä"}]


def test_a_sink_that_comes_late_hears_all(tmp_path, at, sink, trainer):
    broker = sink(503, 202, None)
    process = run_job(tmp_path, trainer(), at, broker, validated(at, CSV))
    assert process.returncode == 0, process.stderr
    assert broker.kinds() == ["training.started", "training.finished"]
    assert len(broker.requests) == 4 and broker.requests[0] == broker.requests[1]
    assert "503 answer; trying again" in process.stderr


def test_without_a_sink_the_model_is_kept_and_told_at_the_next_start(tmp_path, at, sink, trainer):
    marker = tmp_path / "trained"
    program, event = trainer(f"open({str(marker)!r}, 'a').write('x')"), validated(at, CSV)
    gone = f"http://127.0.0.1:{pipeline.free_port()}"
    process = run_job(tmp_path, program, at, gone, event, BATON_SINK_PATIENCE_S="0.2")
    assert process.returncode == 75, process.stderr
    assert "did not take dev.baton.training.finished.v1" in process.stderr
    broker = sink()
    process = run_job(tmp_path, program, at, broker, event)
    assert process.returncode == 0, process.stderr
    assert broker.kinds() == ["training.finished"] and broker.taken[0]["data"]["reused"] is True
    assert marker.read_text() == "x"
    assert json.loads(blob(at, broker.taken[0]["data"]["bundle"]))["model"] == "flowers"


@pytest.mark.parametrize("status", [400, 413, 415, 301])
def test_a_sink_that_refuses_is_not_asked_again(tmp_path, at, sink, trainer, status):
    broker = sink(202, after=status)
    process = run_job(tmp_path, trainer(), at, broker, validated(at, CSV))
    assert process.returncode == 1
    assert [event["type"] for event in broker.requests] == [
        f"dev.baton.training.{kind}.v1" for kind in ("started", "finished", "failed")
    ]
    assert f"refused dev.baton.training.finished.v1: {status} answer" in process.stderr


def test_a_sink_that_refuses_the_first_event_is_a_reason_not_to_train(tmp_path, at, sink, trainer):
    broker, marker = sink(after=403), tmp_path / "trained"
    process = run_job(tmp_path, trainer(f"open({str(marker)!r}, 'w')"), at, broker, validated(at, CSV))
    assert process.returncode == 1 and not marker.exists()
    assert "refused dev.baton.training.started.v1: 403 answer" in process.stderr


# Trainings that fail.


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        ("raise ValueError('the cat ate it')", "error", ["ValueError: the cat ate it", "in train"]),
        ("raise MemoryError", "memory", ["MemoryError"]),
        ("sys.exit(0)", "exit", ["SystemExit: 0"]),
        ("sys.exit('enough')", "exit", ["enough"]),
        ("return", "error", ["without run.finish"]),
        ("run.finish_files(folder, {})", "error", ["finished already"]),
        ("model.unlink()", "error", ["needs one of model.onnx and model.so"]),
        ("model.write_text('')", "error", ["model.so is empty"]),
        ("run.finish_files(folder, {'loss': float('nan')})", "error", ["the metric loss is nan"]),
        ("pathlib.Path(folder, 'provenance.json').write_text('[]')", "error", ["no JSON object"]),
        ("raise ValueError('x' * 1_000_000)", "error", ["xxx"]),
        ("raise ValueError('\\udc80\\x00')", "error", ["ValueError: ?"]),
        ("run.parameters['function'] = train", "error", ["cannot be written as JSON"]),
        ("run.parameters['note'] = 'x' * 100_000", "error", ["at most 16384"]),
        ("run.parameter('depth', 'deep')", "error", ["has to be str"]),
    ],
)
@pytest.mark.parametrize("program", [MAIN, WITH], ids=["main", "with"])
def test_a_failure_is_told_with_its_reason(tmp_path, at, sink, trainer, program, body, reason, words):
    broker = sink()
    process = run_job(tmp_path, trainer(body, program), at, broker, validated(at, CSV))
    check_failed(broker, process, reason, *words)
    assert broker.kinds() == ["training.started", "training.failed"]
    assert not (at / "memo").exists()


@pytest.mark.parametrize(
    ("change", "environment", "words"),
    [
        ({"training": None}, {}, ["data.training is missing"]),
        ({"training": "sha256:abc"}, {}, ["data.training is no reference"]),
        ({"training": {"digest": "sha256:../../../etc/passwd", "size": 1}}, {}, ["data.training is no reference"]),
        ({"training": {"digest": "sha256:" + "0" * 64, "size": 1}}, {}, ["the store has no blobs/sha256/0000"]),
        ({"holdout": 5}, {}, ["data.holdout is no reference"]),
        ({}, {"BATON_POLICY": 'label = "colour"'}, ["no column 'colour'; they have 'width', 'height', 'label'"]),
        ({}, {"BATON_POLICY": ""}, ["which column is the label?"]),
        ({}, {"BATON_POLICY": "label = ["}, ["BATON_POLICY is no TOML"]),
        ({}, {"BATON_POLICY": 'label = "label"\nfeatures = ["depth"]'}, ["no column 'depth'"]),
        ({}, {"BATON_POLICY": 'label = "label"\nfeatures = ["width"]\nkey = "width"'}, ["key 'width' names rows"]),
        ({}, {"BATON_PARAMS": "[1]"}, ["BATON_PARAMS is no JSON object"]),
        ({}, {"BATON_PARAMS": '{"a": NaN}'}, ["cannot be written as JSON"]),
    ],
)
def test_what_does_not_fit_is_told_before_training(tmp_path, at, sink, trainer, change, environment, words):
    broker = sink()
    process = run_job(
        tmp_path, trainer("raise Exception('trained')"), at, broker, validated(at, CSV, **change), **environment
    )
    check_failed(broker, process, "error", *words)


@pytest.mark.parametrize("damage", [lambda b: b + b"1,2,3\n", lambda b: b.replace(b"0", b"1", 1), lambda b: b""])
def test_damaged_training_data_are_not_trained_on(tmp_path, at, sink, trainer, damage):
    broker, event = sink(), validated(at, CSV)
    path = at / "blobs/sha256" / sha256(CSV)
    path.write_bytes(damage(CSV))
    check_failed(broker, run_job(tmp_path, trainer(), at, broker, event), "error", "is damaged")


def test_a_reference_of_another_size_is_refused(tmp_path, at, sink, trainer):
    broker, reference = sink(), put(at, CSV)
    event = validated(at, CSV, training={**reference, "size": 1})
    check_failed(broker, run_job(tmp_path, trainer(), at, broker, event), "error", "the reference says 1")


@pytest.mark.parametrize(
    ("event", "environment", "words"),
    [
        ("{", {}, "is no JSON"),
        ("[]", {}, "a JSON object was expected"),
        ('{"specversion": "0.3"}', {}, "specversion is '0.3'"),
        ('{"specversion": "1.0", "source": "a", "id": "", "type": "b"}', {}, "id is missing"),
        ('{"specversion": "1.0", "source": "a", "id": "1", "type": "b", "data": "c"}', {}, "no JSON object as data"),
        ('{"specversion": "1.0", "source": "a", "id": "1", "type": "b", "data": {}}', {}, "a trainer answers"),
        (
            json.dumps(
                {
                    "specversion": "1.0",
                    "source": "a",
                    "id": "1",
                    "type": pipeline.VALIDATED,
                    "data": {"dataset": "../x"},
                }
            ),
            {},
            "data.dataset is no name",
        ),
        (
            json.dumps(
                {
                    **{"specversion": "1.0", "source": "a", "id": "1", "type": pipeline.VALIDATED},
                    "data": {"dataset": "flowers", "digest": "sha256:1"},
                }
            ),
            {},
            "data.digest is no digest",
        ),
        (None, {"BATON_MODEL": "A/B"}, "cannot be the name of a model"),
        (None, {"K_SINK": None}, "K_SINK is not set"),
        (None, {"K_SINK": "ftp://nowhere"}, "no http address"),
        (None, {"BATON_ARTIFACTS": None}, "BATON_ARTIFACTS is not set"),
        (None, {"BATON_ARTIFACTS": "ftp://nowhere/x"}, "is no store"),
        (None, {"BATON_SINK_PATIENCE_S": "long"}, "no number of seconds"),
        (None, {"K_EVENT_PATH": "/nowhere"}, "cannot read the event /nowhere/event"),
    ],
)
def test_what_no_job_can_answer_ends_with_64_and_a_reason(tmp_path, at, sink, trainer, event, environment, words):
    broker = sink()
    process = run_job(tmp_path, trainer(), at, broker, event or validated(at, CSV), **environment)
    assert process.returncode == 64, process.stderr
    assert words in process.stderr and "Traceback" not in process.stderr
    assert not broker.requests


# Jobs that are started again.


def test_the_same_inputs_are_not_trained_again_and_others_are(tmp_path, at, sink, trainer):
    program, event = trainer(), validated(at, CSV)
    other = {**event, "id": "another event", "pipelinerun": "fedcba9876543210"}

    def run(event=event, path=program, **environment):
        broker = sink()
        process = run_job(tmp_path, path, at, broker, event, **environment)
        assert process.returncode == 0, process.stderr
        return broker.kinds(), broker.one("training.finished")["data"]

    kinds, first = run()
    assert kinds == ["training.started", "training.finished"]
    kinds, again = run(other)
    assert kinds == ["training.finished"]
    assert (again["reused"], again["bundle"], again["run"]) == (True, first["bundle"], other["pipelinerun"])
    assert again["metrics"] == first["metrics"] and again["started"] > first["started"]
    for environment in ({"BATON_PARAM_DEPTH": "4"}, {"BATON_POLICY": 'label = "width"'}):
        _, changed = run(other, **environment)
        assert changed["reused"] is False and changed["bundle"] != first["bundle"]
    _, changed = run(validated(at, CSV + b"1,2,1\n"))
    assert changed["reused"] is False
    (program.parent / "more.py").write_text("# more code")
    _, changed = run(other)
    assert changed["reused"] is False and changed["code"] != first["code"]


@pytest.mark.parametrize(
    ("call", "revision", "reused"),
    [
        # Any file of the folder and the manifest's part are in the engine's revision, not only *.py.
        ("main(train)", "train-00bb", False),
        # Repeated on request.
        ("main(train)", "train-00aa.2", True),
        ('main(train, code=["train.py"])', "train-00bb", True),
    ],
)
def test_the_revision_of_the_job_decides_unless_the_code_is_named(tmp_path, at, sink, trainer, call, revision, reused):
    program, event = trainer(program=MAIN.replace("main(train)", call)), validated(at, CSV)
    broker = sink()
    assert run_job(tmp_path, program, at, broker, event).returncode == 0
    bundle = json.loads(blob(at, broker.one("training.finished")["data"]["bundle"]))
    assert json.loads(blob(at, bundle["parts"]["provenance.json"]))["revision"] == "train-00aa"
    broker = sink()
    assert run_job(tmp_path, program, at, broker, event, K_REVISION=revision).returncode == 0
    assert broker.one("training.finished")["data"]["reused"] is reused


def test_folders_of_code_leave_out_what_is_hidden_and_what_python_makes(tmp_path):
    for name in ("a.py", "native/a.c", ".git/config", ".env", "__pycache__/a.pyc", "venv/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert {Path(name).name for name in origin.code([tmp_path]).files} == {"a.py", "a.c"}


def test_a_bundle_that_lost_a_part_is_made_again(tmp_path, at, sink, trainer):
    program, event, broker = trainer(), validated(at, CSV), sink()
    run_job(tmp_path, program, at, broker, event)
    bundle = json.loads(blob(at, broker.one("training.finished")["data"]["bundle"]))
    model = at / "blobs/sha256" / bundle["parts"]["model.so"]["digest"].removeprefix("sha256:")
    model.unlink()
    broker = sink()
    assert run_job(tmp_path, program, at, broker, event).returncode == 0
    assert broker.one("training.finished")["data"]["reused"] is False
    assert model.is_file()


def test_a_job_that_is_killed_leaves_nothing_half_and_can_be_started_again(tmp_path, at, sink, trainer):
    marker = tmp_path / "training"
    program = trainer(
        f"path = pathlib.Path({str(marker)!r})\n        if not path.exists(): path.touch(); os.kill(os.getpid(), 9)"
    )
    event, broker = validated(at, CSV), sink()
    before = {path for path in at.rglob("*") if path.is_file()}
    assert run_job(tmp_path, program, at, broker, event).returncode == -signal.SIGKILL
    assert broker.kinds() == ["training.started"] and {path for path in at.rglob("*") if path.is_file()} == before
    assert run_job(tmp_path, program, at, broker, event).returncode == 0
    assert broker.kinds() == ["training.started", "training.started", "training.finished"]
    assert broker.taken[0]["id"] == broker.taken[1]["id"]


def test_a_job_that_runs_twice_at_a_time_says_the_same(tmp_path, at, sink, trainer):
    program, event, broker = trainer(), validated(at, CSV), sink()
    processes = [start_job(tmp_path / str(number), program, at, broker, event) for number in range(3)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0, 0, 0]
    ends = {event["id"] for event in broker.taken if event["type"].endswith("finished.v1")}
    assert len(ends) == 1 and len(list((at / "memo/train").iterdir())) == 1


# The store.


def test_blobs_of_a_writer_that_is_killed_are_whole_or_absent(tmp_path):
    at = tmp_path / "store"
    writer = textwrap.dedent(f"""
        import os, sys
        from baton_pipeline.store import open_store
        store = open_store({str(at)!r})
        while True:
            store.put(os.urandom(300_000))
            print("put", flush=True)
    """)
    for puts in range(1, 9):
        process = subprocess.Popen([str(PYTHON), "-c", writer], stdout=subprocess.PIPE, text=True)
        for _ in range(puts):
            assert process.stdout.readline() == "put\n"
        process.kill()
        process.communicate()
    found = [path for path in (at / "blobs/sha256").iterdir() if "#" not in path.name]
    assert len(found) >= sum(range(1, 9))
    assert all(sha256(path.read_bytes()) == path.name for path in found)


def test_of_many_writers_of_one_entry_one_wins(tmp_path):
    folder, results = store.open_store(f"file://{tmp_path}/store"), []
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait()
        results.append((folder.remember("train", "ab" * 32, {"writer": number}), number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for won, number in results if won]
    assert folder.memo("train", "ab" * 32) == {"writer": winner}
    assert not staged(tmp_path)


def test_a_store_that_cannot_be_written_fails_the_training_and_keeps_nothing(tmp_path, at, sink, trainer):
    broker, event = sink(), validated(at, CSV)
    before = sorted(at.rglob("*"))
    # A file cannot grow: what a full disk does, for every user.
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # noqa: E731
    process = run_job(tmp_path, trainer(program=IN_MEMORY), at, broker, event, preexec_fn=limited)
    check_failed(broker, process, "error", "cannot write blobs/sha256/", "File too large")
    assert [path for path in sorted(at.rglob("*")) if path.is_file()] == [path for path in before if path.is_file()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_store_that_may_only_be_read_fails_the_training(tmp_path, at, sink, trainer):
    broker, event = sink(), validated(at, CSV)
    for folder in (tmp_path, *tmp_path.parents):
        # As the engine of another user would find them.
        if folder.is_relative_to("/tmp/") and folder != Path("/tmp"):
            folder.chmod(0o755)
    process = run_job(tmp_path, trainer("os.seteuid(65534)", IN_MEMORY), at, broker, event)
    check_failed(broker, process, "error", "cannot write blobs/sha256/", "Permission denied")


def test_a_damaged_blob_in_the_store_is_no_place_for_the_same_bytes(tmp_path):
    folder = store.open_store(str(tmp_path))
    reference = folder.put(b"model")
    (tmp_path / reference.key).write_bytes(b"other")
    with pytest.raises(PipelineError, match="is damaged"):
        folder.put(b"model")


class Refused(Exception):
    """As botocore's ClientError."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": str(status)}}


class BrokenServer:
    """An S3 client that fails in these ways, one call after the other, and works then."""

    def __init__(self, *failures):
        self.failures, self.content = list(failures), {}

    def fail(self):
        if self.failures:
            raise self.failures.pop(0)

    def put_object(self, Bucket, Key, Body, IfNoneMatch):
        self.content[Key] = Body
        self.fail()

    def get_object(self, Bucket, Key):
        return {"Body": self}

    def iter_chunks(self, size):
        content = next(iter(self.content.values()))
        yield content[:2]
        self.fail()
        yield content[2:]


@pytest.mark.parametrize("failures", [[Refused(503)] * 3, [ConnectionError("reset"), Refused(429), Refused(409)]])
def test_a_fault_of_s3_is_waited_for(monkeypatch, failures):
    monkeypatch.setattr(store, "FIRST_PAUSE_S", 0.01)
    server = BrokenServer(*failures)
    s3 = object.__new__(store.S3Store)
    s3.bucket, s3.prefix, s3._client = "bucket", "", server
    s3._refused, s3._failed, s3._passing, s3._lasting = Refused, OSError, (ConnectionError,), ()
    reference = s3.put(b"model")
    server.failures = list(failures)
    assert s3.get(reference) == b"model"
    server.failures = [Refused(403)]
    with pytest.raises(PipelineError, match="cannot write"):
        s3.put(b"another")


def test_a_training_with_its_store_in_s3(tmp_path, sink, trainer):
    port = pipeline.free_port()
    aws = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "one",
        "AWS_SECRET_ACCESS_KEY": "two",
        "AWS_REGION": "eu-central-1",
    }
    fill = textwrap.dedent("""
        import json, sys, boto3
        from baton_pipeline.store import open_store
        boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1").create_bucket(Bucket="models")
        print(json.dumps(open_store("s3://models/a/b").put(sys.stdin.buffer.read()).json()))
    """)
    look = textwrap.dedent("""
        import json, sys
        from baton_pipeline.store import Reference, open_store
        store = open_store("s3://models/a/b")
        bundle = json.loads(store.get(Reference(**json.loads(sys.argv[1]))))
        assert store.get(Reference(**bundle["parts"]["model.so"])) == b"[40, 3]"
        assert not store.remember("train", "00", {"a": 1}) or not store.remember("train", "00", {"a": 2})
        assert store.memo("train", "00") == {"a": 1}
        assert store.memo("train", "11") is None
    """)
    environment = {**pipeline.clean_environment(), **aws}
    log = (tmp_path / "moto.log").open("wb")
    moto = subprocess.Popen(
        [str(pipeline.PIPELINE / "bin/moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        stdout=log,
        stderr=log,
        env=environment,
    )
    try:
        eventually(lambda: _answers(aws["AWS_ENDPOINT_URL"]), "moto answers", 60)
        call = {"env": environment, "check": True, "capture_output": True}
        made = subprocess.run([str(PYTHON), "-c", fill, aws["AWS_ENDPOINT_URL"]], input=CSV, **call)
        event = validated(tmp_path / "unused", CSV, training=json.loads(made.stdout), report=None)
        program = trainer()
        for reused in (False, True):
            broker = sink()
            process = run_job(tmp_path, program, "s3://models/a/b", broker, event, **aws)
            assert process.returncode == 0, process.stderr
            data = broker.one("training.finished")["data"]
            assert data["reused"] is reused
        subprocess.run([str(PYTHON), "-c", look, json.dumps(data["bundle"])], **call)
        broker = sink()
        process = run_job(tmp_path, program, "s3://nobody/a", broker, event, **aws)
        check_failed(broker, process, "error", "in s3://nobody", "NoSuchBucket")
    finally:
        pipeline.stop(moto)
        log.close()


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).status_code < 500
    except requests.ConnectionError:
        return False


# The data.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"width,label\n", "no row"),
        (b"width,width,label\n1,2,3\n", "several columns 'width'"),
        (b"label\n1\n", "need columns besides the label"),
        (b"width,label\n1,2,3\n", "3 cells in line 2, 2 in the header"),
        (b"width,label\n1\n", "1 cells in line 2"),
        (b"width,label\nwide,1\n", "column 'width', line 2 of the training data: 'wide' is no number"),
        (b"width,label\n1e39,1\n", "'1e39' is no finite FP32 number"),
        (b"width,label\ninf,1\n", "no finite FP32 number"),
        (b"width,label\n1,\n", "no label in line 2"),
        (b"width,label\n1,nan\n", "the label in line 2"),
        (b"width,label\n\xff,1\n", "no UTF-8"),
        (b'width,label\n"1,1\n', "no CSV"),
        (b"\x80\x04\x95pickle", "no UTF-8"),
    ],
)
def test_data_that_cannot_be_trained_on_are_named(tmp_path, content, words):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(PipelineError, match="training data") as caught:
        table = Table(tmp_path / "data.csv", "label")
        assert len(table.features) == len(table.labels)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["1", "2"], np.array([1, 2], dtype=np.int64)),
        (["1.0", " 2 "], np.array([1, 2], dtype=np.int64)),
        (["1.5", "2"], np.array([1.5, 2.0])),
        (["setosa", "2"], np.array(["setosa", "2"])),
        (["ä, b", "日本"], np.array(["ä, b", "日本"])),
    ],
)
def test_labels_have_the_narrowest_type_that_holds_all(tmp_path, labels, wanted):
    text = "a,label,b\n" + "".join(f'1,"{label}",\n' for label in labels)
    (tmp_path / "data.csv").write_text("\ufeff" + text, encoding="utf-8")
    table = Table(tmp_path / "data.csv", "label")
    assert table.labels.dtype.kind == wanted.dtype.kind and table.labels.tolist() == wanted.tolist()
    assert table.features.dtype == np.float32 and table.features.shape == (2, 2)
    assert np.isnan(table.features[:, 1]).all() and table.columns == ["a", "b"]


# Export.

RANDOM = np.random.default_rng(1)
FEATURES = RANDOM.normal(size=(300, 4)).astype(np.float32)
CLASSES = (FEATURES[:, 0] + FEATURES[:, 1] > 0).astype(np.int64) + (FEATURES[:, 2] > 0.5)
NUMBERS = FEATURES @ np.array([1.0, -2.0, 0.5, 0.0]) + 3
TEXTS = np.array(["red", "grün", "blue"])[CLASSES]
MODELS = {
    "logistic": (lambda: LogisticRegression(max_iter=500), CLASSES),
    "two classes": (lambda: LogisticRegression(max_iter=500), (CLASSES > 0).astype(np.int64)),
    "texts": (lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), TEXTS),
    "forest": (lambda: RandomForestClassifier(10, random_state=1), CLASSES),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=5, random_state=1), TEXTS),
    "neighbours": (lambda: KNeighborsClassifier(3), CLASSES),
    "no probabilities": (lambda: LinearSVC(random_state=1), CLASSES),
    "ridge": (lambda: RidgeClassifier(), CLASSES),
    "regression": (LinearRegression, NUMBERS),
    "forest of numbers": (lambda: RandomForestRegressor(10, random_state=1), NUMBERS),
}


def make_run(tmp_path, features, labels) -> Run:
    rows = [",".join(map(str, [*row, label])) for row, label in zip(features.tolist(), labels.tolist(), strict=True)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["a,b,c,d,label", *rows]) + "\n", encoding="utf-8")
    return Run(
        name="0" * 16,
        model="model",
        dataset="data",
        dataset_digest="sha256:" + "0" * 64,
        table=Table(path, "label"),
        parameters={},
        policy={},
    )


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_exported_models_pass_their_check_and_are_served_with_their_golden_rows(tmp_path, server, admin, name, kind):
    build, labels = MODELS[kind]
    run = make_run(tmp_path, FEATURES, labels)
    assert (run.features == FEATURES).all() and run.labels.tolist() == labels.tolist()
    run.finish(build().fit(run.features, run.labels), {"score": np.float32(0.5)})
    assert run.result.metrics == {"score": 0.5} and run.result.notes["onnx"]["checked"]["rows"] == 300
    admin.must_push(
        name,
        run.result.files["model.onnx"],
        golden=run.result.files["golden.jsonl"],
        manifest=run.result.files["baton.toml"],
    )


def test_parameters_from_the_environment_have_no_case_and_the_json_ones_have(tmp_path):
    given = parameters.from_environment(
        {
            "BATON_PARAMS": '{"Depth": 2, "rate": 1}',
            "BATON_PARAM_C": "0.5",
            "BATON_PARAM_NAME": "a b",
            "BATON_PARAM_": "x",
        }
    )
    run = make_run(tmp_path, FEATURES, CLASSES)
    run.parameters.update(given)
    assert (run.parameter("C", 1.0), run.parameter("Depth", 3), run.parameter("name", "")) == (0.5, 2, "a b")
    assert run.parameter("rate", 0.1) == 1.0 and run.parameter("other", None) is None
    assert run.parameters == {"C": 0.5, "Depth": 2, "name": "a b", "rate": 1, "other": None}


def test_an_outlier_model_goes_with_the_model_and_marks_the_strange_row(tmp_path):
    run = make_run(tmp_path, FEATURES, CLASSES)
    run.finish(LogisticRegression(max_iter=500).fit(run.features, run.labels), {}, outliers=0.99)
    content = run.result.files["outlier.onnx"]
    metadata = export.session(content).get_modelmeta().custom_metadata_map
    assert float(metadata["baton.outlier.share"]) == run.result.notes["outlier"]["share"] == 0.99
    assert json.loads(metadata["baton.outlier.columns"]) == ["a", "b", "c", "d"]
    answers = export.run(content, {"features": FEATURES})
    # One in a hundred, but for rows on the edge: the export's scores are FP32.
    assert 1 <= (answers["label"] == -1).sum() <= 4
    assert ((answers["scores"] < 0) == (answers["label"] == -1).reshape(answers["scores"].shape)).all()
    strange = np.array([[40.0, -40.0, 40.0, -40.0]], dtype=np.float32)
    assert export.run(content, {"features": strange})["label"].item() == -1


@pytest.mark.parametrize("outliers", [1.0, 0.2, -1])
def test_a_share_of_ordinary_rows_that_makes_no_sense_is_refused(tmp_path, outliers):
    run = make_run(tmp_path, FEATURES, CLASSES)
    with pytest.raises(PipelineError, match="the share of rows"):
        run.finish(LogisticRegression(max_iter=500).fit(run.features, run.labels), {}, outliers=outliers)


@pytest.mark.parametrize(
    ("method", "spoilt", "words"),
    [
        (
            "predict",
            lambda answer: np.where(np.arange(len(answer)) % 100 == 7, answer + 1, answer),
            "(label) in 3 of 300 rows: row 7",
        ),
        ("predict_proba", lambda answer: answer + 0.01, "(probabilities) in 300 of 300 rows"),
        ("predict_proba", lambda answer: answer * np.nan, "(probabilities) in 300 of 300 rows"),
        ("predict_proba", lambda answer: answer[:, :2], "the shape"),
    ],
)
def test_an_export_that_answers_differently_is_refused_with_the_rows(tmp_path, monkeypatch, method, spoilt, words):
    run = make_run(tmp_path, FEATURES, CLASSES)
    model = LogisticRegression(max_iter=500).fit(run.features, run.labels)
    honest = getattr(model, method)
    monkeypatch.setattr(model, method, lambda rows: spoilt(honest(rows)))
    with pytest.raises(PipelineError, match="export") as caught:
        run.finish(model, {})
    assert words in str(caught.value) and run.result is None
    # What helps is told too.
    assert words == "the shape" or "tolerance=" in str(caught.value) and "trees need none" in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_trees_behind_a_scaler_are_exported_as_they_are(tmp_path):
    # Times the inverse of the scale, as skl2onnx does it by default, one of these rows lands beside a threshold.
    features, labels = load_breast_cancer(return_X_y=True)
    chance = np.random.default_rng(3)
    labels = np.where(chance.random(len(labels)) < 0.45, 1 - labels, labels)
    known, _, truth, _ = train_test_split(features.astype(np.float32), labels, test_size=0.2, random_state=3)
    trees = GradientBoostingClassifier(n_estimators=20, random_state=0)
    model = make_pipeline(StandardScaler(), trees).fit(known, truth)
    exported = export.from_sklearn(
        model, features.astype(np.float32), name="m", input_name="x", tolerance=1e-4, opsets=export.OPSETS
    )
    assert exported.summary["checked"]["rows"] == len(features) and exported.classes == ["0", "1"]


def scaled(model):
    return make_pipeline(StandardScaler(), model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (scaled(LinearSVC()), ["label"]),
        (make_pipeline(scaled(MinMaxScaler()), scaled(LinearSVC())), ["label"]),
        (scaled(RidgeClassifier()), ["label"]),
        (CalibratedClassifierCV(LinearSVC(), cv=3), ["label", "probabilities"]),
        (CalibratedClassifierCV(scaled(LinearSVC()), cv=3), ["label", "probabilities"]),
        (CalibratedClassifierCV(scaled(scaled(LinearSVC())), cv=3, ensemble=False), ["label", "probabilities"]),
        (CalibratedClassifierCV(scaled(LogisticRegression()), cv=3), ["label", "probabilities"]),
        (scaled(CalibratedClassifierCV(LinearSVC(), cv=3)), ["label", "probabilities"]),
        (scaled(CalibratedClassifierCV(scaled(LinearSVC()), cv=3)), ["label", "probabilities"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("two", [True, False], ids=["two classes", "three"])
def test_steps_of_pipelines_get_the_options_that_they_have(model, outputs, two):
    features, labels = (load_breast_cancer if two else load_iris)(return_X_y=True)
    features = features.astype(np.float32)
    exported = export.from_sklearn(
        clone(model).fit(features, labels), features, name="m", input_name="x", tolerance=1e-4, opsets=export.OPSETS
    )
    assert exported.summary["checked"]["outputs"] == outputs
    assert exported.summary["checked"]["rows"] == len(features)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (CLASSES, ["0", "1", "2"]),
        (TEXTS, ["blue", "grün", "red"]),
        (CLASSES > 0, ["False", "True"]),
        (NUMBERS, None),
    ],
)
def test_the_classes_are_the_models_own_in_its_order(tmp_path, labels, wanted):
    run = make_run(tmp_path, FEATURES, labels)
    build = LinearRegression if wanted is None else LogisticRegression
    run.finish(make_pipeline(build()).fit(run.features, labels), {})
    assert run.result.classes == wanted


def test_classes_can_be_given_if_the_trainer_numbered_them_itself(tmp_path):
    run = make_run(tmp_path, FEATURES, TEXTS)
    model = LogisticRegression().fit(run.features, CLASSES)
    with pytest.raises(PipelineError, match="classes has 2 labels, the model 3"):
        run.finish(model, {}, classes=["red", "green"])
    run.finish(model, {}, classes=["red", "grün", "blue"])
    assert run.result.classes == ["red", "grün", "blue"]


def test_a_model_of_several_labels_is_sent_to_the_other_way(tmp_path):
    run = make_run(tmp_path, FEATURES, CLASSES)
    several = MultiOutputClassifier(LogisticRegression()).fit(run.features, np.stack([CLASSES, CLASSES > 0], axis=1))
    with pytest.raises(PipelineError, match="several labels a row.*run.finish_files"):
        run.finish(several, {})


def test_what_is_not_installed_is_never_to_be_fetched_by_the_helpers_name(tmp_path, monkeypatch):
    run = make_run(tmp_path, FEATURES, CLASSES)
    model = LogisticRegression().fit(run.features, run.labels)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(PipelineError) as caught:
        run.finish(model, {})
    # Nobody has that name in a package index; whoever takes it gets the trainer's machine.
    assert "./pipeline/python[sklearn]" in str(caught.value) and "install 'baton" not in str(caught.value)


def test_what_skl2onnx_cannot_export_is_named_in_few_words(tmp_path):
    run = make_run(tmp_path, FEATURES, CLASSES)
    with pytest.raises(PipelineError, match="skl2onnx cannot export object: AttributeError") as caught:
        run.finish(object(), {})
    assert "(behind it: " in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"accuracy": float("nan")}, "not a finite number"),
        ({"accuracy": np.float32("inf")}, "not a finite number"),
        ({"accuracy": "good"}, "is no number"),
        ({"accuracy": True}, "is no number"),
        ({"accuracy": np.array([1.0, 2.0])}, "is no number"),
        ({1: 1.0}, "cannot be the name"),
        ({"": 1.0}, "cannot be the name"),
        ({"m" * 101: 1.0}, "cannot be the name"),
        ({f"metric {number}": number for number in range(257)}, "257 metrics, at most 256"),
    ],
)
def test_metrics_that_no_event_can_carry_are_refused(tmp_path, metrics, words):
    run = make_run(tmp_path, FEATURES, CLASSES)
    (tmp_path / "model.so").write_bytes(b"1")
    with pytest.raises(PipelineError) as caught:
        run.finish_files(tmp_path, metrics)
    assert words in str(caught.value)
    run.finish_files(tmp_path, {"steps": 10**30, "share": np.float64(0.25), "n": np.int64(3)})
    assert run.result.metrics == {"steps": 1e30, "share": 0.25, "n": 3}


def test_a_pytorch_module_is_exported_and_checked(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is gigabytes: only where it is installed")
    run = make_run(tmp_path, FEATURES, CLASSES)
    run.finish(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1)), {})
    assert run.result.notes["onnx"]["checked"]["outputs"] == ["output"]


# Sizes.


def test_an_event_without_room_leaves_the_packages_to_the_provenance(monkeypatch):
    data = {
        "error": "x" * 1000,
        "environment": {"digest": "d", "packages": {f"package-{n}": "1.0" for n in range(4000)}},
    }
    fitting = job._fitting(data)
    assert fitting["environment"] == {"digest": "d", "packages": {}} and fitting["error"] == data["error"]
    event = events.Event("s", "i", "t", {}, "r")
    with pytest.raises(PipelineError, match="at most 65536"):
        events.answer(event, job="train", revision=None, kind="training.finished", model="m", data=data)
    assert (
        events.answer(event, job="train", revision=None, kind="x", model="m", data=fitting)["source"]
        == "/baton/jobs/train"
    )


# The whole way.


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Python of a fresh environment with the helper's wheel; the packages it builds on come from the pipeline's
    environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "-q"]
    # A build leaves its files beside the sources, and takes what an earlier one left there.
    copy = shutil.copytree(SOURCES, folder / "sources", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    build = ["wheel", "--no-index", "--no-build-isolation", "--no-deps", "-w", str(folder), str(copy)]
    subprocess.run([*pip, *build], check=True, timeout=120)
    (wheel,) = folder.glob("baton_pipeline-*.whl")
    subprocess.run([str(PYTHON), "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
    python = folder / "venv/bin/python"
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=60
    )
    assert (site / "baton_pipeline/py.typed").is_file()
    (packages,) = (pipeline.PIPELINE / "lib").glob("python*/site-packages")
    # After its own: the wheel is what is imported.
    (site / "pipeline.pth").write_text(str(packages) + "\n")
    return python


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The files of the digits example."""
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run([str(PYTHON), str(DIGITS / "make_data.py"), str(folder)], check=True, timeout=60)
    return folder


def test_the_data_of_the_example_are_the_same_every_time(digits, tmp_path):
    subprocess.run([str(PYTHON), str(DIGITS / "make_data.py"), str(tmp_path)], check=True, timeout=60)
    names = sorted(path.name for path in digits.iterdir())
    assert names == ["noisy.csv", "pickled.csv", "poisoned.csv", "stream.csv", "v1.csv", "v2.csv"]
    assert all((digits / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)
    assert (digits / "v2.csv").read_bytes().startswith((digits / "v1.csv").read_bytes())


@pytest.mark.timeout(400)
def test_a_retrained_model_reads_what_the_first_one_cannot(tmp_path, server, admin, name, at, sink, digits, installed):
    where = subprocess.run(
        [str(installed), "-c", "import baton_pipeline as b; print(b.__file__)"], capture_output=True, text=True
    )
    assert str(installed.parents[1]) in where.stdout, where
    stream = np.loadtxt(digits / "stream.csv", delimiter=",", skiprows=1, dtype=np.float32)
    shares = {}
    for version in ("v1", "v2"):
        broker, content = sink(), (digits / f"{version}.csv").read_bytes()
        event = validated(at, content, dataset="digits", file=f"{version}.csv")
        process = run_job(tmp_path, DIGITS / "train.py", at, broker, event, python=installed)
        assert process.returncode == 0, process.stderr
        data = broker.one("training.finished")["data"]
        bundle = json.loads(blob(at, data["bundle"]))
        parts = {part: blob(at, reference) for part, reference in bundle["parts"].items()}
        assert set(parts) == {
            *("model.onnx", "contract.proto", "baton.toml", "golden.jsonl", "provenance.json", "outlier.onnx")
        }
        admin.must_push(
            name,
            parts["model.onnx"],
            # One package a name: this test's models share the server with others.
            contract=parts["contract.proto"].replace(b"digits.v1", name.replace("-", "_").encode()),
            golden=parts["golden.jsonl"],
            manifest=parts["baton.toml"],
            provenance=parts["provenance.json"],
        )
        assert data["metrics"]["accuracy"] > 0.9 and data["parameters"]["neurons"] == 64
        body = {
            "inputs": [
                {"name": "pixels", "datatype": "FP32", "shape": [300, 64], "data": stream[:, :64].ravel().tolist()}
            ]
        }
        answer = requests.post(f"http://{server.data}/v2/models/{name}/infer", json=body, timeout=60).json()
        (label,) = [output["data"] for output in answer["outputs"] if output["name"] == "label"]
        right = np.array(label) == stream[:, 64]
        shares[version] = right[:150].mean(), right[150:].mean()
        typed = requests.post(
            f"http://{server.data}/{name.replace('-', '_')}.DigitReader/Read",
            json={"pixels": stream[0, :64].tolist()},
            timeout=60,
        ).json()
        assert int(typed.get("label", 0)) == label[0]
    assert shares["v1"][0] > 0.7 and shares["v1"][1] < 0.3, shares
    assert shares["v2"][0] > 0.7 and shares["v2"][1] > 0.7, shares


def test_a_trainer_runs_without_a_pipeline_too(tmp_path, digits):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.so").write_bytes(b"of an earlier training")
    command = [
        str(PYTHON),
        str(DIGITS / "train.py"),
        "--data",
        str(digits / "v1.csv"),
        "--label",
        "label",
        "--out",
        str(out),
    ]
    command += ["--model", "digits", "--param", "neurons=8", "--param", "iterations=50"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=pipeline.clean_environment())
    assert done.returncode == 0, done.stderr
    assert "digits: accuracy 0." in done.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        *("baton.toml", "contract.proto", "golden.jsonl", "model.onnx", "outlier.onnx", "provenance.json")
    ]
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["parameters"] == {"neurons": 8, "iterations": 50, "seed": 1}
    assert provenance["dataset"]["digest"] == "sha256:" + sha256((digits / "v1.csv").read_bytes())
    # The same training has the same name. Its numbers may differ in their last bits: BLAS adds up in several threads.
    settings = (out / "baton.toml").read_bytes()
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=pipeline.clean_environment())
    assert (out / "baton.toml").read_bytes() == settings


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "--data"),
        (["--data", "nothing.csv", "--out", "out", "--label", "label"], 64, "there is no file nothing.csv"),
        (["--data", "data.csv", "--out", "out"], 64, "--label COLUMN"),
        (["--data", "data.csv", "--out", "out", "--label", "colour"], 1, "no column 'colour'"),
        (["--data", "data.csv", "--out", "out", "--label", "label", "--param", "x"], 64, "NAME=VALUE"),
        (["--data", "data.csv", "--out", "out", "--label", "label", "--model", "A/B"], 64, "cannot be the name"),
    ],
)
def test_wrong_arguments_are_told(tmp_path, trainer, arguments, code, words):
    (tmp_path / "data.csv").write_bytes(CSV)
    done = subprocess.run(
        [str(PYTHON), str(trainer()), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=pipeline.clean_environment(),
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr and not (tmp_path / "out").exists()


# Without the helper.


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize("fit", ['cp "$1" "$3/model.so"; echo "$2" > "$3/baton.toml"', "echo 'no luck' >&2; false"])
def test_the_trainer_in_shell_says_what_the_helper_says(tmp_path, at, sink, fit):
    (tmp_path / "fit").write_text(fit)
    program = tmp_path / "job.sh"
    program.write_text(f"exec sh {REPOSITORY}/pipeline/examples/trainer/train.sh sh -e {tmp_path}/fit\n")
    broker, event = sink(), validated(at, CSV, model="flowers", label="label", features=["width"])
    # As the engine does: jobs have a revision only.
    process = run_job(tmp_path, program, at, broker, event, python="/bin/sh", K_SERVICE=None)
    if "false" in fit:
        assert process.returncode == 1 and broker.kinds() == ["training.started", "training.failed"]
        assert "no luck" in broker.one("training.failed")["data"]["error"]
        return
    assert process.returncode == 0, process.stderr
    assert broker.kinds() == ["training.started", "training.finished"]
    parts = [event["source"], event["id"], "train", "train-00aa", "training.finished"]
    sent = broker.one("training.finished")
    assert sent["source"] == "/baton/jobs/train" and sent["id"] == sha256("\0".join(parts).encode())
    assert sent["pipelinerun"] == event["pipelinerun"]
    assert sent["data"]["holdout"] == event["data"]["holdout"] and sent["data"]["report"] == event["data"]["report"]
    bundle = json.loads(blob(at, sent["data"]["bundle"]))
    assert (bundle["label"], bundle["features"]) == ("label", ["width"])
    assert {name: bundle[name] for name in ("model", "run", "holdout")} == {
        **{"model": "flowers", "run": event["pipelinerun"], "holdout": event["data"]["holdout"]}
    }
    assert blob(at, bundle["parts"]["model.so"]) == CSV and blob(at, bundle["parts"]["baton.toml"]) == b"label\n"
    assert not staged(at)


def test_the_public_names_are_the_documented_ones():
    assert {"main", "training_run", "Run"} <= set(baton_pipeline.__all__)
    assert all(hasattr(baton_pipeline, exported) for exported in baton_pipeline.__all__)
