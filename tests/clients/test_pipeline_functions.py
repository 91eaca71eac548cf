"""`baton fn evaluate` and `baton fn deploy` against a real runner, with models that scikit-learn trained."""

import json

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from support import models
from support.functions import Function, Store

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
IRIS = load_iris()
SHUFFLED = np.random.default_rng(7).permutation(len(IRIS.target))
TRAIN, HELD = SHUFFLED[:100], SHUFFLED[100:]


def classifier(train=TRAIN, columns=slice(None), **options) -> bytes:
    x = IRIS.data[train].astype(np.float32)
    fitted = LogisticRegression(max_iter=500, **options).fit(x, IRIS.target[train])
    return to_onnx(fitted, x[:1], options={"zipmap": False}, target_opset=21).SerializeToString()


GOOD = classifier()
BETTER = classifier(C=100.0)
# Fitted to labels that mean nothing.
BAD = to_onnx(
    DecisionTreeClassifier(max_depth=3).fit(IRIS.data[TRAIN].astype(np.float32), np.roll(IRIS.target[TRAIN], 17)),
    IRIS.data[:1].astype(np.float32),
    options={"zipmap": False},
    target_opset=21,
).SerializeToString()


def holdout(rows=HELD) -> str:
    lines = [",".join([*COLUMNS, "label"])]
    lines += [",".join([*(f"{value:g}" for value in IRIS.data[row]), str(IRIS.target[row])]) for row in rows]
    return "\n".join(lines) + "\n"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


@pytest.fixture
def function(store, server):
    """Starts functions; all must end with code 0 at SIGTERM."""
    running = []

    def start(name, **environment):
        running.append(Function(name, store, environment.pop("server", server.admin), **environment))
        return running[-1]

    yield start
    assert [one.stop() for one in running] == [0] * len(running)


def finished(store, name, model=GOOD, rows=HELD, **fields):
    """The data of `training.finished`."""
    parts = {"model.onnx": model} | fields.pop("parts", {})
    bundle = store.bundle(name, parts, label="label", dataset_digest="sha256:" + "0" * 64)
    return {"model": name, "bundle": bundle, "holdout": store.put(holdout(rows))} | fields


def test_the_first_candidate_is_measured_as_scikit_learn_measures_it(store, function, name):
    kind, data = function("evaluate").answer("training.finished", finished(store, name))
    assert kind == "model.evaluated"
    x = IRIS.data[HELD].astype(np.float32)
    fitted = LogisticRegression(max_iter=500).fit(IRIS.data[TRAIN].astype(np.float32), IRIS.target[TRAIN])
    assert data["candidate"]["accuracy"] == pytest.approx(fitted.score(x, IRIS.target[HELD]), abs=1e-9)
    assert data["candidate"]["rows"] == len(HELD)
    assert (data["verdict"], data["reasons"], data["generation"], data["active"]) == ("accept", [], 0, None)
    assert data["cost"]["cpu_s"] > 0


def test_candidate_and_active_model_are_compared_on_the_same_rows(store, function, name, admin):
    admin.must_push(name, GOOD)
    evaluate = function("evaluate")
    kind, data = evaluate.answer("training.finished", finished(store, name, BAD))
    assert (kind, data["verdict"]) == ("model.evaluated", "reject")
    assert [reason["code"] for reason in data["reasons"]] == ["WORSE"]
    assert data["candidate"]["accuracy"] < data["active"]["accuracy"]
    assert (data["active_version"], data["generation"]) == ("1", admin.model(name)["generation"])
    assert data["active_digest"] == admin.model(name)["digest"]
    _, data = evaluate.answer("artifact.pushed", finished(store, name, GOOD), id="2")
    assert [reason["code"] for reason in data["reasons"]] == ["UNCHANGED"]


@pytest.mark.parametrize(
    ("rule", "verdict", "codes"),
    [
        ("at_least = 1.001", "reject", ["BELOW_BOUND"]),
        ("at_least = 0.5", "accept", []),
        ('metric = "log_loss"\nat_least = 0.000001', "reject", ["BELOW_BOUND"]),
        ('metric = "f1_macro"\nat_least = 0.7', "accept", []),
        ("max_latency_ms = 0.000001", "reject", ["SLOW"]),
        ('output = "nothing"', "reject", ["HOLDOUT_UNFIT"]),
        ("max_rows = 10", "accept", []),
    ],
)
def test_the_rule_decides(store, function, name, rule, verdict, codes):
    _, data = function("evaluate", BATON_RULE=rule).answer("training.finished", finished(store, name))
    assert (data["verdict"], [reason["code"] for reason in data["reasons"]]) == (verdict, codes), data


@pytest.mark.parametrize("rule", ["surprise = 1", "metric = 'beauty'", "margin = nan", "max_rows = 0", "margin ="])
def test_a_rule_that_is_none_is_named(store, function, name, rule):
    response = function("evaluate", BATON_RULE=rule).post("training.finished", finished(store, name))
    assert response.status_code == 422
    assert "BATON_RULE" in response.json()["error"]


def test_regression(store, function, name):
    data = load_diabetes()
    x = data.data.astype(np.float32)
    fitted = LinearRegression().fit(x[:300], data.target[:300])
    model = to_onnx(fitted, x[:1], target_opset=21).SerializeToString()
    rows = [",".join([*(f"c{index}" for index in range(10)), "y"])]
    rows += [",".join(f"{value!r}" for value in map(float, [*x[row], data.target[row]])) for row in range(300, 442)]
    event = {
        "model": name,
        "bundle": store.bundle(name, {"model.onnx": model}, label="y"),
        "holdout": store.put("\n".join(rows)),
    }
    _, answer = function("evaluate", BATON_RULE='metric = "rmse"').answer("artifact.pushed", event)
    error = fitted.predict(x[300:]) - data.target[300:]
    assert answer["candidate"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert answer["candidate"]["r2"] == pytest.approx(fitted.score(x[300:], data.target[300:]), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bundle": None}, "data.bundle"),
        ({"bundle": {"digest": "sha256:12", "size": 1}}, "digest"),
        ({"bundle": {"digest": "sha256:" + "a" * 64, "size": 1}}, "the store has no blobs/sha256/aaaa"),
        ({"model": "../etc"}, "cannot be a name"),
        ({"model": None}, "data.model"),
        ({"holdout": "everything"}, "data.holdout"),
        ({"holdout": {"digest": "sha256:" + "b" * 64, "size": 1}}, "the store has no"),
    ],
)
def test_events_that_make_no_sense_are_refused_for_good(store, function, name, change, text):
    response = function("evaluate").post("training.finished", finished(store, name) | change)
    assert response.status_code == 422, response.text
    assert text in response.json()["error"]


def test_a_damaged_blob_is_seen(store, function, name):
    event = finished(store, name)
    path = store.folder / "blobs/sha256" / event["holdout"]["digest"].removeprefix("sha256:")
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    response = function("evaluate").post("training.finished", event)
    assert response.status_code == 422
    assert "damaged" in response.json()["error"]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("", "has no"),
        ("a,b,label\n", "no row"),
        ("a,b,c,d,target\n1,2,3,4,0\n", "no column"),
        ("a,b,c,d,label\n1,2,3,0\n", "cannot be read"),
    ],
)
def test_a_holdout_that_is_none_is_refused_for_good(store, function, name, table, text):
    event = finished(store, name) | {"holdout": store.put(table)}
    response = function("evaluate").post("training.finished", event)
    assert response.status_code == 422, response.text
    assert text in response.json()["error"]


@pytest.mark.parametrize(
    ("table", "text"), [("a,b,label\n1,2,0\n", "columns do not fill"), ("a,b,c,d,label\n1,2,x,4,0\n", "is no FP32")]
)
def test_a_holdout_that_does_not_fit_refuses_the_candidate(store, function, name, table, text):
    event = finished(store, name) | {"holdout": store.put(table)}
    _, data = function("evaluate").answer("training.finished", event)
    assert data["verdict"] == "reject"
    assert [(reason["code"], text in reason["text"]) for reason in data["reasons"]] == [("HOLDOUT_UNFIT", True)]


def test_what_the_runner_would_refuse_is_refused_before_the_deployment(store, function, name):
    evaluate = function("evaluate")
    golden = json.dumps({"inputs": {"X": [[5.1, 3.5, 1.4, 0.2]]}, "outputs": {"label": [2]}})
    _, data = evaluate.answer("training.finished", finished(store, name, parts={"golden.jsonl": golden}))
    assert [reason["code"] for reason in data["reasons"]] == ["GOLDEN_FAILED"]
    _, data = evaluate.answer("training.finished", finished(store, name, parts={"baton.toml": "nonsense = 1"}))
    assert [reason["code"] for reason in data["reasons"]] == ["BAD_MANIFEST"]


def test_a_model_that_cannot_be_loaded_is_a_reason(store, function, name):
    _, data = function("evaluate").answer("training.finished", finished(store, name, models.cyclic_graph()))
    assert data["verdict"] == "reject"
    assert data["reasons"][0]["code"] == "MODEL_REFUSED"


def test_a_service_that_is_given_another_task_is_compared_with_nothing(store, function, name, admin):
    admin.must_push(name, models.simple())
    _, data = function("evaluate").answer("training.finished", finished(store, name))
    assert data["active"] is None
    assert {reason["code"] for reason in data["reasons"]} <= {"CONTRACT_BREAKING"}


def evaluated(store, name, model=GOOD, generation=0, **fields):
    """The data of `model.evaluated`."""
    bundle = store.bundle(name, {"model.onnx": model, **fields.pop("parts", {})}, label="label")
    data = {"model": name, "bundle": bundle, "verdict": "accept", "reasons": [], "generation": generation}
    return data | {"holdout": store.put(holdout()), "active_digest": None} | fields


def test_an_accepted_candidate_is_served_and_the_answer_leads_back(store, function, name, admin):
    provenance = json.dumps({"dataset": {"name": "iris"}, "metrics": {"accuracy": 0.9}})
    event = evaluated(store, name, parts={"provenance.json": provenance, "outlier.onnx": BAD})
    deploy = function("deploy")
    response = deploy.post("model.evaluated", event, pipelinerun="run1")
    data = response.json()
    assert response.headers["ce-type"] == "dev.baton.model.deployed.v1"
    assert response.headers["ce-pipelinerun"] == "run1"
    served = admin.model(name)
    assert (data["version"], data["generation"], data["digest"]) == ("1", served["generation"], served["digest"])
    record = admin.history(name)[0]["provenance"]
    assert record["dataset"] == {"name": "iris"}
    assert record["pipeline"] == {"run": "run1", "bundle": event["bundle"]["digest"]}
    assert [entry["digest"] for entry in store.log("active", name)] == [served["digest"]]


def test_a_redelivery_deploys_once_and_answers_the_same_event(store, function, name, admin):
    deploy, event = function("deploy"), evaluated(store, name)
    first = deploy.post("model.evaluated", event, id="x", pipelinerun="r")
    for _ in range(3):
        again = deploy.post("model.evaluated", event, id="x", pipelinerun="r")
        assert again.headers["ce-id"] == first.headers["ce-id"]
        assert again.headers["ce-type"] == first.headers["ce-type"]
        assert {**again.json(), "cost": 0} == {**first.json(), "cost": 0}
    assert len(admin.history(name)) == 1
    assert len(store.log("active", name)) == 1


def test_a_deployment_that_came_late_compares_again(store, function, name, admin):
    admin.must_push(name, GOOD)
    stale = admin.model(name)["generation"]
    admin.must_push(name, BETTER)
    kind, data = function("deploy").answer("model.evaluated", evaluated(store, name, BAD, generation=stale))
    assert (kind, data["round"]) == ("artifact.pushed", 1)
    kind, data = function("deploy").answer("model.evaluated", evaluated(store, name, BAD, generation=stale, round=3))
    assert (kind, data["reasons"][0]["code"]) == ("model.rejected", "GENERATION_STALE")
    assert admin.model(name)["active"] == "2"


def test_a_rejected_candidate_changes_nothing(store, function, name, admin):
    admin.must_push(name, GOOD)
    reasons = [{"code": "WORSE", "text": "accuracy 0.1 against 0.9"}]
    event = evaluated(store, name, BAD, generation=1, verdict="reject", reasons=reasons)
    kind, data = function("deploy").answer("model.evaluated", event)
    assert (kind, data["reasons"]) == ("model.rejected", reasons)
    assert admin.model(name)["active"] == "1"


def test_what_the_runner_refuses_is_rejected_with_its_reason(store, function, name):
    event = evaluated(store, name, parts={"contract.proto": "no contract"})
    kind, data = function("deploy").answer("model.evaluated", event)
    assert (kind, data["reasons"][0]["code"]) == ("model.rejected", "CONTRACT_SYNTAX")


def test_a_runner_that_is_gone_is_waited_for(store, function, name):
    for stage, event in (("evaluate", finished(store, name)), ("deploy", evaluated(store, name))):
        response = function(stage, server="127.0.0.1:9").post("x", event)
        assert response.status_code == 503
        assert "cannot be reached" in response.json()["error"]


@pytest.mark.parametrize(("change", "text"), [({"verdict": "maybe"}, "verdict"), ({"generation": None}, "generation")])
def test_deploy_refuses_events_that_make_no_sense(store, function, name, change, text):
    response = function("deploy").post("model.evaluated", evaluated(store, name) | change)
    assert response.status_code == 422
    assert text in response.json()["error"]


def test_evaluate_then_deploy_until_the_better_model_serves(store, function, name, admin):
    evaluate, deploy = function("evaluate"), function("deploy")
    for number, model in enumerate([BAD, GOOD]):
        _, verdict = evaluate.answer("training.finished", finished(store, name, model), id=str(number))
        assert verdict["verdict"] == "accept", verdict
        kind, _ = deploy.answer("model.evaluated", verdict, id=str(number))
        assert kind == "model.deployed"
    assert admin.model(name)["active"] == "2"
    assert [entry["version"] for entry in store.log("active", name)] == ["1", "2"]
