"""`baton fn evaluate` and `baton fn deploy` against a real runner, with models that scikit-learn trained."""

import http.server
import json
import os
import subprocess
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.tree import DecisionTreeClassifier

from support import models
from support.functions import Function, Store
from support.runner import BINARY

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


@pytest.fixture
def refusing():
    """Starts servers that know no model and answer every push with one status."""
    running = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.dumps({"error": "no", "code": "X", "source": "request", "request_id": ""}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.answer(404)

            def do_PUT(self):
                self.answer(status)

            def log_message(self, *_):
                pass

        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"127.0.0.1:{running[-1].server_port}"

    yield start
    for server in running:
        server.shutdown()


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


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        *[({"BATON_RULE": rule}, "BATON_RULE") for rule in ("surprise = 1", "metric = 'beauty'", "max_rows = 0", "margin =")],
        ({"BATON_SERVER": "nonsense"}, "nonsense"),
        ({"BATON_TOKEN": "a\x07b"}, "BATON_TOKEN"),
    ],
)
def test_settings_that_are_none_are_named_at_the_start(tmp_path, variables, text):
    environment = os.environ | {"BATON_ARTIFACTS": str(tmp_path), "LISTEN_ADDRESS": "127.0.0.1:0"} | variables
    ended = subprocess.run([BINARY, "fn", "evaluate"], env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, text in ended.stderr) == (64, True), ended.stderr


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
        ("a,b,c,d,label\n1,2,3,4,\n", "no row"),
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
        kind = {"evaluate": "training.finished", "deploy": "model.evaluated"}[stage]
        response = function(stage, server="127.0.0.1:9").post(kind, event)
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


def test_each_model_sees_its_own_columns_in_its_own_order(store, function, name):
    evaluate, deploy = function("evaluate"), function("deploy")
    bundle = store.bundle(name, {"model.onnx": GOOD}, label="label", features=COLUMNS)
    table = store.put(holdout())
    _, verdict = evaluate.answer("training.finished", {"model": name, "bundle": bundle, "holdout": table}, id="1")
    deploy.answer("model.evaluated", verdict, id="1")
    # The next data have their columns the other way round, and the candidate is a poor one that was trained on them.
    lines = [line.split(",") for line in holdout().splitlines()]
    turned = "\n".join(",".join([*line[3::-1], line[4]]) for line in lines) + "\n"
    bundle = store.bundle(name, {"model.onnx": BAD}, label="label", features=COLUMNS[::-1])
    data = {"model": name, "bundle": bundle, "holdout": store.put(turned)}
    _, again = evaluate.answer("training.finished", data, id="2")
    assert again["active"]["accuracy"] == verdict["candidate"]["accuracy"]
    assert [reason["code"] for reason in again["reasons"]] == ["WORSE"]


def graph(nodes, outputs, *constants, columns=1) -> bytes:
    """A model of X [N, columns] in floats; `outputs` are (name, type, shape)."""
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", columns])]
    found = [helper.make_tensor_value_info(*output) for output in outputs]
    made = helper.make_graph(nodes, "g", inputs, found, list(constants))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


def constant(name, values, kind=np.int64):
    return numpy_helper.from_array(np.array(values, kind), name)


def scores(columns, node="Identity") -> bytes:
    return graph([helper.make_node(node, ["X"], ["scores"])], [("scores", TensorProto.FLOAT, ["N", columns])], columns=columns)


def slow(multiplications) -> bytes:
    """Multiplies large matrices for each row, so many times."""
    row = helper.make_node
    body = helper.make_graph(
        [row("MatMul", ["m", "big"], ["m2"]), row("Identity", ["go"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, [500, 500]),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m2", TensorProto.FLOAT, [500, 500]),
        ],
    )
    nodes = [
        row("ConstantOfShape", ["size"], ["big"]),
        row("Loop", ["times", "", "big"], ["done"], body=body),
        row("ReduceSum", ["done"], ["nothing"], keepdims=0),
        row("Add", ["X", "nothing"], ["y"]),
    ]
    output = [("y", TensorProto.FLOAT, ["N", 1])]
    return graph(nodes, output, constant("size", [500, 500]), constant("times", multiplications))


def measured(function, store, name, model, rows, rule, columns=("x",), label="label", **fields):
    """The answer of `evaluate` on a table."""
    table = "\n".join([",".join([*columns, label]), *(",".join(map(str, row)) for row in rows)])
    bundle = store.bundle(name, {"model.onnx": model} | fields.pop("parts", {}), label=label, **fields)
    event = {"model": name, "bundle": bundle, "holdout": store.put(table)}
    return function("evaluate", BATON_RULE=rule).answer("artifact.pushed", event)[1]


def crashing() -> bytes:
    """Divides the smallest integer by -1, which ends the process."""
    nodes = [
        helper.make_node("Cast", ["X"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Div", ["whole", "minus"], ["label"]),
    ]
    return graph(nodes, [("label", TensorProto.INT32, ["N", 1])], constant("minus", [-1], np.int32))


def test_a_model_that_crashes_is_refused_and_the_function_goes_on(store, function, name):
    data = measured(function, store, name, crashing(), [[-2147483648, 0]], "")
    assert (data["verdict"], [reason["code"] for reason in data["reasons"]]) == ("reject", ["WORKER_LOST"])


def test_what_cannot_be_compared_is_not_replaced(store, function, name, admin):
    admin.must_push(name, crashing())
    candidate = graph(
        [helper.make_node("Cast", ["X"], ["label"], to=TensorProto.INT64)], [("label", TensorProto.INT64, ["N", 1])]
    )
    data = measured(function, store, name, candidate, [[-2147483648, -2147483648]], "")
    assert (data["verdict"], [reason["code"] for reason in data["reasons"]]) == ("reject", ["ACTIVE_FAILED"])
    assert data["active"] is None and "WORKER_LOST" in data["notes"][0]


def test_a_slow_model_is_measured_row_by_row(store, function, name):
    rule = 'metric = "rmse"'
    data = measured(function, store, name, slow(20), [[1, 1], [2, 2], [3, 3]], rule)
    assert (data["verdict"], data["candidate"]["rmse"]) == ("accept", 0.0)


def test_scores_that_are_not_numbers_are_no_class(store, function, name):
    rows = [[-1, -1, 0]] * 19 + [[-1, -1, 1]]
    data = measured(function, store, name, scores(2, "Sqrt"), rows, "at_least = 0.9", columns=("a", "b"))
    assert (data["verdict"], data["candidate"]["accuracy"]) == ("reject", 0.0)


def test_log_loss_knows_the_columns_from_the_labels(store, function, name):
    x, y = IRIS.data.astype(np.float32), IRIS.target + 1
    fitted = LogisticRegression(max_iter=500).fit(x[TRAIN], y[TRAIN])
    model = to_onnx(fitted, x[:1], options={"zipmap": False}, target_opset=21).SerializeToString()
    rows = [[*(f"{value:g}" for value in IRIS.data[row]), y[row]] for row in HELD]
    data = measured(function, store, name, model, rows, 'metric = "log_loss"', columns=COLUMNS)
    assert data["verdict"] == "accept", data["reasons"]
    assert data["candidate"]["log_loss"] == pytest.approx(log_loss(y[HELD], fitted.predict_proba(x[HELD])), rel=1e-5)


def test_the_bundle_names_the_columns_of_a_model_that_does_not(store, function, name):
    rows = [[0.7, 0.2, 0.1, "setosa"], [0.1, 0.6, 0.3, "virginica"], [0.5, 0.3, 0.2, "virginica"]]
    rule, columns = 'metric = "log_loss"', ("a", "b", "c")
    data = measured(function, store, name, scores(3), rows, rule, columns=columns)
    assert [reason["code"] for reason in data["reasons"]] == ["NO_METRIC"] and "classes" in data["reasons"][0]["text"]
    classes = ["setosa", "virginica", "versicolor"]
    data = measured(function, store, name, scores(3), rows, rule, columns=columns, classes=classes)
    assert data["candidate"]["log_loss"] == pytest.approx(-np.log([0.7, 0.6, 0.3]).mean(), rel=1e-5), data
    assert data["candidate"]["accuracy"] == pytest.approx(2 / 3)
    counting = graph([helper.make_node("Cast", ["X"], ["label"], to=TensorProto.INT64)], [("label", TensorProto.INT64, ["N", 1])])
    rows = [[0, "setosa"], [1, "virginica"], [2, "setosa"]]
    data = measured(function, store, name, counting, rows, "", classes=classes)
    assert data["candidate"]["accuracy"] == pytest.approx(2 / 3), data
    data = measured(function, store, name, counting, rows, "")
    assert [reason["code"] for reason in data["reasons"]] == ["HOLDOUT_UNFIT"]


def test_the_label_is_no_feature(store, function, name):
    data = measured(function, store, name, scores(2), [[0.9, 0.1, 0]], "", columns=("a", "b"), features=["a", "label"])
    assert [reason["code"] for reason in data["reasons"]] == ["HOLDOUT_UNFIT"]


def test_a_bundle_is_taken_for_what_it_says_it_is(store, function, name):
    event = finished(store, name)
    response = function("evaluate").post("training.finished", event | {"model": f"{name}-2"})
    assert (response.status_code, "the bundle is one of" in response.text) == (422, True)
    event["holdout"]["size"] += 1
    response = function("evaluate").post("training.finished", event)
    assert (response.status_code, "the reference says" in response.text) == (422, True)


def test_a_model_takes_its_settings_along(store, function, name):
    parts = {"baton.toml": "[limits]\nrequest_timeout_ms = 1"}
    data = measured(function, store, name, slow(50), [[1, 1]], 'metric = "rmse"', parts=parts)
    assert [reason["code"] for reason in data["reasons"]] == ["SLOW"], data


@pytest.mark.parametrize("stage", ["evaluate", "deploy"])
def test_other_events_are_none_of_their_business(store, function, name, stage):
    event = evaluated(store, name)
    for kind in ("model.deployed", "training.failed", "dataset.updated"):
        assert function(stage).post(kind, event).status_code == 204


def test_a_model_that_was_removed_can_be_deployed_again(store, function, name, admin):
    evaluate, deploy = function("evaluate"), function("deploy")
    for number, model in enumerate([GOOD, BETTER]):
        _, verdict = evaluate.answer("training.finished", finished(store, name, model), id=str(number))
        assert (verdict["verdict"], verdict["generation"]) == ("accept", 0), verdict
        kind, data = deploy.answer("model.evaluated", verdict, id=str(number))
        assert kind == "model.deployed"
        assert store.log("active", name)[-1]["digest"] == data["digest"]
        assert admin.remove(name, force=True).status_code == 204


def test_the_log_of_what_is_served_goes_on_with_another_runner(store, function, name, admin):
    old = {"model": name, "generation": 5, "digest": "sha256:" + "9" * 64, "version": "5"}
    folder = store.folder / "active" / name
    folder.mkdir(parents=True)
    (folder / "00000001.json").write_text(json.dumps(old))
    _, data = function("deploy").answer("model.evaluated", evaluated(store, name))
    assert [entry["digest"] for entry in store.log("active", name)] == [old["digest"], data["digest"]]


def test_a_token_that_is_not_taken_says_nothing_of_the_candidate(store, function, name, refusing):
    for stage, event, kind in (
        ("evaluate", finished(store, name), "training.finished"),
        ("deploy", evaluated(store, name), "model.evaluated"),
    ):
        for status, expected in ((401, 422), (403, 422), (408, 503)):
            response = function(stage, server=refusing(status)).post(kind, event)
            assert response.status_code == expected, response.text
