"""scikit-learn models as ONNX, and the proof that the export answers as the trainer's own model does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import ExportError, missing

if TYPE_CHECKING:
    import numpy

# The newest that ONNX Runtime 1.24 and skl2onnx agree on; isolation forests fail with ai.onnx.ml 4 and 5.
OPSETS = {"": 21, "ai.onnx.ml": 3}
# Rows that are compared; of more, as many evenly spaced ones.
CHECKED_ROWS = 2000
SHOWN_ROWS = 5
REMEDY = (
    "Where trees stand behind a step that computes (a scaler, PCA), a rounding can put a value on the other side of a "
    "threshold: leave the step out, trees need none. Differences that do not matter to you are allowed by "
    "run.finish(..., tolerance=0.01)."
)


@dataclass(frozen=True)
class Exported:
    """An ONNX file and what its check found. `summary` goes into the provenance, `classes` into the bundle: a
    classifier's labels as text, in the order of its probabilities."""

    content: bytes
    input_name: str
    summary: dict[str, Any]
    classes: list[str] | None = None


def from_sklearn(
    model: Any, features: "numpy.ndarray", *, name: str, input_name: str, tolerance: float, opsets: dict[str, int]
) -> Exported:
    """Input FP32 [-1, columns]. Outputs of a classifier: `label` [-1] and `probabilities` FP32 [-1, classes].

    Raises `ExportError` if there is no export, or if it answers differently on a row of `features`.
    """
    skl2onnx, sklearn = _skl2onnx()
    # A true division, as scikit-learn's: times the inverse a value may come out beside a tree's threshold.
    scalers = (sklearn.preprocessing.StandardScaler, sklearn.preprocessing.RobustScaler)
    options: dict[Any, Any] = {scaler: {"div": "div"} for scaler in (*scalers, sklearn.preprocessing.MaxAbsScaler)}
    inputs = [(input_name, skl2onnx.common.data_types.FloatTensorType([None, features.shape[1]]))]
    try:
        is_classifier = sklearn.base.is_classifier(model)
        if is_classifier:
            # Else the probabilities are a sequence of maps, which is no tensor.
            options[id(model)] = {"zipmap": False}
        for classifier in _calibrated_behind_steps(model):
            # Calibration stands on these; skl2onnx asks the pipeline for them, which does not hand the question on.
            options[id(classifier)] = {"raw_scores": True}
        with _zipmap_known_to_all(model):
            exported = skl2onnx.to_onnx(model, initial_types=inputs, name=name, target_opset=opsets, options=options)
    except Exception as error:
        raise ExportError(f"skl2onnx cannot export {type(model).__name__}: {_shortly(error)}") from error
    if is_classifier and getattr(model.predict(features[:1]), "ndim", 1) > 1:
        raise ExportError(
            f"{type(model).__name__} answers several labels a row, run.finish takes models of one: write model.onnx "
            "yourself and give it to run.finish_files(folder, metrics)"
        )
    content = exported.SerializeToString()
    sample = evenly(features, CHECKED_ROWS)
    difference, compared = _compare(model, content, input_name, sample, tolerance, is_classifier)
    summary = {
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in exported.opset_import},
        "ir_version": exported.ir_version,
        "checked": {"rows": len(sample), "outputs": compared, "largest_difference": difference},
    }
    classes = getattr(model, "classes_", None) if is_classifier else None
    return Exported(content, input_name, summary, None if classes is None else [str(label) for label in classes])


def _parts(model: Any) -> Iterator[Any]:
    """The model, the steps of its pipelines, and what its calibrations stand on."""
    yield model
    for _, step in getattr(model, "steps", []):
        yield from _parts(step)
    for calibrated in getattr(model, "calibrated_classifiers_", []):
        yield from _parts(calibrated.estimator)


def _calibrated_behind_steps(model: Any) -> Iterator[Any]:
    """The classifiers whose scores are calibrated, as far as they are the last step of a pipeline."""
    for part in _parts(model):
        for calibrated in getattr(part, "calibrated_classifiers_", []):
            last = calibrated.estimator
            while hasattr(last, "steps"):
                last = last.steps[-1][1]
            if last is not calibrated.estimator and "raw_scores" in (_known_options(last) or {}):
                yield last


def _converter(part: Any) -> Any:
    """skl2onnx's, or None."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import get_converter

    alias = sklearn_operator_name_map.get(type(part))
    return alias and get_converter(alias)


def _known_options(part: Any) -> dict[str, Any] | None:
    converter = _converter(part)
    return converter and converter.get_allowed_options()


@contextmanager
def _zipmap_known_to_all(model: Any) -> Iterator[None]:
    """skl2onnx hands a pipeline's `zipmap` on to its last step, whether that knows it or not: LinearSVC does not, since it has
    no probabilities, and is refused. It may be told, and need not care."""
    import sklearn.base

    told = {}
    for part in _parts(model):
        converter = _converter(part) if sklearn.base.is_classifier(part) else None
        if converter is not None and "zipmap" not in (converter.get_allowed_options() or {}):
            told[converter] = converter.get_allowed_options()
            converter._options = {**(told[converter] or {}), "zipmap": [True, False]}
    try:
        yield
    finally:
        for converter, options in told.items():
            converter._options = options


def _compare(
    model: Any, content: bytes, input_name: str, sample: "numpy.ndarray", tolerance: float, is_classifier: bool
) -> tuple[float, list[str]]:
    """The largest difference and the names of the outputs that were compared."""
    import numpy

    outputs = run(content, {input_name: sample})
    names = list(outputs)
    if not is_classifier:
        # A regressor's only output, or an outlier detector's label beside scores.
        wanted = numpy.asarray(model.predict(sample))
        return close(numpy.asarray(outputs[names[0]]).reshape(wanted.shape), wanted, tolerance, names[0]), names[:1]
    wanted, got = numpy.asarray(model.predict(sample)), numpy.asarray(outputs["label"])
    if wanted.dtype.kind in "biuf":
        wanted = wanted.astype(numpy.int64)
    else:
        wanted, got = wanted.astype(str), got.astype(str)
    if not hasattr(model, "predict_proba"):
        same(got, wanted, "label", [])
        return 0.0, ["label"]
    probabilities = numpy.asarray(model.predict_proba(sample))
    difference = close(outputs["probabilities"], probabilities, tolerance, "probabilities")
    # Two classes that are as likely as each other within the tolerance: either is right.
    top = numpy.sort(probabilities, axis=1)[:, -2:]
    is_tie = top[:, 1] - top[:, 0] <= 2 * tolerance if top.shape[1] == 2 else []
    same(got, wanted, "label", is_tie)
    return difference, ["label", "probabilities"]


def same(got: "numpy.ndarray", wanted: "numpy.ndarray", what: str, excused: Any) -> None:
    """Equal in every row but the excused. Raises `ExportError` with the rows."""
    import numpy

    if got.shape != wanted.shape:
        raise ExportError(f"the exported model gives {what} the shape {got.shape}, the trainer's own {wanted.shape}")
    wrong = got != wanted
    if len(excused):
        wrong &= ~numpy.asarray(excused)
    _refuse(numpy.flatnonzero(wrong), len(wanted), what, lambda row: (wanted[row], got[row]))


def close(got: Any, wanted: Any, tolerance: float, what: str) -> float:
    """Numbers within `tolerance`, absolute or relative; the largest difference. Raises `ExportError` with the rows."""
    import numpy

    got, wanted = numpy.asarray(got, dtype=numpy.float64), numpy.asarray(wanted, dtype=numpy.float64)
    if got.shape != wanted.shape:
        raise ExportError(f"the exported model gives {what} the shape {got.shape}, the trainer's own {wanted.shape}")
    difference = numpy.abs(got - wanted)
    # NaN is never within anything: a model that answers it is of no use.
    right = difference <= tolerance * numpy.maximum(1.0, numpy.abs(wanted))
    rows = numpy.flatnonzero(~right.reshape(len(right), -1).all(axis=1))
    _refuse(
        rows, len(wanted), what, lambda row: (numpy.round(wanted[row], 6).tolist(), numpy.round(got[row], 6).tolist())
    )
    return float(difference.max()) if difference.size else 0.0


def _refuse(rows: Any, total: int, what: str, pair: Callable[[int], tuple[Any, Any]]) -> None:
    if not len(rows):
        return
    shown = []
    for row in rows[:SHOWN_ROWS]:
        wanted, got = pair(int(row))
        shown.append(f"row {row}: {str(wanted):.200} by the trainer's own, {str(got):.200} by the export")
    more = f"; and {len(rows) - len(shown)} more" if len(rows) > len(shown) else ""
    raise ExportError(
        f"the exported model answers differently ({what}) in {len(rows)} of {total} rows: {'; '.join(shown)}{more}. "
        f"The export computes in FP32. {REMEDY}"
    )


def session(content: bytes) -> Any:
    """One thread: sums are then added in the same order on every machine. Raises `ExportError`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("checking an export needs onnxruntime", "sklearn", error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot load the exported model: {error}") from error


def run(content: bytes, inputs: dict[str, Any]) -> dict[str, Any]:
    """All outputs by name. Raises `ExportError`."""
    runtime = session(content)
    names = [output.name for output in runtime.get_outputs()]
    try:
        return dict(zip(names, runtime.run(names, inputs), strict=True))
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot run the exported model: {error}") from error


def _shortly(error: BaseException) -> str:
    """What happened and what was behind it: a converter's own words may hold a whole forest."""
    first = f"{type(error).__name__}: {str(error)[:300]}"
    cause = error
    while (behind := cause.__cause__ or cause.__context__) is not None:
        cause = behind
    return first if cause is error else f"{first} (behind it: {type(cause).__name__}: {str(cause)[:300]})"


def evenly(rows: "numpy.ndarray", count: int) -> "numpy.ndarray":
    """At most `count` rows, evenly spaced from the first to the last."""
    import numpy

    if len(rows) <= count:
        return rows
    return rows[numpy.linspace(0, len(rows) - 1, count).round().astype(int)]


def _skl2onnx() -> tuple[Any, Any]:
    try:
        import skl2onnx
        import sklearn.base
        import sklearn.preprocessing
    except ImportError as error:
        raise missing("exporting needs skl2onnx", "sklearn", error) from error
    return skl2onnx, sklearn
