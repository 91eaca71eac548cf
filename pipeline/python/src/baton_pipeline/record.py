"""What is written down about a run: its provenance, and the bundle that holds everything together."""

import json
from dataclasses import dataclass
from typing import Any

from .errors import PipelineError, StoreError
from .events import now
from .meter import Meter
from .origin import Code, Environment
from .run import Result, Run
from .store import Reference, Store

# The runner takes no larger provenance.
MAX_PROVENANCE = 1024 * 1024


@dataclass(frozen=True)
class Origin:
    """Who trains with what since when."""

    code: Code
    environment: Environment
    who: str
    started: str
    # The job's, by the engine: over its part of the manifest and every file of its folder.
    revision: str | None = None


def provenance(run: Run, result: Result, origin: Origin, meter: Meter) -> bytes:
    """provenance.json of a finished run; the cost is that up to now. Raises `PipelineError` if it would be larger than
    1 MiB."""
    record = {
        **result.notes,
        "run": run.name,
        "model": run.model,
        "dataset": {"name": run.dataset, "digest": run.dataset_digest},
        "label": run.label,
        "features": run.columns,
        "classes": result.classes,
        "parameters": run.parameters,
        "metrics": result.metrics,
        "code": {**origin.code.json(), "files": origin.code.files},
        "revision": origin.revision,
        "environment": origin.environment.json(),
        "cost": meter.cost(),
        "who": origin.who,
        "started": origin.started,
        "finished": now(),
    }
    text = dumps(record, indent=2, what="the provenance")
    if len(text) > MAX_PROVENANCE:
        raise PipelineError(
            f"the provenance has {len(text)} bytes, at most {MAX_PROVENANCE} are allowed: fewer parameters, files"
        )
    return text


def upload(run: Run, result: Result, files: dict[str, bytes], store: Store, data: dict[str, Any]) -> Reference:
    """Stores the files and the bundle that names them; `data` has what the bundle copies from the event."""
    parts = {name: store.put(content).json() for name, content in sorted(files.items())}
    bundle = {
        "model": run.model,
        "parts": parts,
        "run": run.name,
        "dataset": run.dataset,
        "dataset_digest": run.dataset_digest,
        "label": run.label,
        "features": run.columns,
        **({} if result.classes is None else {"classes": result.classes}),
        **{name: data[name] for name in ("report", "holdout") if data.get(name) is not None},
    }
    return store.put(dumps(bundle, indent=2, what="the bundle"))


def dumps(value: Any, *, indent: int | None = None, what: str) -> bytes:
    """JSON, without NaN. Raises `PipelineError` for what JSON cannot hold."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False, sort_keys=indent is None).encode()
    except (TypeError, ValueError) as error:
        raise PipelineError(f"{what} cannot be written as JSON: {error}") from error


def parts(store: Store, bundle: Reference) -> list[Reference]:
    """The parts of a bundle in the store. Raises `StoreError` or `EventError` for one that is none."""
    try:
        content = json.loads(store.get(bundle))
        return [Reference.parse(value, f"part {name}") for name, value in content["parts"].items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{bundle.key} is no bundle: {error}") from error
