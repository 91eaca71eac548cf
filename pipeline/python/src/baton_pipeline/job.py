"""One training as a job: from the event that started it to the events that it answers.

Environment and events are those of docs/pipeline-reference.md.
"""

import hashlib
import json
import re
import sys
import tomllib
import traceback
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import origin, parameters, record
from .errors import EventError, PipelineError, SinkUnreachable, StoreError, UsageError
from .events import MAX_DATA, VALIDATED, Event, answer, now, read
from .meter import Meter
from .record import Origin
from .run import Run
from .sink import Sink
from .store import DIGEST, Reference, Store, open_store
from .table import Table

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# How long the end of a training is tried to be told; the beginning is worth less.
PATIENCE_S = 300.0
PATIENCE_AT_START_S = 30.0
# Characters of `error` in training.failed.
MAX_ERROR = 6000


@dataclass(frozen=True)
class Order:
    """What the event and the environment ask for."""

    event: Event
    # The job's name and revision, which go into its events.
    job: str
    revision: str | None
    model: str
    dataset: str
    dataset_digest: str
    store: Store
    sink: Sink
    environment: Mapping[str, str]

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Order":
        """Raises `UsageError` or `EventError` for a job that cannot even say that it failed."""

        def required(name: str) -> str:
            if not environment.get(name):
                raise UsageError(f"{name} is not set; a job of a pipeline has it")
            return environment[name]

        event = read(Path(required("K_EVENT_PATH")) / "event")
        if event.type != VALIDATED:
            raise EventError(f"a trainer answers {VALIDATED}, not {event.type}")
        dataset = event.data.get("dataset")
        if not isinstance(dataset, str) or not NAME.fullmatch(dataset):
            raise EventError(f"data.dataset is no name of a data set: {dataset!r:.100}")
        dataset_digest = event.data.get("digest")
        if not isinstance(dataset_digest, str) or not DIGEST.fullmatch(dataset_digest):
            raise EventError(f"data.digest is no digest: {dataset_digest!r:.100}")
        try:
            policy_model = policy(environment).get("model")
        except UsageError:
            # It is read again where a failure can be told.
            policy_model = None
        model = event.data.get("model") or policy_model or environment.get("BATON_MODEL") or dataset
        if not isinstance(model, str) or not NAME.fullmatch(model):
            raise EventError(f"{model!r:.100} cannot be the name of a model: a-z, 0-9, '.', '_', '-', at most 63")
        revision = environment.get("K_REVISION") or None
        return cls(
            event=event,
            job=environment.get("K_SERVICE") or environment.get("BATON_JOB") or _without_digest(revision) or "train",
            revision=revision,
            model=model,
            dataset=dataset,
            dataset_digest=dataset_digest,
            store=open_store(required("BATON_ARTIFACTS")),
            sink=Sink(required("K_SINK"), _patience(environment)),
            environment=environment,
        )

    def reference(self, field: str) -> Reference | None:
        """A reference of the event's data. Raises `EventError`."""
        value = self.event.data.get(field)
        return None if value is None else Reference.parse(value, f"data.{field}")

    def say(self, kind: str, data: Mapping[str, Any], patience_s: float | None = None) -> None:
        """Posts the answer of this kind. Raises `SinkError`."""
        self.sink.post(
            answer(self.event, job=self.job, revision=self.revision, kind=kind, model=self.model, data=data), patience_s
        )


@dataclass(frozen=True)
class Inputs:
    """Everything that decides what comes out; `memo` is its digest."""

    label: str
    features: list[str] | None
    key: str | None
    training: Reference
    policy: dict[str, Any]
    parameters: dict[str, Any]
    origin: Origin
    memo: str


class Training:
    """The way of a job: `prepare`; `repeat_earlier` or `begin`; then `end`. `fail` at any point."""

    def __init__(self, order: Order, meter: Meter):
        self._order, self._meter = order, meter
        self._resources = ExitStack()

    def prepare(self, code: Iterable[str | Path] | None) -> Inputs:
        """Reads what there is to read before the data. Raises `PipelineError`."""
        order = self._order
        rules = policy(order.environment)
        given = parameters.from_environment(order.environment)
        label = order.event.data.get("label") or rules.get("label") or order.environment.get("BATON_LABEL")
        if not isinstance(label, str):
            raise UsageError('which column is the label? Neither the event nor the policy (label = "...") says')
        features = order.event.data.get("features") or rules.get("features")
        if features is not None and not (
            isinstance(features, list) and all(isinstance(name, str) for name in features)
        ):
            raise UsageError(f"features is no list of columns: {features!r:.200}")
        key = order.event.data.get("key") or rules.get("key")
        if key is not None and not isinstance(key, str):
            raise UsageError(f"key is no name of a column: {key!r:.200}")
        training = order.reference("training")
        if training is None:
            raise EventError("data.training is missing: the reference to the training data")
        made = Origin(origin.code(code), origin.environment(), origin.who(), now(), order.revision)
        decisive = {
            "model": order.model,
            "dataset": [order.dataset, order.dataset_digest],
            "training": training.digest,
            "label": label,
            "features": features,
            "key": key,
            "code": made.code.digest,
            # Whoever says what the code is has said all; else the engine knows of more files than *.py.
            "revision": _without_repetition(order.revision) if code is None else None,
            "environment": made.environment.digest,
            "parameters": given,
            # They do not decide about the model, but the bundle names them.
            **{name: found and found.digest for name in ("holdout", "report") for found in [order.reference(name)]},
        }
        memo = hashlib.sha256(record.dumps(decisive, what="the run's inputs")).hexdigest()
        return Inputs(label, features, key, training, rules, given, made, memo)

    def repeat_earlier(self, inputs: Inputs) -> bool:
        """Says that an earlier run's model is the answer, if one had the same inputs and its bundle is still whole."""
        order = self._order
        found = order.store.memo("train", inputs.memo)
        if found is None:
            return False
        try:
            bundle = Reference.parse(found.get("bundle"), "bundle")
            is_whole = all(order.store.has(part) for part in record.parts(order.store, bundle))
        except PipelineError:
            return False
        if is_whole:
            own = {"run": order.event.run, "who": inputs.origin.who, "started": inputs.origin.started}
            cost = self._meter.cost()
            order.say("training.finished", {**found, **own, "finished": now(), "cost": cost, "reused": True})
        return is_whole

    def begin(self, inputs: Inputs) -> Run:
        """Says that it begins, and loads the data. Nobody has to hear it: what is made is kept in the store. Raises
        `PipelineError`."""
        order = self._order
        patience = min(order.sink.patience_s, PATIENCE_AT_START_S)
        try:
            order.say("training.started", _fitting(self._facts(inputs, inputs.parameters)), patience)
        except SinkUnreachable as error:
            print(f"baton-pipeline: training all the same: {error}", file=sys.stderr, flush=True)
        path = self._resources.enter_context(order.store.file(inputs.training))
        return Run(
            name=order.event.run,
            model=order.model,
            dataset=order.dataset,
            dataset_digest=order.dataset_digest,
            table=Table(path, inputs.label, inputs.features, inputs.key),
            # The trainer's defaults are added to its own copy.
            parameters=dict(inputs.parameters),
            policy=inputs.policy,
        )

    def end(self, run: Run, inputs: Inputs) -> None:
        """Uploads what `finish` was given and says so. Raises `PipelineError`; `SinkUnreachable` if only the last word
        is missing."""
        if run.result is None:
            raise UsageError(
                "the training ended without run.finish(model, metrics) or run.finish_files(folder, metrics)"
            )
        order, result = self._order, run.result
        parameters.checked(run.parameters)
        files = {**result.files, "provenance.json": record.provenance(run, result, inputs.origin, self._meter)}
        bundle = record.upload(run, result, files, order.store, dict(order.event.data))
        data = {
            **self._facts(inputs, run.parameters),
            "finished": now(),
            "bundle": bundle.json(),
            "metrics": result.metrics,
            "cost": self._meter.cost(),
            "holdout": order.event.data.get("holdout"),
            "report": order.event.data.get("report"),
            "reused": False,
        }
        data = _fitting(data)
        # Before it is said: a job that is killed in between finds it when it is started again.
        order.store.remember("train", inputs.memo, data)
        self._resources.close()
        order.say("training.finished", data)

    def fail(self, error: BaseException) -> None:
        """Says that it failed, if it can; the failure itself is the caller's to raise or print."""
        self._resources.close()
        order = self._order
        data = {
            "run": order.event.run,
            "model": order.model,
            "dataset": order.dataset,
            "dataset_digest": order.dataset_digest,
            "reason": _reason(error),
            "error": _told(error),
            "cost": self._meter.cost(),
        }
        try:
            order.say("training.failed", data)
        except PipelineError as silence:
            print(f"baton-pipeline: the failure could not be told: {silence}", file=sys.stderr, flush=True)

    def _facts(self, inputs: Inputs, used: dict[str, Any]) -> dict[str, Any]:
        order, made = self._order, inputs.origin
        return {
            "run": order.event.run,
            "model": order.model,
            "dataset": order.dataset,
            "dataset_digest": order.dataset_digest,
            "parameters": used,
            "code": made.code.json(),
            "environment": made.environment.json(),
            "who": made.who,
            "started": made.started,
        }


def policy(environment: Mapping[str, str]) -> dict[str, Any]:
    """The data set's policy. Raises `UsageError`."""
    try:
        return tomllib.loads(environment.get("BATON_POLICY", ""))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"BATON_POLICY is no TOML: {error}") from error


def _fitting(data: dict[str, Any]) -> dict[str, Any]:
    """Without the list of packages, which the provenance has, if the event would be too large with it."""
    if len(record.dumps(data, what="the event's data")) <= MAX_DATA:
        return data
    return {**data, "environment": {**data["environment"], "packages": {}}}


def _without_digest(revision: str | None) -> str | None:
    """The name in a revision, NAME-DIGEST."""
    return revision.rpartition("-")[0] or None if revision else None


def _without_repetition(revision: str | None) -> str | None:
    """A job that is repeated on request has `.N` behind its revision; the code is the same."""
    return re.sub(r"\.\d+$", "", revision) if revision else None


def _patience(environment: Mapping[str, str]) -> float:
    text = environment.get("BATON_SINK_PATIENCE_S", "")
    try:
        return float(text) if text else PATIENCE_S
    except ValueError:
        raise UsageError(f"BATON_SINK_PATIENCE_S is no number of seconds: {text!r}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    return "exit" if isinstance(error, (SystemExit, KeyboardInterrupt)) else "error"


def _told(error: BaseException) -> str:
    """What happened, and for a failure that is not one of ours where: the end of the traceback."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if not isinstance(error, PipelineError):
        trace = "".join(traceback.format_exception(error))
        text = f"{text[: MAX_ERROR // 2]}\n\n{trace[-MAX_ERROR // 2 :]}"
    # Names of files may hold bytes that are no UTF-8.
    return text[:MAX_ERROR].encode("utf-8", "replace").decode()
