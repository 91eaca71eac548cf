"""CloudEvents 1.0 in their JSON form: the one that started the job, and those that it answers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import EventError, PipelineError

VALIDATED = "dev.baton.dataset.validated.v1"
CONTENT_TYPE = "application/cloudevents+json"
# Bytes of `data` that an event may carry (docs/pipeline-reference.md).
MAX_DATA = 64 * 1024


@dataclass(frozen=True)
class Event:
    """An event that came. `data` is a JSON object."""

    source: str
    id: str
    type: str
    data: Mapping[str, Any]
    # The attribute `pipelinerun`, or what follows from `source` and `id` for an event that begins a run.
    run: str


def read(path: Path) -> Event:
    """The event in this file. Raises `EventError`."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise EventError(f"cannot read the event {path}: {error.strerror}") from error
    except ValueError as error:
        raise EventError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise EventError(f"{path} is no event: a JSON object was expected")
    if content.get("specversion") != "1.0":
        raise EventError(f"{path} is no CloudEvent 1.0: specversion is {content.get('specversion')!r}")
    for name in ("source", "id", "type"):
        if not isinstance(content.get(name), str) or not content[name]:
            raise EventError(f"{path} is no CloudEvent: {name} is missing")
    data = content.get("data")
    if not isinstance(data, dict):
        raise EventError(f"the event {content['id']!r} has no JSON object as data")
    source, event_id = content["source"], content["id"]
    run = content.get("pipelinerun")
    if not isinstance(run, str) or not run:
        run = digest(source, event_id)[:16]
    return Event(source, event_id, content["type"], data, run)


def answer(
    cause: Event, *, job: str, revision: str | None, kind: str, model: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    """The event of type `dev.baton.KIND.v1` with which `job` answers `cause`, ready to be sent.

    Its id follows from `cause`, job, revision and kind, so that a job that is started again says nothing new: unlike a
    function, a job has several answers, hence the kind; unlike a function's, they take long, and new code is worth a
    second answer, hence the revision. Raises `PipelineError` if the data are too large.
    """
    size = len(json.dumps(data, allow_nan=False).encode())
    if size > MAX_DATA:
        raise PipelineError(f"{kind}: {size} bytes of data, at most {MAX_DATA} are allowed in an event")
    parts = [cause.source, cause.id, job, *([revision] if revision else []), kind]
    return {
        "specversion": "1.0",
        "id": digest(*parts),
        "source": f"/baton/jobs/{job}",
        "type": f"dev.baton.{kind}.v1",
        "subject": model,
        "time": now(),
        "datacontenttype": "application/json",
        "pipelinerun": cause.run,
        "data": data,
    }


def digest(*parts: str) -> str:
    """Hex SHA-256 of the parts, joined by a zero byte."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def now() -> str:
    """RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
