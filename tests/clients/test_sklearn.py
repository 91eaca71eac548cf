"""scikit-learn models through skl2onnx as it comes: the served predictions are scikit-learn's."""

import json

import numpy as np
import pandas
import pytest
import requests
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from support import calls, dtypes

IRIS = load_iris()
X = IRIS.data.astype(np.float32)
SPECIES = IRIS.target_names[IRIS.target]
CLASSIFIERS = {
    "logistic": lambda: LogisticRegression(max_iter=500),
    "forest": lambda: RandomForestClassifier(10, random_state=1),
    "tree": lambda: DecisionTreeClassifier(max_depth=3, random_state=1),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=1),
    "bayes": GaussianNB,
    "neighbours": lambda: KNeighborsClassifier(3),
    "network": lambda: MLPClassifier((8,), max_iter=300, random_state=1),
    "vectors": lambda: SVC(probability=True, random_state=1),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
}
CLIENTS = ("triton-http-binary", "triton-http-json", "triton-grpc", "plain-json", "kserve-grpc")
ROWS = X[::7]
OPSETS = {"": 19, "ai.onnx.ml": 3}

pytestmark = pytest.mark.filterwarnings("ignore")


def serve(admin, name: str, model, sample=ROWS, **options) -> None:
    admin.must_push(name, to_onnx(model, sample, target_opset=OPSETS, **options).SerializeToString())


def check_labels(got: np.ndarray, wanted: np.ndarray) -> None:
    wanted = np.asarray([label.encode() for label in wanted], dtype=object) if wanted.dtype.kind == "U" else wanted
    assert dtypes.as_bytes(got).tolist() == wanted.tolist()


def check_classifier(server, name: str, model, label: str, probabilities: str, tolerance=1e-4) -> None:
    for client in CLIENTS:
        got = calls.ALL[client](server, name, {"X": ROWS})
        assert got[probabilities].dtype == np.float32
        assert got[probabilities].shape == (len(ROWS), len(model.classes_))
        np.testing.assert_allclose(got[probabilities], model.predict_proba(ROWS), atol=tolerance)
        check_labels(got[label], model.predict(ROWS))


@pytest.mark.parametrize("target", ["int", "text"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_with_the_default_zipmap(server, admin, name, kind, target):
    model = CLASSIFIERS[kind]().fit(X, IRIS.target if target == "int" else SPECIES)
    serve(admin, name, model)
    # Pairwise coupling of SVC differs from scikit-learn's own in the third digit.
    check_classifier(server, name, model, "output_label", "output_probability", 2e-2 if kind == "vectors" else 1e-4)


@pytest.mark.parametrize("target", ["int", "text"])
def test_a_classifier_without_zipmap(server, admin, name, target):
    model = LogisticRegression(max_iter=500).fit(X, IRIS.target if target == "int" else SPECIES)
    serve(admin, name, model, options={"zipmap": False})
    check_classifier(server, name, model, "label", "probabilities")


def test_zipmap_as_columns(server, admin, name):
    model = LogisticRegression(max_iter=500).fit(X, SPECIES)
    serve(admin, name, model, options={"zipmap": "columns"})
    wanted = model.predict_proba(ROWS)
    got = calls.triton_grpc_raw(server, name, {"X": ROWS})
    assert len(got) == 1 + wanted.shape[1]
    for index, species in enumerate(model.classes_):
        np.testing.assert_allclose(got[f"s{species}"].reshape(-1), wanted[:, index], atol=1e-4)


def test_metadata_shows_the_zipmap_as_a_float_tensor_with_its_labels(server, admin, name):
    for target, labels in ((IRIS.target, ["0", "1", "2"]), (SPECIES, list(IRIS.target_names))):
        serve(admin, name, LogisticRegression(max_iter=500).fit(X, target))
        metadata = requests.get(f"http://{server.data}/v2/models/{name}", timeout=10).json()
        label, probability = metadata["outputs"]
        assert label["name"] == "output_label"
        assert (probability["name"], probability["datatype"]) == ("output_probability", "FP32")
        assert probability["shape"] == [-1, 3]
        assert json.loads(metadata["properties"]["labels.output_probability"]) == labels


def test_a_binary_classifier(server, admin, name):
    model = LogisticRegression(max_iter=500).fit(X[:100], IRIS.target[:100])
    serve(admin, name, model)
    check_classifier(server, name, model, "output_label", "output_probability")


def test_a_zipmap_output_alone_can_be_requested(server, admin, name):
    model = LogisticRegression(max_iter=500).fit(X, IRIS.target)
    serve(admin, name, model)
    got = calls.triton_http_binary(server, name, {"X": ROWS}, outputs=["output_probability"])
    np.testing.assert_allclose(got["output_probability"], model.predict_proba(ROWS), atol=1e-4)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_classifier_takes_any_batch(server, admin, name, rows):
    model = LogisticRegression(max_iter=500).fit(X, SPECIES)
    serve(admin, name, model)
    got = calls.triton_grpc_raw(server, name, {"X": X[:rows]})
    assert got["output_label"].shape == (rows,)
    assert got["output_probability"].shape == (rows, 3)


@pytest.mark.parametrize(
    ("regressor", "precision"),
    [
        (LinearRegression(), np.float32),
        (LinearRegression(), np.float64),
        (RandomForestRegressor(10, random_state=1), np.float32),
    ],
)
def test_a_regressor(server, admin, name, regressor, precision):
    diabetes = load_diabetes()
    rows = diabetes.data[:20].astype(precision)
    model = regressor.fit(diabetes.data.astype(precision), diabetes.target)
    serve(admin, name, model, rows)
    for client in CLIENTS:
        got = calls.ALL[client](server, name, {"X": rows})["variable"]
        assert got.shape == (20, 1)
        np.testing.assert_allclose(got.reshape(-1), model.predict(rows), rtol=1e-3)


def test_a_regressor_with_several_targets(server, admin, name):
    model = LinearRegression().fit(X[:, :2], X[:, 2:])
    serve(admin, name, model, X[:5, :2])
    got = calls.triton_http_binary(server, name, {"X": X[:5, :2]})["variable"]
    np.testing.assert_allclose(got, model.predict(X[:5, :2]), rtol=1e-3, atol=1e-4)


def test_isolation_forest(server, admin, name):
    model = IsolationForest(n_estimators=10, random_state=1).fit(X)
    serve(admin, name, model)
    got = calls.triton_grpc_raw(server, name, {"X": ROWS})
    assert got["label"].reshape(-1).tolist() == model.predict(ROWS).tolist()
    np.testing.assert_allclose(got["scores"].reshape(-1), model.decision_function(ROWS), atol=1e-4)


def test_kmeans(server, admin, name):
    model = KMeans(3, n_init=3, random_state=1).fit(X)
    serve(admin, name, model)
    got = calls.triton_grpc_raw(server, name, {"X": ROWS})
    assert got["label"].tolist() == model.predict(ROWS).tolist()
    np.testing.assert_allclose(got["scores"], model.transform(ROWS), rtol=1e-3, atol=1e-3)


def test_a_pipeline_with_text_and_number_columns(server, admin, name):
    frame = pandas.DataFrame(
        {
            "city": ["Wien", "Zürich", "京都", "Wien", "Zürich", "京都"] * 5,
            "size": ["s", "m", "l", "l", "m", "s"] * 5,
            "age": np.arange(30, dtype=np.float32),
            "count": np.arange(30, dtype=np.int64)[::-1].copy(),
        }
    )
    target = np.where(frame["age"] > 14, "old", "young")
    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("order", OrdinalEncoder(), ["size"]),
            ("number", StandardScaler(), ["age", "count"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    kinds = {"city": StringTensorType, "size": StringTensorType, "age": FloatTensorType, "count": Int64TensorType}
    exported = to_onnx(
        model, initial_types=[(name, kind([None, 1])) for name, kind in kinds.items()], target_opset=OPSETS
    )
    admin.must_push(name, exported.SerializeToString())
    rows = frame[::3]
    inputs = {column: rows[[column]].to_numpy() for column in kinds}
    for client in CLIENTS:
        got = calls.ALL[client](server, name, inputs)
        check_labels(got["output_label"], model.predict(rows))
        np.testing.assert_allclose(got["output_probability"], model.predict_proba(rows), atol=1e-4)


def test_a_text_classifier(server, admin, name):
    # `lowercase` becomes an operator that needs the locale en_US.UTF-8 on the server's machine.
    texts = np.array(["good day sun", "bad rain storm", "sun and beach", "storm and flood", "rain again", "beach"])
    target = np.array(["nice", "awful", "nice", "awful", "awful", "nice"])
    model = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(texts, target)
    exported = to_onnx(model, initial_types=[("text", StringTensorType([None, 1]))], target_opset=OPSETS)
    admin.must_push(name, exported.SerializeToString())
    for client in CLIENTS:
        got = calls.ALL[client](server, name, {"text": texts.astype(object).reshape(-1, 1)})
        check_labels(got["output_label"], model.predict(texts))
        np.testing.assert_allclose(got["output_probability"], model.predict_proba(texts), atol=1e-4)


def test_a_retrained_classifier_replaces_the_old_one_for_its_clients(server, admin, name):
    first = LogisticRegression(max_iter=500).fit(X[50:], SPECIES[50:])
    second = LogisticRegression(max_iter=500).fit(X, SPECIES)
    for model in (first, second):
        serve(admin, name, model)
        check_classifier(server, name, model, "output_label", "output_probability")
    admin.roll_back(name)
    check_classifier(server, name, first, "output_label", "output_probability")
