"""A function on Knative's own middleware (`func-python`): answers each event with what it saw of it
(pipeline/conformance/README.md).

The same file runs behind Knative and behind `baton pipeline serve`; the middleware reads LISTEN_ADDRESS and answers
/health/readiness.
"""

import base64
import hashlib
import os

from cloudevents.core.v1.event import CloudEvent
from func_python.cloudevent import serve

NAME = os.environ.get("K_SERVICE", "seen")


async def handle(scope, receive, send):
    event = scope["event"]
    given = event.get_attributes().items()
    seen = {name: as_text(value) for name, value in given if name != "specversion" and value is not None}
    source, event_id = seen["source"], seen["id"]
    attributes = {
        # From the request: an event that is delivered twice is answered by one event.
        "id": digest(source, event_id, NAME),
        "source": f"/baton/functions/{NAME}",
        "type": "dev.baton.example.seen.v1",
        "pipelinerun": seen.get("pipelinerun") or digest(source, event_id)[:16],
        "datacontenttype": "application/json",
    }
    if "subject" in seen:
        attributes["subject"] = seen["subject"]
    data = {"attributes": seen, **content(event.get_data(), seen.get("datacontenttype"))}
    await send(CloudEvent(attributes=attributes, data=data))


def content(data, content_type: str | None) -> dict:
    """The SDK gives parsed JSON, text for a text type, bytes for the others."""
    if data is None or data in (b"", ""):
        return {}
    if isinstance(data, str) and content_type and content_type.startswith("text/"):
        data = data.encode()
    if isinstance(data, (bytes, str)) and len(data) > 1024:
        return {"length": len(data)}
    return {"data_base64": base64.b64encode(data).decode()} if isinstance(data, bytes) else {"data": data}


def as_text(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # The SDK gives `time` as a datetime.
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else str(value)


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    serve(handle)
