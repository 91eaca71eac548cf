"""What a trainer sees: the data, the parameters, and where to put the model."""

import json
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import golden, outliers
from .errors import ExportError, UsageError
from .export import OPSETS, from_sklearn
from .export_torch import from_torch, is_module
from .table import Table

if TYPE_CHECKING:
    import numpy

MODEL_FILES = ("model.onnx", "model.so")
# What a bundle may hold; `outlier.onnx` stays in the store, the runner gets the others.
PARTS = (*MODEL_FILES, "contract.proto", "baton.toml", "golden.jsonl", "provenance.json", "outlier.onnx")
MAX_METRICS = 256
MAX_NAME = 100


@dataclass
class Result:
    """What `finish` was given: files by name, and figures. `notes` go into the provenance, `classes` into the bundle
    too."""

    files: dict[str, bytes]
    metrics: dict[str, float]
    notes: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None


class Run:
    """One training. Made by `main` or `training_run`.

    `name` is the run's, `model` what is to be served, `dataset` and `dataset_digest` what it is trained on,
    `parameters` by name,
    `policy` the data set's policy as a dict.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        dataset: str,
        dataset_digest: str,
        table: Table,
        parameters: dict[str, Any],
        policy: Mapping[str, Any],
    ):
        self.name, self.model, self.dataset, self.dataset_digest = name, model, dataset, dataset_digest
        self.parameters, self.policy = parameters, policy
        self.result: Result | None = None
        self._table = table

    @property
    def training_file(self) -> Path:
        """The training data as a CSV file, verified; read it, do not change it."""
        return self._table.path

    @property
    def label(self) -> str:
        """The column to predict."""
        return self._table.label

    @property
    def columns(self) -> list[str]:
        """The columns of `features`."""
        return self._table.columns

    @property
    def features(self) -> "numpy.ndarray":
        """FP32 [rows, columns]; an empty cell is NaN. Raises `DataError` for a cell that is no number."""
        return self._table.features

    @property
    def labels(self) -> "numpy.ndarray":
        """One a row: INT64, FP64 or text, whichever holds all. Raises `DataError` for a row without."""
        return self._table.labels

    def rows(self) -> Iterator[dict[str, str]]:
        """Each row as text by column, for data that are no numbers."""
        return self._table.rows()

    def parameter(self, name: str, default: Any) -> Any:
        """A parameter of the run; `default`, which is recorded too, if none was given. Variables of the environment
        have no case."""
        if name not in self.parameters:
            same = [given for given in self.parameters if given.lower() == name.lower()]
            self.parameters[name] = self.parameters.pop(same[0]) if same else default
        value = self.parameters[name]
        if isinstance(default, float) and type(value) is int:
            return float(value)
        if default is not None and type(value) is not type(default):
            raise UsageError(f"the parameter {name} is {value!r}; as {default!r} it has to be {type(default).__name__}")
        return value

    def finish(
        self,
        model: Any,
        metrics: Mapping[str, float],
        *,
        input_name: str = "features",
        contract: str | Path | None = None,
        settings: str | Path | None = None,
        outliers: float | None = None,
        tolerance: float = 1e-4,
        opsets: Mapping[str, int] | None = None,
        classes: Iterable[Any] | None = None,
    ) -> None:
        """The result: a fitted scikit-learn model (pipelines too) or a PyTorch module, which is exported to ONNX and
        checked.

        `metrics` are the trainer's own figures. `contract` and `settings` are texts or files: contract.proto and
        baton.toml. `outliers=0.999` adds an isolation forest over the training rows, by which that share of them is
        ordinary. Every row of a sample has to be answered as the model itself does: equal labels, other numbers within
        `tolerance`. `classes` are the labels, as the data have them, in the order in which the model numbers them:
        scikit-learn's own (`classes_`) unless they are given. Raises `ExportError`.
        """
        self._refuse_second()
        checked, named = _metrics(metrics), _classes(classes)
        if is_module(model):
            exported = from_torch(model, self.features, input_name=input_name, tolerance=tolerance)
        else:
            exported = from_sklearn(
                model,
                self.features,
                name=self.model,
                input_name=input_name,
                tolerance=tolerance,
                opsets=dict(opsets or OPSETS),
            )
        if named and exported.classes and len(named) != len(exported.classes):
            raise UsageError(f"classes has {len(named)} labels, the model {len(exported.classes)}")
        files = {"model.onnx": exported.content, "baton.toml": self._settings(settings)}
        notes: dict[str, Any] = {"trainer": _kind(model), "onnx": exported.summary}
        if rows := golden.rows(exported.content, exported.input_name, self.features, self.labels):
            files["golden.jsonl"] = rows
        if contract is not None:
            files["contract.proto"] = _text(contract)
        if outliers is not None:
            files["outlier.onnx"], notes["outlier"] = self._forest(outliers)
        self.result = Result(files, checked, notes, named or exported.classes)

    def finish_files(
        self, folder: str | Path, metrics: Mapping[str, float], *, classes: Iterable[Any] | None = None
    ) -> None:
        """The result as files that the trainer wrote: `model.onnx` or `model.so`, and any of `contract.proto`,
        `baton.toml`, `golden.jsonl`, `outlier.onnx`, `provenance.json` (an object, which is completed). `classes`
        as of `finish`. Nothing is checked here: give golden rows.
        """
        self._refuse_second()
        checked, folder = _metrics(metrics), Path(folder)
        files = {name: (folder / name).read_bytes() for name in PARTS if (folder / name).is_file()}
        models = [name for name in MODEL_FILES if name in files]
        if len(models) != 1:
            found = " and ".join(models) or "neither"
            raise ExportError(f"{folder} needs one of {' and '.join(MODEL_FILES)}, it has {found}")
        if not files[models[0]]:
            raise ExportError(f"{folder / models[0]} is empty")
        try:
            notes = json.loads(files.pop("provenance.json", b"{}"))
        except ValueError as error:
            raise ExportError(f"{folder / 'provenance.json'} is no JSON: {error}") from error
        if not isinstance(notes, dict):
            raise ExportError(f"{folder / 'provenance.json'} is no JSON object")
        files.setdefault("baton.toml", self._settings(None))
        self.result = Result(files, checked, notes, _classes(classes))

    def _forest(self, share: float) -> tuple[bytes, dict[str, Any]]:
        return outliers.forest(self.features, self.columns, share)

    def _settings(self, given: str | Path | None) -> bytes:
        if given is not None:
            return _text(given)
        # A JSON string is a TOML string.
        description = f"{self.model}, trained on {self.dataset} {self.dataset_digest[:19]}, run {self.name}"
        return f"description = {json.dumps(description[:500])}\n".encode()

    def _refuse_second(self) -> None:
        if self.result is not None:
            raise UsageError("the run is finished already: one run makes one model")


def _metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Checked figures, as plain numbers: an event has no word for NaN, and no room for thousands."""
    if len(metrics) > MAX_METRICS:
        raise UsageError(f"{len(metrics)} metrics, at most {MAX_METRICS} are recorded; keep the others in a file")
    checked: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise UsageError(f"{name!r:.120} cannot be the name of a metric: a text of 1 to {MAX_NAME} characters is")
        # numpy's numbers too: those of FP32 are no float.
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UsageError(f"the metric {name} is no number: {value!r:.120}")
        if not math.isfinite(value):
            raise UsageError(f"the metric {name} is {float(value)}, not a finite number")
        checked[name] = int(value) if isinstance(value, int) and abs(value) < 2**53 else float(value)
    return checked


def _classes(given: Iterable[Any] | None) -> list[str] | None:
    return None if given is None else [str(label) for label in given]


def _kind(model: Any) -> str:
    """`Pipeline(StandardScaler, LogisticRegression)`"""
    steps = getattr(model, "steps", None)
    inner = ", ".join(type(step).__name__ for _, step in steps) if isinstance(steps, list) else ""
    return type(model).__name__ + (f"({inner})" if inner else "")


def _text(given: str | Path) -> bytes:
    return given.read_bytes() if isinstance(given, Path) else given.encode()
