"""The request log: what is kept of calls by every protocol, what is masked, and the way from there to the next dataset."""

import csv
import hashlib
import http.server
import io
import json
import math
import resource
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from support import models
from support.admin import Admin, check_error
from support.runner import BINARY, Runner, eventually
from support.typed import Service, baton, contract, package

IRIS = load_iris()
X = IRIS.data.astype(np.float32)
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
ID = "baton-request-id"
TYPED = """service Iris {
  rpc Classify(Features) returns (Prediction);
  rpc ClassifyBatch(Batch) returns (Predictions);
  rpc ClassifyStream(stream Features) returns (stream Prediction);
}
message Features { float sepal_length = 1; float sepal_width = 2; float petal_length = 3; float petal_width = 4; }
message Prediction { int64 label = 1; repeated float probabilities = 2; }
message Batch { repeated Features rows = 1; }
message Predictions { repeated Prediction rows = 1; }
"""
ALL = b"[request_log]\nsample = 1\n"

pytestmark = pytest.mark.filterwarnings("ignore")


def iris_model(rows=slice(None), seed_rows=3) -> bytes:
    model = LogisticRegression(max_iter=500).fit(X[rows], IRIS.target[rows])
    return to_onnx(model, X[:1], options={"zipmap": False}).SerializeToString()


@pytest.fixture(scope="module")
def iris() -> bytes:
    return iris_model()


@pytest.fixture
def logged(start, tmp_path):
    """A server with a request log: `logged(*arguments) -> (server, admin)`."""

    def begin(*arguments):
        runner = start("--request-log", str(tmp_path / "log"), *arguments)
        return runner, Admin(runner.admin)

    return begin


@pytest.fixture
def lines(tmp_path):
    """The logged rows of a model, once there are `count` of them."""

    def read(model: str, count: int) -> list[dict]:
        folder = tmp_path / "log" / model

        def now() -> list[dict]:
            whole = []
            for path in sorted(folder.glob("*.jsonl*")):
                text = path.read_text()
                whole += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
            return whole

        eventually(lambda: len(now()) >= count, f"{count} rows of {model}", 20)
        assert len(now()) == count
        return now()

    return read


def metric(server, result: str) -> float:
    for line in requests.get(f"http://{server.admin}/metrics", timeout=10).text.splitlines():
        if line.startswith(f'baton_request_log_rows_total{{result="{result}"}}'):
            return float(line.rsplit(" ", 1)[1])
    return math.nan


def infer(server, model: str, row, request_id: str | None = None, headers=None) -> requests.Response:
    rows = np.atleast_2d(np.asarray(row, dtype=np.float32))
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}]}
    if request_id is not None:
        body["id"] = request_id
    response = requests.post(f"http://{server.data}/v2/models/{model}/infer", json=body, headers=headers, timeout=30)
    assert response.status_code == 200, response.text
    return response


def identity(line: dict) -> tuple:
    return line["model"], line["version"], line["digest"]


def features(line: dict) -> list[float]:
    assert list(line["inputs"]) == list(FIELDS), line
    return [line["inputs"][field] for field in FIELDS]


# What is kept.


def test_calls_by_every_protocol_are_logged_as_they_were_sent_and_answered(logged, iris, lines):
    server, admin = logged()
    mine = package()
    pushed = admin.must_push("iris", iris, contract=contract(TYPED, mine), manifest=ALL)
    service = Service(server, "iris", mine)
    rows = X[::17][:8].astype(float)
    answers = {}  # (id, row) -> label, as the caller saw it
    sent = {}

    response = infer(server, "iris", rows[0], "rest")
    assert response.headers[ID] == response.json()["parameters"][ID] == response.json()["id"] == "rest"
    sent["rest", 0], answers["rest", 0] = rows[0], response.json()["outputs"][0]["data"][0]

    response = infer(server, "iris", rows[:3])
    batch = response.headers[ID]
    assert "id" not in response.json() and len(batch) == 36
    for row in range(3):
        sent[batch, row], answers[batch, row] = rows[row], response.json()["outputs"][0]["data"][row]

    assert infer(server, "iris", rows[1], headers={ID: "by-header"}).headers[ID] == "by-header"
    sent["by-header", 0], answers["by-header", 0] = rows[1], infer(server, "iris", rows[1], "again").json()["outputs"][0]["data"][0]
    sent["again", 0], answers["again", 0] = rows[1], answers["by-header", 0]

    for module, request_id in ((triton_http, "triton-http"), (triton_grpc, "Zürich")):
        with module.InferenceServerClient(server.data) as client:
            tensor = module.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(X[:1])
            answer = client.infer("iris", [tensor], request_id=request_id)
            sent[request_id, 0], answers[request_id, 0] = X[0].astype(float), int(answer.as_numpy("label")[0])

    with triton_grpc.InferenceServerClient(server.data) as client:
        tensor = triton_grpc.InferInput("X", [1, 4], "FP32")
        tensor.set_data_from_numpy(X[60:61])
        results, done = [], threading.Event()

        def take(result, error):
            results.append((result, error))
            len(results) == 3 and done.set()

        client.start_stream(take, headers={ID: "stream"})
        for own in ("", "own", ""):
            client.async_stream_infer("iris", [tensor], request_id=own)
        assert done.wait(30)
        client.stop_stream()
        for (result, error), expected in zip(results, ("stream/0", "own", "stream/2"), strict=True):
            assert error is None and result.get_response().parameters[ID].string_param == expected
            sent[expected, 0], answers[expected, 0] = X[60].astype(float), int(result.as_numpy("label")[0])

    def message(row):
        return dict(zip(FIELDS, map(float, row), strict=True))

    response = service.post_json("Classify", message(rows[2]), **{ID: "typed-json"})
    assert response.headers[ID] == "typed-json"
    sent["typed-json", 0], answers["typed-json", 0] = rows[2], int(response.json().get("label", 0))

    response = service.post_json("ClassifyBatch", {"rows": [message(row) for row in rows[3:5]]})
    for row in range(2):
        at = response.headers[ID], row
        sent[at], answers[at] = rows[3 + row], int(response.json()["rows"][row].get("label", 0))

    call = service.reflected_call("ClassifyStream")
    messages = [service._message("ClassifyStream", message(row)) for row in rows[5:7]]
    stream = call(iter(messages), metadata=[(ID, "typed-stream")], timeout=30)
    assert dict(stream.initial_metadata())[ID] == "typed-stream"
    for number, answer in enumerate(stream):
        sent[f"typed-stream/{number}", 0], answers[f"typed-stream/{number}", 0] = rows[5 + number], answer.label

    table = "\n".join([",".join(FIELDS), *(",".join(map(str, row)) for row in X[np.arange(1100) % 150])]) + "\n"
    response = service.post("Classify", table.encode(), "text/csv", **{ID: "file"})
    assert response.status_code == 200 and response.headers[ID] == "file"
    for row, answer in enumerate(csv.DictReader(io.StringIO(response.text))):
        sent["file", row], answers["file", row] = X[row % 150].astype(float), int(answer["label"])

    found = lines("iris", len(sent))
    assert {(line["id"], line["row"]) for line in found} == set(sent)
    for line in found:
        at = line["id"], line["row"]
        assert identity(line) == ("iris", str(pushed["version"]), pushed["digest"])
        assert np.allclose(features(line), sent[at], rtol=1e-6), (line, sent[at])
        assert line["outputs"]["label"] == answers[at], at
        assert len(line["outputs"]["probabilities"]) == 3 and line["time"].endswith("Z")
    assert {line["rows"] for line in found if line["id"] == "file"} == {None}
    assert {line["rows"] for line in found if line["id"] == batch} == {3}
    assert metric(server, "written") == len(sent) and metric(server, "dropped") == metric(server, "failed") == 0


def test_without_the_servers_word_or_the_bundles_nothing_is_logged(start, logged, iris, tmp_path):
    server, admin = logged()
    admin.must_push("iris", iris)
    response = infer(server, "iris", X[0], "me")
    assert ID not in response.headers and ID not in response.json()["parameters"]
    assert server.stop() == 0
    assert [path.name for path in (tmp_path / "log").rglob("*")] == [".lock"]

    server = start()
    pushed = Admin(server.admin).must_push("other", iris, manifest=ALL)
    assert any("--request-log" in warning for warning in pushed["warnings"]), pushed
    assert ID not in infer(server, "other", X[0], "me").headers
    assert math.isnan(metric(server, "written"))


def test_golden_rows_warm_ups_trials_and_refused_calls_are_not_logged(logged, iris, lines):
    server, admin = logged()
    golden = json.dumps({"inputs": {"X": X[:1].tolist()}, "outputs": {"label": [int(IRIS.target[0])]}}) + "\n"
    admin.must_push("iris", iris, manifest=ALL, golden=golden.encode())
    files = {"input": ("input.json", json.dumps({"rows": [{"x": [1, 2, 3, 4]}]}).encode()), "manifest": ("manifest", ALL)}
    tried = admin.call("POST", "/v1/try", params={"model": "iris"}, files=files)
    assert tried.status_code == 200, tried.text
    wrong = requests.post(f"http://{server.data}/v2/models/iris/infer", json={"inputs": []}, timeout=10)
    assert wrong.status_code == 400
    infer(server, "iris", X[0], "the only one")
    assert [line["id"] for line in lines("iris", 1)] == ["the only one"]


def test_ids_that_cannot_be_taken_are_replaced_and_the_answer_says_by_what(logged, iris, lines):
    server, admin = logged()
    admin.must_push("iris", iris, manifest=ALL)
    given = ["x" * 257, "", "line\nbreak", "x" * 256, "日本"]
    answered = []
    for request_id in given:
        response = infer(server, "iris", X[0], request_id)
        assert response.json()["id"] == request_id, "the protocol's own id is echoed in any case"
        answered.append(response.json()["parameters"][ID])
        assert response.headers.get(ID) == (answered[-1] if answered[-1].isascii() else None)
    assert [len(one) for one in answered[:3]] == [36, 36, 36] and answered[3:] == given[3:]
    assert [line["id"] for line in lines("iris", 5)] == answered


# What is masked.


def test_masked_values_are_in_no_byte_of_any_file(logged, iris, lines, tmp_path):
    salt = tmp_path / "salt"
    salt.write_text("a secret of the operator\n")
    server, admin = logged("--request-log-salt-file", str(salt))
    manifest = b"""[request_log]
sample = 1
mask = { sepal_length = "remove", sepal_width = "hash", petal_length = "redact", probabilities = "remove" }
"""
    mine = package()
    admin.must_push("iris", iris, contract=contract(TYPED, mine), manifest=manifest)
    service = Service(server, "iris", mine)
    secrets = {"sepal_length": 7654.25, "sepal_width": 8765.25, "petal_length": 9876.25, "petal_width": 1.5}
    row = [secrets[field] for field in FIELDS]
    infer(server, "iris", row, "oip")
    with triton_grpc.InferenceServerClient(server.data) as client:
        tensor = triton_grpc.InferInput("X", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([row], dtype=np.float32))
        client.infer("iris", [tensor], request_id="grpc")
    service.json("Classify", secrets)
    service.json("ClassifyBatch", {"rows": [secrets]})
    service.csv("Classify", ",".join(FIELDS) + "\n" + ",".join(map(str, row)) + "\n")

    digest = hashlib.sha256(b"a secret of the operator" + b"8765.25").hexdigest()
    for line in lines("iris", 5):
        assert line["inputs"] == {"sepal_width": digest, "petal_length": "[redacted]", "petal_width": 1.5}
        assert list(line["outputs"]) == ["label"]
        assert line["masked"] == {
            "petal_length": "redact", "probabilities": "remove", "sepal_length": "remove", "sepal_width": "hash",
        }  # fmt: skip
    assert server.stop() == 0
    for path in (path for path in (tmp_path / "log").rglob("*") if path.is_file()):
        content = path.read_bytes()
        for secret in (b"7654", b"8765", b"9876", b"a secret of"):
            assert secret not in content, (path, secret)
        assert path.stat().st_mode & 0o077 == 0, "readable by its owner alone"


def test_texts_are_masked_however_long_they_are(logged, lines, tmp_path):
    salt = tmp_path / "salt"
    salt.write_bytes(b"0123456789abcdef")
    server, admin = logged("--request-log-salt-file", str(salt))
    manifest = b'[request_log]\nsample = 1\nmask = { A = "hash", A_OUT = "remove", B_OUT = "redact" }\n'
    admin.must_push("text", models.simple_text(), manifest=manifest)
    with triton_http.InferenceServerClient(server.data) as client:
        tensors = []
        for name, text in (("A", "geheim-ü"), ("B", "open")):
            tensor = triton_http.InferInput(name, [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=object), binary_data=True)
            tensors.append(tensor)
        client.infer("text", tensors)
    (line,) = lines("text", 1)
    text = json.dumps(line, ensure_ascii=False)
    assert "geheim" not in text and "open" in text, line
    # A list of texts is hashed as it would stand in the log.
    assert hashlib.sha256(b"0123456789abcdef" + '["geheim-ü"]'.encode()).hexdigest() in line["inputs"].values(), line


def test_wrong_names_and_missing_secrets_are_refused_at_push(logged, iris):
    server, admin = logged()
    for section, code, status, text in [
        ('mask = { age = "remove" }', "BAD_MANIFEST", 400, "age"),
        ('mask = { X = "hide" }', "BAD_MANIFEST", 400, "mask"),
        ('inputs = ["label"]', "BAD_MANIFEST", 400, "label"),
        ('outputs = ["X"]', "BAD_MANIFEST", 400, "X"),
        ('mask = { X = "hash" }', "REQUEST_LOG_SALT", 422, "--request-log-salt-file"),
        ("max_row_bytes = 10", "BAD_MANIFEST", 400, "max_row_bytes"),
    ]:
        manifest = f"[request_log]\nsample = 1\n{section}\n".encode()
        body = check_error(admin.push("iris", iris, manifest=manifest), status, code)
        assert text in body["error"], body
    for sample in ("-0.1", "1.1", "nan", '"all"'):
        check_error(admin.push("iris", iris, manifest=f"[request_log]\nsample = {sample}".encode()), 400, "BAD_MANIFEST")
    assert admin.get("/v1/models/iris").status_code == 404, "nothing of it is there"


def test_a_server_that_lost_its_secret_serves_and_does_not_log(logged, iris, tmp_path):
    salt = tmp_path / "salt"
    salt.write_bytes(b"0123456789abcdef")
    server, admin = logged("--request-log-salt-file", str(salt))
    admin.must_push("iris", iris, manifest=b'[request_log]\nsample = 1\nmask = { X = "hash" }\n')
    assert server.stop() == 0
    server, admin = logged()
    assert ID not in infer(server, "iris", X[0]).headers
    assert "REQUEST_LOG_SALT" in server.log
    assert not (tmp_path / "log" / "iris").exists()


def test_settings_that_make_no_sense_end_the_start_with_a_line(tmp_path):
    short = tmp_path / "short"
    short.write_text("short")
    log = ("--request-log", str(tmp_path / "log"))
    for arguments, text in [
        ((*log, "--request-log-salt-file", str(short)), "16 bytes"),
        ((*log, "--request-log-salt-file", str(tmp_path / "missing")), "--request-log-salt-file"),
        (("--request-log-salt-file", str(short)), "--request-log"),
        ((*log, "--request-log-max-bytes", "1000"), "at least"),
    ]:
        command = [BINARY, "serve", "--store", str(tmp_path / "store"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
        assert ended.returncode == 64 and text in ended.stderr, (arguments, ended)


# The share.


def test_the_share_is_as_asked_and_a_name_meets_one_choice(logged, iris, lines, tmp_path):
    server, admin = logged()
    admin.must_push("iris", iris, manifest=b"[request_log]\nsample = 0.1\n")
    calls = 5_000
    with triton_grpc.InferenceServerClient(server.data) as client:
        tensor = triton_grpc.InferInput("X", [1, 4], "FP32")
        tensor.set_data_from_numpy(X[:1])

        def call(number):
            client.infer("iris", [tensor], request_id=f"request-{number}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(call, range(calls)))
        # SHA-256 of the name, its first 53 bits as a share.
        chosen = [
            number
            for number in range(calls)
            if (int.from_bytes(hashlib.sha256(f"request-{number}".encode()).digest()[:8], "big") >> 11) / 2**53 < 0.1
        ]
        expected, deviation = calls * 0.1, math.sqrt(calls * 0.1 * 0.9)
        assert abs(len(chosen) - expected) < 4 * deviation
        assert {line["id"] for line in lines("iris", len(chosen))} == {f"request-{number}" for number in chosen}
        for number in (chosen[0], chosen[1], chosen[0] - 1 if chosen[0] - 1 not in chosen else chosen[0] + 1):
            call(number)
        assert len(lines("iris", len(chosen) + 2)) == len(chosen) + 2, "the same names meet the same choice"

        before = len(chosen) + 2
        for _ in range(2_000):
            client.infer("iris", [tensor])
    assert server.stop() == 0
    count = sum(path.read_text().count("\n") for path in (tmp_path / "log/iris").glob("*.jsonl")) - before
    assert abs(count - 200) < 4 * math.sqrt(180), count


# Files.


def test_what_was_logged_survives_restarts_and_kills(logged, iris, lines, tmp_path):
    server, admin = logged()
    admin.must_push("iris", iris, manifest=ALL)
    infer(server, "iris", X[0], "one")
    assert server.stop() == 0
    assert [path.suffix for path in (tmp_path / "log/iris").iterdir()] == [".jsonl"], "closed at the end"
    server, _ = logged()
    infer(server, "iris", X[0], "two")
    lines("iris", 2)
    server.kill()
    server, _ = logged()
    infer(server, "iris", X[0], "three")
    assert [line["id"] for line in sorted(lines("iris", 3), key=lambda line: line["time"])] == ["one", "two", "three"]
    assert sum(path.suffix == ".part" for path in (tmp_path / "log/iris").iterdir()) == 1, "the killed one's was closed"
    arguments = ["--request-log", str(tmp_path / "log")]
    with pytest.raises(RuntimeError, match="another process writes this folder"):
        Runner(tmp_path / "other-store", *arguments)


def test_files_are_rotated_and_all_together_stay_within_the_limit(logged, tmp_path):
    limit = 4 << 20
    server, admin = logged("--request-log-max-bytes", str(limit))
    admin.must_push("wide", models.identity(1, (None, 1000)), manifest=b"[request_log]\nsample = 1\n")
    admin.must_push("other", models.identity(1, (None, 1000)), manifest=b"[request_log]\nsample = 1\n")
    folder = tmp_path / "log"
    strange = folder / "wide" / "mine.jsonl"
    rows = np.random.default_rng(1).random((16, 1000)).astype(np.float32)

    def size():
        return sum(path.stat().st_size for path in folder.rglob("2*") if path.is_file())

    written = 0
    for number in range(40):
        infer(server, ("wide", "other")[number % 2], rows, f"{number:03}")
        written += 16
        if number == 0:
            eventually(lambda: (folder / "wide").is_dir(), "a folder")
            strange.write_text("not of the log")
        eventually(lambda: metric(server, "written") == written, f"{written} rows", 20)  # noqa: B023
        assert size() <= limit
    assert server.stop() == 0
    files = [path for path in folder.rglob("2*") if path.is_file()]
    assert len(files) > 3 and all(path.suffix == ".jsonl" and path.stat().st_size <= limit / 4 for path in files)
    ids = {json.loads(line)["id"] for path in files for line in path.read_text().splitlines()}
    assert {"038", "039"} <= ids and "000" not in ids and strange.exists()


def test_rows_that_are_too_large_are_dropped_and_counted(logged, lines):
    server, admin = logged()
    admin.must_push("wide", models.identity(1, (None, 100)), manifest=b"[request_log]\nsample = 1\nmax_row_bytes = 1500\n")
    infer(server, "wide", np.full((3, 100), 1.2345678), "long")
    infer(server, "wide", np.zeros((1, 100)), "short")
    assert [line["id"] for line in lines("wide", 1)] == ["short"]
    assert metric(server, "dropped") == 3


def test_a_folder_that_cannot_be_written_costs_the_log_and_not_the_calls(logged, iris, lines, tmp_path):
    log = tmp_path / "log"
    log.write_text("a file where the folder should be")
    server, admin = logged()
    admin.must_push("iris", iris, manifest=ALL)
    for number in range(50):
        infer(server, "iris", X[0], str(number))
    eventually(lambda: metric(server, "failed") == 50, "all counted", 20)
    assert server.log.count("the request log cannot be written") == 1, "told once a minute"
    log.unlink()

    def works_again():
        infer(server, "iris", X[0], "later")
        return metric(server, "written") > 0

    eventually(works_again, "written again", 20)


def test_a_disk_that_is_full_leaves_whole_lines_and_serves(iris, tmp_path):
    """The limit on a file's size stands for the disk: a write is cut in the middle of a line, and the next one fails."""
    log, limit = tmp_path / "log", 300_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        real = subprocess.Popen

        def inherits(*arguments, **options):
            return real(*arguments, restore_signals=False, **options)

        subprocess.Popen = inherits
        server = Runner(tmp_path / "store", "--request-log", str(log))
    finally:
        subprocess.Popen = real
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    try:
        eventually(server.is_ready, "ready", 20)
        admin = Admin(server.admin)
        admin.must_push("wide", models.identity(1, (None, 500)), manifest=b"[request_log]\nsample = 1\n")
        rows = np.random.default_rng(1).random((20, 500)).astype(np.float32)
        sent = 0
        while not metric(server, "failed") and sent < 2_000:
            infer(server, "wide", rows, str(sent))
            sent += 20
            eventually(lambda: metric(server, "written") + metric(server, "failed") == sent, "counted", 20)  # noqa: B023
        assert metric(server, "failed") > 0
        for _ in range(20):
            infer(server, "wide", rows)
        written = metric(server, "written")
    finally:
        assert server.stop() == 0
    text = "".join(path.read_text() for path in (log / "wide").glob("*.jsonl"))
    assert text.endswith("\n") and len([json.loads(line) for line in text.splitlines()]) >= written


# A swap.


def test_rows_name_the_version_that_answered_them_while_versions_change(logged, lines):
    server, admin = logged()
    amounts = {admin.must_push("adder", models.adds(1), manifest=ALL)["digest"]: 1}
    seen, stop = {}, threading.Event()

    def call(worker):
        number = 0
        while not stop.is_set():
            response = infer(server, "adder", [worker, number, 0, 0], f"{worker}-{number}")
            seen[f"{worker}-{number}"] = response.headers, response.json()["outputs"][0]["data"]
            number += 1

    threads = [threading.Thread(target=call, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for amount in range(2, 8):
        amounts[admin.must_push("adder", models.adds(amount))["digest"]] = amount
    stop.set()
    for thread in threads:
        thread.join()
    found = lines("adder", len(seen))
    assert len({line["digest"] for line in found}) > 3
    for line in found:
        headers, answer = seen[line["id"]]
        assert line["digest"] == headers["baton-digest"] and line["version"] == headers["baton-model-version"]
        (value,), (output,) = line["inputs"].values(), line["outputs"].values()
        assert output == answer and np.allclose(np.array(output) - value, amounts[line["digest"]])


# The loop.


class Broker(http.server.BaseHTTPRequestHandler):
    """Takes events; the first one is refused for now."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.events.append((dict(self.headers.items()), json.loads(body)))
        self.send_response(503 if len(self.server.events) == 1 else 202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_the_whole_loop_from_predictions_and_later_labels_to_a_dataset_that_trains(logged, lines, tmp_path):
    server, admin = logged()
    start = slice(0, None, 10)
    mine = package()
    admin.must_push("iris", iris_model(start), contract=contract(TYPED, mine), manifest=ALL)
    later = [row for row in range(150) if row % 10]
    ids = {row: infer(server, "iris", X[row]).headers[ID] for row in later}
    batch = infer(server, "iris", X[:5], "batch").headers[ID]
    lines("iris", len(later) + 5)

    labels = tmp_path / "labels.csv"
    known = [row for row in later if row % 3]
    with labels.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["request", "row", "species", "by"])
        out.writerows([ids[row], 0, IRIS.target_names[IRIS.target[row]], "botanist"] for row in known)
        out.writerow([batch, 4, IRIS.target_names[IRIS.target[4]], "botanist"])
        out.writerow(["never-logged", "", "setosa", "botanist"])
    before = tmp_path / "iris.csv"
    with before.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*FIELDS, "species"])
        out.writerows([*map(float, X[row]), IRIS.target_names[IRIS.target[row]]] for row in range(0, 150, 10))
    log = str(tmp_path / "log/iris")
    arguments = ["--log", log, "--labels", str(labels), "--on", "request", "--label", "species", "--append", str(before)]
    joined = baton("feedback", "join", *arguments, "--out", str(tmp_path / "next.csv"), "--json")
    assert joined.returncode == 0, joined
    report = json.loads(joined.stdout)["report"]
    matched = len(known) + 1
    assert (report["matched"], report["unlabeled"], report["unmatched_labels"]) == (matched, len(later) + 5 - matched, 1)
    assert (report["rows"], report["appended_to"]) == (matched + 15, 15)

    with (tmp_path / "next.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*FIELDS, "species"] and len(rows) == matched + 15
    features_ = np.array([[float(row[field]) for field in FIELDS] for row in rows], dtype=np.float32)
    species = [row["species"] for row in rows]
    # In any order: the new rows are in that of the wall clock, which may be set back.
    got = sorted((*map(float, row), label) for row, label in zip(features_, species))
    wanted = [*range(0, 150, 10), *known, 4]
    sent = sorted((*map(float, X[row]), IRIS.target_names[IRIS.target[row]]) for row in wanted)
    assert got == sent, "bit by bit what was sent"
    model = LogisticRegression(max_iter=500).fit(features_, species)
    assert model.score(X, IRIS.target_names[IRIS.target]) > 0.9

    again = baton("feedback", "join", *arguments, "--out", str(tmp_path / "again.csv"))
    assert again.returncode == 0 and (tmp_path / "again.csv").read_bytes() == (tmp_path / "next.csv").read_bytes()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broker) as broker:
        broker.events = []
        threading.Thread(target=broker.serve_forever, daemon=True).start()
        sink = f"http://127.0.0.1:{broker.server_port}/"
        store = tmp_path / "artifacts"
        pushed = baton("feedback", "push", "iris", *arguments, "--store", str(store), "--sink", sink)
        broker.shutdown()
    assert pushed.returncode == 0, pushed
    digest = hashlib.sha256((tmp_path / "next.csv").read_bytes()).hexdigest()
    assert (store / "blobs/sha256" / digest).read_bytes() == (tmp_path / "next.csv").read_bytes()
    (_, first), (headers, second) = broker.events
    headers = {name.lower(): value for name, value in headers.items()}
    assert first == second and second["digest"] == f"sha256:{digest}" and second["file"] == "iris.csv"
    assert headers["ce-type"] == "dev.baton.dataset.updated.v1" and headers["ce-id"] == f"iris@sha256:{digest}"

    refused = baton("feedback", "join", *arguments[:-2], "--append", str(labels), "--out", str(tmp_path / "no.csv"))
    assert refused.returncode == 1 and "other columns" in refused.stderr and not (tmp_path / "no.csv").exists()
