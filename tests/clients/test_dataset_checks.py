"""`baton dataset`: what it finds against NumPy and scikit-learn, what it refuses and masks, and a forest in ONNX."""

import gzip
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN
from sklearn.datasets import load_iris, make_blobs, make_moons
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from support.runner import BINARY, ONNXRUNTIME, REPOSITORY

SEEDS = range(12)


def baton(*arguments, code=None, environment=None):
    done = subprocess.run(
        [BINARY, "dataset", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={"ORT_DYLIB_PATH": ONNXRUNTIME, "PATH": "/usr/bin:/bin", **(environment or {})},
    )
    if code is not None:
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture
def check(tmp_path):
    """`check(rows or bytes, policy, *arguments) -> (report, scores)`"""

    def run(data, policy="", *arguments, name="data.csv", code=None):
        path = tmp_path / name
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame(data, columns=columns(data))
            # What is read is what was written, to the last bit.
            frame.to_csv(path, index=False, float_format="%.17g")
        (tmp_path / "policy.toml").write_text(policy)
        scores = tmp_path / "scores.csv"
        done = baton("check", path, "--policy", tmp_path / "policy.toml", "--json", "--scores", scores, *arguments)
        assert done.returncode in (0, 1), done.stderr
        if code is not None:
            assert done.returncode == code, done.stdout[-3000:]
        text = scores.read_text()
        return json.loads(done.stdout), pd.read_csv(scores) if text.count("\n") > 1 else None

    return run


def columns(data):
    return [f"c{index}" for index in range(np.asarray(data).shape[1])]


def marked(report, method):
    """Positions from 0 of the rows that a method has marked."""
    (found,) = [one for one in report["outliers"]["methods"] if one["method"] == method]
    assert found["flagged"] == len(found["rows"]), "few enough to be listed"
    return [row - 1 for row in found["rows"]]


def datasets(seed):
    """Random tables of very different shapes, some with planted outliers."""
    random = np.random.default_rng(seed)
    width = int(random.integers(1, 7))
    rows = int(random.integers(20, 700))
    yield random.normal(random.normal(0, 1e3), random.uniform(0.01, 100), (rows, width))
    yield random.lognormal(0, 1, (rows, width))
    yield np.vstack([random.normal(0, 1, (rows, width)), random.uniform(-15, 15, (5, width))])
    yield random.integers(0, 6, (rows, width)).astype(float)
    yield make_blobs(rows, max(width, 2), centers=4, random_state=seed)[0]
    yield make_moons(rows, noise=0.1, random_state=seed)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_sigma_is_numpys(check, seed):
    for data in datasets(seed):
        for k in (2.0, 3.0):
            report, _ = check(data, f'outliers = {{ methods = ["sigma"], sigma = {{ k = {k} }} }}')
            far = np.abs(data - data.mean(axis=0)) > k * data.std(axis=0, ddof=1)
            assert marked(report, "sigma") == np.flatnonzero(far.any(axis=1)).tolist()


@pytest.mark.parametrize("offset", [2**53 - 10**7, 1_760_000_000_000_000_000, 10**12])
def test_many_digits_in_common_hide_nothing(check, offset):
    # Multiples of 256, so that all of them are floats: what NumPy finds in the differences is exact.
    random = np.random.default_rng(offset % 1000)
    steps = random.normal(0, 1000, 5000).round().astype(np.int64) * 256
    steps[:5] += 256 * 8000
    frame = pd.DataFrame({"a": steps + offset // 256 * 256})
    report, _ = check(frame, 'outliers = { methods = ["sigma"] }')
    far = np.abs(steps - steps.mean()) > 3 * steps.std(ddof=1)
    assert marked(report, "sigma") == np.flatnonzero(far).tolist() and far.sum() >= 5
    np.testing.assert_allclose(report["profile"]["columns"][0]["std"], steps.std(ddof=1), rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_box_plot_is_numpys(check, seed):
    for data in datasets(seed):
        low, high = np.quantile(data, 0.25, axis=0), np.quantile(data, 0.75, axis=0)
        for whisker in (1.5, 3.0):
            report, _ = check(data, f'outliers = {{ methods = ["box"], box = {{ whisker = {whisker} }} }}')
            far = (data < low - whisker * (high - low)) | (data > high + whisker * (high - low))
            assert marked(report, "box") == np.flatnonzero(far.any(axis=1)).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_dbscan_is_scikit_learns(check, seed):
    for data in datasets(seed):
        standard = StandardScaler().fit_transform(data)
        for eps, min_samples in ((0.21, 4), (0.53, 6), (None, None)):
            chosen = f", dbscan = {{ eps = {eps}, min_samples = {min_samples} }}" if eps else ""
            report, _ = check(data, f'outliers = {{ methods = ["dbscan"]{chosen} }}')
            used = report["outliers"]["methods"][0]["parameters"]
            assert used["eps_rows"] <= len(data) and (used["eps_rows"] > 0) == (eps is None)
            # Not at the very distance of two rows of whole numbers, where the last bit decides.
            labels = DBSCAN(eps=used["eps"], min_samples=used["min_samples"]).fit(standard).labels_
            assert marked(report, "dbscan") == np.flatnonzero(labels == -1).tolist(), used


def planted(seed, rows=1500, width=5, count=30):
    """A cloud, and rows that lie around it; the truth."""
    random = np.random.default_rng(seed)
    direction = random.normal(0, 1, (count, width))
    far = direction / np.linalg.norm(direction, axis=1, keepdims=True) * random.uniform(6, 9, (count, 1))
    data = np.vstack([random.normal(0, 1, (rows, width)), far])
    order = random.permutation(len(data))
    return data[order], np.r_[np.zeros(rows), np.ones(count)][order]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_isolation_forest_ranks_as_scikit_learns(check, seed):
    data, truth = planted(seed)
    report, scores = check(data, 'outliers = { methods = ["isolation_forest"] }')
    theirs = -IsolationForest(random_state=seed).fit(data).score_samples(data)
    ours = scores["isolation_forest"]
    assert ours.corr(pd.Series(theirs), method="spearman") > 0.93
    assert roc_auc_score(truth, ours) > min(0.999, roc_auc_score(truth, theirs) - 0.005)
    # The scores are the same quantity, not merely in the same order.
    assert np.abs(ours - theirs).mean() < 0.02
    flagged = set(marked(report, "isolation_forest"))
    assert len(flagged & set(np.flatnonzero(truth))) >= 25
    assert len(flagged) <= 60


@pytest.mark.parametrize("seed", range(6))
def test_the_random_cut_forest_finds_what_was_planted(check, seed):
    data, truth = planted(seed)
    report, scores = check(data, 'outliers = { methods = ["random_cut_forest"] }')
    assert roc_auc_score(truth, scores["random_cut_forest"]) > 0.99
    flagged = set(marked(report, "random_cut_forest"))
    assert len(flagged & set(np.flatnonzero(truth))) >= 20
    assert len(flagged) <= 90


def test_the_random_cut_forest_is_not_drowned_by_empty_columns(check):
    random = np.random.default_rng(3)
    data = np.hstack([random.normal(0, 1, (600, 3)), random.normal(0, 1, (600, 37))])
    data[:8, :3] += 9
    truth = np.r_[np.ones(8), np.zeros(592)]
    report, scores = check(data)
    assert report["outliers"]["methods"][0]["method"] == "random_cut_forest", "chosen for so many columns"
    assert roc_auc_score(truth, scores["random_cut_forest"]) > 0.95


@pytest.mark.parametrize("per_column", [False, True])
def test_a_forest_in_onnx_judges_as_the_one_that_was_exported(check, tmp_path, per_column):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    data, _ = planted(1)
    data = data.astype(np.float32)
    forest = IsolationForest(n_estimators=50, contamination=0.02, random_state=0).fit(data)
    types = [("X", FloatTensorType([None, data.shape[1]]))]
    onnx = to_onnx(forest, initial_types=types, target_opset={"": 21, "ai.onnx.ml": 3})
    (tmp_path / "outlier.onnx").write_bytes(onnx.SerializeToString())
    frame = pd.DataFrame(data, columns=columns(data))
    if per_column:
        # One column more than the forest takes: it cannot be used, and one is fitted on the data itself.
        frame["more"] = data[:, 0] * 2
    report, scores = check(frame, "", "--forest", tmp_path / "outlier.onnx")
    found = report["outliers"]["methods"][0]
    assert found["method"] == "isolation_forest"
    if per_column:
        assert found["parameters"]["fitted_on"] == "the data itself"
        assert "OUTLIERS_SKIPPED" in [warning["code"] for warning in report["warnings"]]
        return
    assert found["parameters"]["fitted_on"] == "the active model's training data"
    assert marked(report, "isolation_forest") == np.flatnonzero(forest.predict(data) == -1).tolist()
    np.testing.assert_allclose(scores["isolation_forest"], -forest.decision_function(data), atol=1e-5)


def test_a_forest_takes_its_columns_by_name(check, tmp_path):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    data = planted(1)[0].astype(np.float32) * [1, 1000, 1, 1, 1] + [0, 0, 50, 0, 0]
    data = data.astype(np.float32)
    frame = pd.DataFrame(data, columns=list("abcde"))
    forest = IsolationForest(n_estimators=50, contamination=0.02, random_state=0).fit(data)
    types = [("X", FloatTensorType([None, data.shape[1]]))]
    onnx = to_onnx(forest, initial_types=types, target_opset={"": 21, "ai.onnx.ml": 3})
    entry = onnx.metadata_props.add()
    entry.key, entry.value = "baton.outlier.columns", json.dumps(list("abcde"))
    (tmp_path / "outlier.onnx").write_bytes(onnx.SerializeToString())
    # In another order, with one column more, and with one that does not vary.
    moved = frame[list("edcba")].assign(f=1.5, b=0.0)
    for rows in (frame, frame[list("ecdba")], moved):
        report, _ = check(rows, "", "--forest", tmp_path / "outlier.onnx", code=0)
        assert report["outliers"]["methods"][0]["parameters"]["fitted_on"] == "the active model's training data"
        expected = np.flatnonzero(forest.predict(rows[list("abcde")].to_numpy(np.float32)) == -1)
        assert marked(report, "isolation_forest") == expected.tolist()
    report, _ = check(frame.drop(columns="c"), "", "--forest", tmp_path / "outlier.onnx", code=0)
    assert any("takes a column \"c\"" in warning["text"] for warning in report["warnings"])


def test_what_is_no_onnx_model_is_no_forest(check, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x7fELF and so on")
    report, _ = check(planted(1)[0], "", "--forest", tmp_path / "bad.onnx", code=0)
    assert any("no ONNX model" in warning["text"] for warning in report["warnings"])


@pytest.mark.parametrize("seed", range(6))
def test_the_profile_is_pandas(check, seed):
    for data in datasets(seed):
        frame = pd.DataFrame(data, columns=columns(data))
        frame.iloc[::7, 0] = np.nan
        report, _ = check(frame)
        for column, profile in zip(frame.columns, report["profile"]["columns"], strict=True):
            there = frame[column].describe(percentiles=[0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
            assert profile["nulls"] == frame[column].isna().sum()
            assert profile["distinct"] == frame[column].nunique()
            for name in ("min", "max", "mean", "std"):
                np.testing.assert_allclose(profile[name], there[name], rtol=1e-9)
            np.testing.assert_allclose(profile["quantiles"], there.iloc[4:11], rtol=1e-12)
        assert report["profile"]["duplicate_rows"] == frame.duplicated().sum()


def psi(reference, data, bins=10):
    """The documented formula, by hand."""
    edges = np.quantile(reference, np.arange(1, bins) / bins)
    edges = np.union1d(edges, [reference.min(), np.nextafter(reference.max(), -np.inf)])
    counts = np.array(
        [np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) for x in (reference, data)]
    )
    counts = counts[:, counts.any(axis=0)] + 0.5
    expected, actual = counts / counts.sum(axis=1, keepdims=True)
    return float(((actual - expected) * np.log(actual / expected)).sum())


@pytest.mark.parametrize("seed", range(6))
def test_drift_is_the_documented_formula(check, tmp_path, seed):
    random = np.random.default_rng(seed)

    def rows(count, mean, share):
        labels = random.choice(["u", "v"], count, p=[share, 1 - share])
        return pd.DataFrame({"a": random.normal(mean, 1, count), "b": random.lognormal(0, 1, count), "y": labels})

    before, now = rows(800, 0, 0.5), rows(500, 0.7, 0.9)
    before.to_csv(tmp_path / "before.csv", index=False, float_format="%.17g")
    report, _ = check(now, 'label = "y"', "--previous", tmp_path / "before.csv", code=0)
    found = {column["column"]: column["psi"] for column in report["drift"][0]["columns"]}
    for column in ("a", "b"):
        assert found[column] == pytest.approx(psi(before[column], now[column]), abs=1e-9)
    warned = {warning.get("column") for warning in report["warnings"] if warning["code"] == "DRIFT"}
    assert {"a", "y"} <= warned and "b" not in warned, found
    report, _ = check(now, "drift = { psi_reject = 0.3 }", "--previous", tmp_path / "before.csv", code=1)
    assert "DRIFT" in [reason["code"] for reason in report["reasons"]]


def test_small_samples_of_one_distribution_do_not_drift(check, tmp_path):
    random = np.random.default_rng(0)
    for _ in range(10):
        before, now = (pd.DataFrame(random.normal(0, 1, (60, 6)), columns=list("abcdef")) for _ in range(2))
        before.to_csv(tmp_path / "before.csv", index=False)
        report, _ = check(now, "", "--previous", tmp_path / "before.csv", code=0)
        assert "DRIFT" not in [warning["code"] for warning in report["warnings"]]


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "content", [{"a": [1, 2.5, "x"]}, [[1, 2], [3, 4]], Evil(), pd.DataFrame({"a": [1]}), b"bytes", 10**30]
)
def test_pickles_are_refused(check, protocol, content):
    raw = pickle.dumps(content, protocol)
    for name, data in (("data.csv", raw), ("data.pkl", raw), ("data", raw), ("data.csv.gz", gzip.compress(raw))):
        report, _ = check(data, name=name, code=1)
        assert [reason["code"] for reason in report["reasons"]] == ["PICKLE"], (name, raw[:80])


def test_what_is_no_table_is_refused_with_its_code(check, tmp_path):
    def saved(write):
        write(tmp_path / "out")
        return (tmp_path / "out").read_bytes()

    def zipped(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model/data.pkl", pickle.dumps({"a": 1}))

    with open("/bin/sh", "rb") as program:
        elf = program.read()
    array = np.arange(6.0).reshape(3, 2)
    for name, data, code in (
        ("d.npy", saved(lambda path: np.save(path.open("wb"), array)), "FORMAT_UNSUPPORTED"),
        ("d.npy", saved(lambda path: np.save(path.open("wb"), np.array([{}, 1], dtype=object))), "PICKLE"),
        ("d.npz", saved(lambda path: np.savez(path.open("wb"), a=array)), "FORMAT_UNSUPPORTED"),
        ("d.zip", saved(zipped), "PICKLE"),
        ("d.csv", elf, "EXECUTABLE"),
        ("d.csv", b"#!/bin/sh\nrm -rf /\n", "EXECUTABLE"),
        ("d.csv", b"\n\n#!/usr/bin/python3\nimport os\n", "EXECUTABLE"),
        ("d.csv", b"@echo off\r\ndel *.*\r\n", "EXECUTABLE"),
        ("d.csv.gz", gzip.compress(bytes(300 << 20)), "ARCHIVE_BOMB"),
        ("d.csv", "a,b\nä,ö\n".encode("utf-16"), "NOT_UTF8"),
        ("d.csv", "a,b\nä,ö\n".encode("latin-1"), "NOT_UTF8"),
        ("d.csv", b"a,b\n1,\x00\n", "NUL_BYTES"),
        ("d.jsonl", b'{"a": "x\\u0000"}\n', "NUL_BYTES"),
        ("d.jsonl", b'{"a": "\\ud800"}\n', "BAD_JSON"),
        ("d.csv", b"\xef\xbb\xbf\xef\xbb\xbfa,b\n1,2\n", "NOT_UTF8"),
        ("d.csv", b"", "EMPTY_FILE"),
        ("d.csv", b"a,b\n", "NO_ROWS"),
        ("d.csv", b"a,b\n1\n2,3\n", "RAGGED_ROWS"),
        ("d.csv", b"a,a\n1,2\n", "HEADER_DUPLICATE"),
        ("d.csv", b'a,b\n1,"2\n', "BAD_QUOTES"),
        ("d.csv", b'{"a": 1}\n', "WRONG_FORMAT"),
        ("d.parquet", b"PAR1" + bytes(100) + b"PAR1", "FORMAT_UNSUPPORTED"),
        ("d.csv", b"x,y\n" + b"1,2\n" * 30 + b"inf,3\n", "MIXED_TYPES"),
    ):
        report, _ = check(data, name=name, code=1)
        assert [reason["code"] for reason in report["reasons"]] == [code], (name, report["reasons"])
        assert report["verdict"] == "rejected" and report["format"] == 3


def test_other_encodings_of_rows_give_the_same_parts(check, tmp_path):
    frame = pd.DataFrame({"a": np.arange(50), "b": ["x", "ü,\"\n"] * 25})
    comma = frame.to_csv(index=False).encode()
    lines = frame.to_json(orient="records", lines=True, force_ascii=False).encode()
    parts = []
    for name, data in (
        ("d.csv", comma),
        ("d.csv", b"\xef\xbb\xbf" + comma),
        ("d.csv", frame.to_csv(index=False, lineterminator="\r\n").replace("ü,\"\"\r\n", "ü,\"\"\n").encode()),
        ("d.tsv", frame.to_csv(index=False, sep="\t").encode()),
        ("d.csv.gz", gzip.compress(comma)),
        ("d.jsonl", lines),
    ):
        training, holdout = tmp_path / "training.csv", tmp_path / "holdout.csv"
        check(data, "", "--training", training, "--holdout", holdout, name=name, code=0)
        parts.append((training.read_bytes(), holdout.read_bytes()))
        both = pd.concat([pd.read_csv(training), pd.read_csv(holdout)]).sort_values("a").reset_index(drop=True)
        pd.testing.assert_frame_equal(both, frame)
    assert all(part == parts[0] for part in parts)


def test_what_is_accepted_can_be_trained_on(check, tmp_path):
    sys.path.insert(0, str(REPOSITORY / "pipeline/python/src"))
    from baton_pipeline.errors import DataError
    from baton_pipeline.table import Table

    rows = "".join(f"{row},{'NA' if row % 5 == 0 else row}, N/A ,{row % 2}\n" for row in range(60))
    training = tmp_path / "training.csv"
    check(f"id,a,b,y\n{rows}".encode(), 'key = "id"\nlabel = "y"\n', "--training", training, code=0)
    table = Table(training, "y", key="id")
    assert table.columns == ["a", "b"], "the key names rows"
    assert np.isnan(table.features[:, 1]).all() and 0 < np.isnan(table.features[:, 0]).mean() < 0.5
    with pytest.raises(DataError, match="names rows"):
        Table(training, "y", ["id", "a"], "id")


def test_what_the_policy_does_to_outliers_is_done_to_the_training_part_only(check, tmp_path):
    frame = load_iris(as_frame=True).frame.reset_index(names="id")
    frame.loc[[3, 77], "sepal length (cm)"] = 300.0
    frame.loc[[120, 40], "petal width (cm)"] = -50.0
    policy = 'key = "id"\nlabel = "target"\n[outliers]\nmethods = ["sigma"]\naction = "{}"\n'
    parts = {}
    for action in ("annotate", "drop", "impute"):
        training, holdout = tmp_path / "training.csv", tmp_path / "holdout.csv"
        report, _ = check(frame, policy.format(action), "--training", training, "--holdout", holdout, code=0)
        parts[action] = (pd.read_csv(training).set_index("id"), holdout.read_bytes())
    bad = [row for row in marked(report, "sigma") if row in parts["annotate"][0].index]
    assert len(bad) >= 2 and len({holdout for _, holdout in parts.values()}) == 1
    assert sorted(set(parts["annotate"][0].index) - set(parts["drop"][0].index)) == sorted(bad)
    imputed = parts["impute"][0]
    pd.testing.assert_frame_equal(imputed.drop(bad), parts["annotate"][0].drop(bad))
    for column, rows in (("sepal length (cm)", (3, 77)), ("petal width (cm)", (120, 40))):
        for row in set(rows) & set(bad):
            assert imputed.loc[row, column] == parts["drop"][0][column].median()


def test_rows_must_fit_the_contract_of_the_served_model(server, admin, name, check):
    iris = load_iris(as_frame=True).frame
    iris.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width", "label"]
    policy = f'model = "{name}"\nlabel = "label"\ncontract = "served"\n'
    arguments = ("--server", f"http://{server.admin}")

    def codes(report, sort):
        return [finding["code"] for finding in report[sort] if finding["code"].startswith("CONTRACT")]

    report, _ = check(iris, policy, *arguments, code=0)
    assert codes(report, "warnings") == ["CONTRACT_ABSENT"], "no such model yet"
    model = (REPOSITORY / "sample-models/iris/v1/model.onnx").read_bytes()
    admin.must_push(name, model)
    report, _ = check(iris, policy, *arguments, code=0)
    assert codes(report, "warnings") == ["CONTRACT_ABSENT"], "an inferred one promises nothing"
    package = name.replace("-", "_")
    contract = f"""syntax = "proto3"; package served.{package};
        service IrisClassifier {{ rpc Classify(Features) returns (Prediction); }}
        message Features {{
            float sepal_length = 1; float sepal_width = 2; float petal_length = 3; float petal_width = 4; }}
        message Prediction {{ int64 label = 1; repeated float probabilities = 2; }}"""
    admin.must_push(name, model, contract=contract)
    report, _ = check(iris, policy, *arguments, code=0)
    assert codes(report, "warnings") == []
    report, _ = check(iris.rename(columns={"petal_width": "petalWide"}), policy, *arguments, code=1)
    assert codes(report, "reasons") == ["CONTRACT"] and "petal_width" in report["reasons"][0]["text"]
    iris.loc[3, "sepal_width"] = 1e300
    report, _ = check(iris, policy, *arguments, code=1)
    assert report["reasons"][0]["rows"] == [4]


def test_the_same_file_gives_the_same_bytes(check, tmp_path):
    data = planted(2)[0]
    seen = set()
    for run in range(3):
        page, training = tmp_path / f"{run}.html", tmp_path / f"{run}.csv"
        report, scores = check(data, "", "--html", page, "--training", training)
        seen.add((json.dumps(report), scores.to_csv(), page.read_text(), training.read_text()))
    assert len(seen) == 1


def test_masked_columns_hold_nothing_private(tmp_path):
    frame = pd.DataFrame({"name": ["Ann", "Bob", "Ann"], "mail": ["a@x", "b@x", "c@x"], "age": [34, -5, 61]})
    frame.to_csv(tmp_path / "people.csv", index=False)
    policy = tmp_path / "policy.toml"
    policy.write_text('[mask.columns]\nname = "hash"\nmail = "remove"\nage = "bucket=10"\n')
    salt = {"BATON_MASK_SALT": "a salt that is long enough"}
    arguments = ("mask", tmp_path / "people.csv", "--policy", policy, "--out", tmp_path / "masked.csv")
    baton(*arguments, code=0, environment=salt)
    masked = pd.read_csv(tmp_path / "masked.csv")
    assert list(masked.columns) == ["name", "age"] and list(masked.age) == [30, -10, 60]
    assert masked.name[0] == masked.name[2] != masked.name[1] and len(masked.name[0]) == 32
    assert "salt" in baton(*arguments, code=1).stderr
    policy.write_text('[mask.columns]\nnmae = "hash"\n')
    assert "nmae" in baton(*arguments, code=1, environment=salt).stderr


def test_no_file_that_is_read_is_written_and_no_part_of_a_rejected_one(tmp_path):
    data, part = tmp_path / "d.csv", tmp_path / "part.csv"
    data.write_text("a\n" + "".join(f"{row}\n" for row in range(50)))
    part.write_text("old")
    for output in ("--training", "--holdout", "--scores", "--html"):
        assert "is read" in baton("check", data, output, tmp_path / "." / "d.csv", code=64).stderr
    assert "already" in baton("check", data, "--training", part, "--holdout", part, code=64).stderr
    assert data.read_text().count("\n") == 51 and part.read_text() == "old"
    (tmp_path / "p.toml").write_text("columns.a.max = 5")
    baton("check", data, "--policy", tmp_path / "p.toml", "--training", part, code=1)
    assert part.read_text() == "old"


def test_wrong_usage_is_told(tmp_path):
    (tmp_path / "d.csv").write_text("a\n1\n")
    (tmp_path / "p.toml").write_text("hold_out = 1")
    assert "cannot read" in baton("check", tmp_path / "nothing.csv", code=64).stderr
    assert "hold_out" in baton("check", tmp_path / "d.csv", "--policy", tmp_path / "p.toml", code=64).stderr
    assert "cannot be a name" in baton("push", "../x", tmp_path / "d.csv", "--store", tmp_path / "s", code=64).stderr
    sink = "http://127.0.0.1:1/"
    done = baton("push", "d", tmp_path / "d.csv", "--store", tmp_path / "s", "--sink", sink, code=69)
    assert "in the store" in done.stderr
