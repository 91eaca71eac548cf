"""The documentation's own example, scikit-learn's classifiers as skl2onnx writes them, and `baton predict`."""

import csv
import io
import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from support import models
from support.admin import Admin, check_error, ok
from support.runner import REPOSITORY
from support.typed import Service, assert_same, baton, contract, package

IRIS = load_iris()
X = IRIS.data.astype(np.float32)
SPECIES = IRIS.target_names[IRIS.target]
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
ROWS = X[::15]
TYPED = """service Iris {
  rpc Classify(Features) returns (Prediction);
  rpc ClassifyBatch(Batch) returns (Predictions);
  rpc ClassifyStream(stream Features) returns (stream Prediction);
}
message Features { float sepal_length = 1; float sepal_width = 2; float petal_length = 3; float petal_width = 4; }
message Prediction { LABEL label = 1; map<KEY, float> probabilities = 2 [(baton.tensor) = "output_probability"]; }
message Batch { repeated Features rows = 1; }
message Predictions { repeated Prediction rows = 1; }
"""

pytestmark = pytest.mark.filterwarnings("ignore")


def features(row) -> dict:
    return dict(zip(FIELDS, map(float, row), strict=True))


def table(rows) -> str:
    return "\n".join([",".join(FIELDS), *(",".join(map(str, row)) for row in rows)]) + "\n"


# The document.


def test_the_example_of_the_document_is_true(server, admin, name, tmp_path):
    """Contract, model, command, request and answer stand in docs/contracts.md; all are taken from there."""
    text = (REPOSITORY / "docs/contracts.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text.split("## How a message is read")[0], re.S)
    written = {kind: body for kind, body in reversed(blocks)}
    mine = package()
    (tmp_path / "iris.proto").write_text(written["proto"].replace("iris.v1", mine))
    model = re.search(r"baton push iris (\S+) --contract iris.proto", written["sh"]).group(1)
    done = baton(
        "push", name, str(REPOSITORY / model), "--contract", str(tmp_path / "iris.proto"), server=server.admin
    )
    assert done.returncode == 0, done.stderr
    body = re.search(r"curl -d '(.*?)'", written["sh"]).group(1)
    command = ["curl", "-sS", "--fail-with-body", "-d", body, f"http://{server.data}/{mine}.IrisClassifier/Classify"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    got, wanted = json.loads(answer.stdout), json.loads(written["json"])
    assert got["label"] == wanted["label"]
    assert got["probabilities"] == pytest.approx(wanted["probabilities"], rel=1e-5)
    Service(server, name, mine).check("Classify", json.loads(body), wanted)


def test_the_example_of_csv_is_true(server, admin, name):
    text = (REPOSITORY / "docs/contracts.md").read_text()
    source = re.search(r"```proto\n(.*?)```", text, re.S).group(1)
    mine = package()
    model = (REPOSITORY / "sample-models/iris/v1/model.onnx").read_bytes()
    admin.must_push(name, model, contract=source.replace("iris.v1", mine))
    service = Service(server, name, mine)
    answer = list(csv.DictReader(io.StringIO(service.csv("Classify", table(ROWS)))))
    batch = service.call_all("ClassifyBatch", {"rows": [features(row) for row in ROWS]})["rows"]
    assert len(answer) == len(batch) == len(ROWS)
    for line, message in zip(answer, batch, strict=True):
        assert line["label"] == message["label"]
        for label, probability in message["probabilities"].items():
            assert float(line[f"probabilities[{label}]"]) == pytest.approx(probability, rel=1e-6)


def test_the_sample_model_comes_with_a_contract_that_works(server, admin, name):
    folder = REPOSITORY / "sample-models/iris/v1"
    source = (folder / "contract.proto").read_text()
    mine = package()
    own = re.search(r"package ([\w.]+);", source).group(1)
    source = source.replace(own, mine)
    admin.must_push(name, (folder / "model.onnx").read_bytes(), contract=source)
    assert Service(server, name, mine).services


# scikit-learn.


@pytest.mark.parametrize(
    ("target", "label", "key", "options"),
    [
        (IRIS.target, "int64", "int64", {}),
        (IRIS.target, "int32", "string", {}),
        (SPECIES, "string", "string", {}),
        (SPECIES, "bytes", "string", {}),
    ],
    ids=["numbers", "numbers-as-text", "names", "names-as-bytes"],
)
def test_a_classifier_with_zipmap_answers_as_scikit_learn(server, admin, name, target, label, key, options):
    classifier = LogisticRegression(max_iter=500).fit(X, target)
    model = to_onnx(classifier, X[:1], target_opset={"": 19, "ai.onnx.ml": 3}).SerializeToString()
    mine = package()
    admin.must_push(name, model, contract=contract(TYPED.replace("LABEL", label).replace("KEY", key), mine))
    service = Service(server, name, mine)
    predicted, probable = classifier.predict(ROWS), classifier.predict_proba(ROWS)
    answers = service.call_all("ClassifyBatch", {"rows": [features(row) for row in ROWS]})["rows"]
    assert len(answers) == len(ROWS)
    for row, answer, of, probabilities in zip(ROWS, answers, predicted, probable, strict=True):
        wanted = dict(zip(map(str, classifier.classes_), probabilities, strict=True))
        assert answer["probabilities"] == pytest.approx(wanted, abs=1e-4)
        if label != "bytes":
            assert str(answer["label"]) == str(of)
        # ONNX Runtime adds up a single row in another order: the last digit may differ.
        assert_same(service.call("json", "Classify", features(row)), answer)


def test_a_new_classifier_replaces_the_old_one_under_the_same_contract(server, admin, name):
    mine = package()
    source = contract(TYPED.replace("LABEL", "string").replace("KEY", "string"), mine)
    service = Service(server, name, mine)
    for strength in (0.01, 100.0):
        classifier = LogisticRegression(C=strength, max_iter=2000).fit(X, SPECIES)
        model = to_onnx(classifier, X[:1], target_opset={"": 19, "ai.onnx.ml": 3}).SerializeToString()
        parts = {"contract": source} if strength < 1 else {}
        admin.must_push(name, model, **parts)
        wanted = dict(zip(classifier.classes_, classifier.predict_proba(ROWS[:1])[0], strict=True))
        got = service.call_all("Classify", features(ROWS[0]))
        assert got["probabilities"] == pytest.approx(wanted, abs=1e-4)


# baton predict.


@pytest.fixture
def iris(server, admin, name):
    classifier = LogisticRegression(max_iter=500).fit(X, SPECIES)
    model = to_onnx(classifier, X[:1], target_opset={"": 19, "ai.onnx.ml": 3}).SerializeToString()
    source = contract(TYPED.replace("LABEL", "string").replace("KEY", "string"), package())
    admin.must_push(name, model, contract=source)
    return name, classifier


def predict(server, *arguments: str):
    return baton("predict", *arguments, server=server.admin)


def test_predict_calls_a_method_with_json(server, iris):
    name, classifier = iris
    done = predict(server, name, "Classify", "--json", json.dumps(features(ROWS[0])), "--output", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["label"] == classifier.predict(ROWS[:1])[0]
    wanted = dict(zip(classifier.classes_, classifier.predict_proba(ROWS[:1])[0], strict=True))
    assert answer["probabilities"] == pytest.approx(wanted, abs=1e-4)
    shown = predict(server, name, "Classify", "--json", json.dumps(features(ROWS[0])))
    assert shown.returncode == 0 and answer["label"] in shown.stdout, shown.stderr


def test_predict_calls_a_method_with_csv(server, iris, tmp_path):
    name, classifier = iris
    path = tmp_path / "flowers.csv"
    path.write_text(table(ROWS))
    for method in ("Classify", "ClassifyBatch"):
        done = predict(server, name, method, "--csv", str(path))
        assert done.returncode == 0, done.stderr
        lines = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [line["label"] for line in lines] == list(classifier.predict(ROWS))


def test_predict_without_a_method_is_a_call_of_tensors(server, iris):
    name, classifier = iris
    done = predict(server, name, "--json", json.dumps({"X": ROWS[:1].tolist()}), "--output", "json")
    assert done.returncode == 0, done.stderr
    assert classifier.predict(ROWS[:1])[0] in done.stdout


PREDICT_REFUSALS = {
    "unknown-method": (("Guess", "--json", "{}"), {1, 64}, "Iris/ClassifyBatch"),
    "unknown-field": (("Classify", "--json", '{"sepal": 1}'), 1, "sepal"),
    "no-json": (("Classify", "--json", "{"), {1, 64}, ""),
    "no-request": (("Classify",), 64, ""),
    "two-requests": (("Classify", "--json", "{}", "--csv", "x.csv"), 64, ""),
    "no-file": (("Classify", "--csv", "no-such-file.csv"), {1, 64}, "no-such-file.csv"),
    "wrong-option": (("Classify", "--jsno", "{}"), 64, "--jsno"),
}


@pytest.mark.parametrize(("arguments", "codes", "named"), PREDICT_REFUSALS.values(), ids=PREDICT_REFUSALS)
def test_predict_says_what_is_wrong(server, iris, arguments, codes, named):
    done = predict(server, iris[0], *arguments)
    assert done.returncode in ({codes} if isinstance(codes, int) else codes), (done.returncode, done.stderr)
    assert named in done.stderr and done.stderr.strip() and not done.stdout, (done.stdout, done.stderr)
    assert "panicked" not in done.stderr


def test_predict_names_the_line_of_a_bad_cell(server, iris, tmp_path):
    path = tmp_path / "flowers.csv"
    path.write_text(table(ROWS[:3]) + "1,2,x,4\n")
    done = predict(server, iris[0], "Classify", "--csv", str(path))
    assert done.returncode == 1 and "line 5" in done.stderr and "petal_length" in done.stderr, done.stderr


def test_predict_of_an_unknown_model_or_server(server):
    done = predict(server, "nobody", "Classify", "--json", "{}")
    assert done.returncode == 1 and "nobody" in done.stderr, done.stderr
    done = baton("predict", "nobody", "Classify", "--json", "{}", server="127.0.0.1:1")
    assert done.returncode == 69, (done.returncode, done.stderr)


def test_contract_show_of_an_unknown_model_or_server(server):
    done = baton("contract", "show", "nobody", server=server.admin)
    assert done.returncode == 1 and "nobody" in done.stderr, done.stderr
    assert baton("contract", "show", "nobody", server="127.0.0.1:1").returncode == 69
    assert baton("contract", "check", "one.proto").returncode == 64
    assert baton("contract", "nonsense").returncode == 64


# Names and documents that several models share.

FLOATS = "message Q { repeated float x = 1; } message A { repeated float y = 1; }"


def test_every_reference_of_the_openapi_document_resolves(admin, name):
    recursive = FLOATS.replace("x = 1;", "x = 1; Q again = 2 [(baton.ignore) = true];")
    admin.must_push(name, models.adds(1), contract=contract(recursive, package()))
    document = ok(admin.get("/openapi.json"))
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references

    def resolves(reference: str) -> bool:
        at = document
        for step in reference.removeprefix("#/").split("/"):
            at = at.get(step.replace("~1", "/").replace("~0", "~"), {})
        return bool(at)

    assert [reference for reference in sorted(references) if not resolves(reference)] == []


def test_a_service_that_another_model_took_meanwhile_is_not_taken_back(server, admin, name):
    mine, other = package(), package()
    taken, free = contract(FLOATS, mine), contract(FLOATS, other)
    admin.must_push(name, models.adds(1), contract=taken)
    admin.must_push(name, models.adds(2), contract=free, query={"on_breaking": "allow"})
    admin.must_push(f"{name}-b", models.adds(3), contract=taken)
    for response in (
        admin.roll_back(name),
        admin.activate(name, "1"),
        admin.push(name, models.adds(1), contract=taken, query={"on_breaking": "allow"}),
    ):
        body = check_error(response, 409, "SERVICE_NAME_TAKEN")
        assert f"{mine}.S" in body["error"] and f"{name}-b" in body["error"]
    Service(server, name, other).check("Call", {"x": [0] * 4}, {"y": [2] * 4})
    Service(server, f"{name}-b", mine).check("Call", {"x": [0] * 4}, {"y": [3] * 4})


def test_of_two_first_pushes_with_one_service_one_is_taken(server, name):
    for attempt in range(4):
        source, barrier = contract(FLOATS, package()), threading.Barrier(2)

        def push(number: int, attempt=attempt, source=source, barrier=barrier) -> int:
            barrier.wait()
            pushed = Admin(server.admin).push(f"{name}-{attempt}-{number}", models.adds(number), contract=source)
            return pushed.status_code

        with ThreadPoolExecutor(2) as both:
            assert sorted(both.map(push, (1, 2))) == [201, 409]


def test_an_inferred_service_stays_with_the_model_that_serves_it(server, admin, name):
    """`a_b` and `a-b` would both infer the package a_b: a push of the second must not answer the first one's clients."""
    first = admin.must_push(f"{name}_x", models.adds(1))
    where = f"http://{server.data}/baton.models.{name.replace('-', '_')}_x.Model/Predict"
    assert requests.post(where, data="{}", timeout=10).headers["baton-digest"] == first["digest"]
    second = admin.must_push(f"{name}-x", models.adds(2))
    assert requests.post(where, data="{}", timeout=10).headers["baton-digest"] == first["digest"]
    assert second["warnings"], "nobody was told that the second model has no typed service of its name"
