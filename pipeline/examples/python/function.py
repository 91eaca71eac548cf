"""A function with nothing but Python: answers each event with what it saw of it (pipeline/conformance/README.md)."""

import base64
import hashlib
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

NAME = os.environ.get("K_SERVICE", "seen")
STRUCTURED = "application/cloudevents+json"
MAX_EVENT = 128 * 1024
REQUIRED = {"specversion", "id", "source", "type"}


def read(headers, body: bytes) -> tuple[dict[str, str], dict]:
    """Attributes as text, and the data: as `data`, as `data_base64`, or none. Raises `ValueError`."""
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == STRUCTURED:
        event = json.loads(body)
        if not isinstance(event, dict):
            raise ValueError("no JSON object")
        data = {name: event.pop(name) for name in ("data", "data_base64") if name in event}
        attributes = {name: text(value) for name, value in event.items() if value is not None}
        if not is_json(attributes.get("datacontenttype", "application/json")) and isinstance(data.get("data"), str):
            data = {"data_base64": base64.b64encode(data["data"].encode()).decode()}
    else:
        attributes = {
            name.lower().removeprefix("ce-"): unquote(value, errors="strict")
            for name, value in headers.items()
            if name.lower().startswith("ce-")
        }
        if content_type:
            attributes["datacontenttype"] = content_type
        if not body:
            data = {}
        elif is_json(content_type):
            data = {"data": json.loads(body)}
        else:
            data = {"data_base64": base64.b64encode(body).decode()}
    if "data_base64" in data and not isinstance(data["data_base64"], str):
        raise ValueError("data_base64 is no text")
    if missing := sorted(name for name in REQUIRED if not attributes.get(name)):
        raise ValueError(f"no CloudEvent: {', '.join(missing)} is missing")
    del attributes["specversion"]
    return attributes, data


def is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence in ("application/json", "text/json") or essence.endswith("+json")


def text(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    raise ValueError("an attribute is no text, integer or boolean")


def answer(attributes: dict[str, str], data: dict) -> dict:
    source, event_id = attributes["source"], attributes["id"]
    event = {
        "specversion": "1.0",
        # From the request: an event that is delivered twice is answered by one event.
        "id": digest(source, event_id, NAME),
        "source": f"/baton/functions/{NAME}",
        "type": "dev.baton.example.seen.v1",
        "pipelinerun": attributes.get("pipelinerun") or digest(source, event_id)[:16],
        "datacontenttype": "application/json",
        "data": {"attributes": attributes, **shortened(data)},
    }
    if subject := attributes.get("subject"):
        event["subject"] = subject
    return event


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def shortened(data: dict) -> dict:
    content = base64.b64decode(data["data_base64"]) if "data_base64" in data else data.get("data")
    return {"length": len(content)} if isinstance(content, (bytes, str)) and len(content) > 1024 else data


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        is_health = self.path in ("/health/readiness", "/health/liveness")
        self.reply(200 if is_health else 404, "text/plain", b"ok\n" if is_health else b"unknown\n")

    def do_POST(self):
        size = int(self.headers.get("content-length") or 0)
        if size > MAX_EVENT:
            self.close_connection = True
            return self.reply(413, "text/plain", b"too large\n")
        try:
            event = answer(*read(self.headers, self.rfile.read(size)))
            content = json.dumps(event).encode()
        # Too deep JSON ends in the second.
        except (ValueError, RecursionError) as error:
            return self.reply(400, "text/plain", f"{error}\n".encode(errors="replace"))
        self.reply(200, STRUCTURED, content)

    def reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, _, port = os.environ.get("LISTEN_ADDRESS", "127.0.0.1:8080").rpartition(":")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
