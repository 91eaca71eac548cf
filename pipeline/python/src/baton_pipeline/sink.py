"""Where events are posted to, patiently.

`http.client` and not `urllib`: that one follows redirects by turning a POST into a GET, and asks a proxy of the
environment for addresses inside the cluster.
"""

import http.client
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from .errors import SinkError, SinkUnreachable, UsageError
from .events import CONTENT_TYPE

# Those that Knative's senders try again, besides 5xx.
RETRIED = {404, 408, 409, 429}
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CALL_TIMEOUT_S = 30.0


class Sink:
    """The broker's ingress at `url`; an event is tried again for `patience_s` seconds."""

    def __init__(self, url: str, patience_s: float):
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UsageError(f"K_SINK is no http address: {url!r}")
        self.url, self.patience_s = url, patience_s
        self._address, self._host = address, address.hostname

    def post(self, event: dict[str, Any], patience_s: float | None = None) -> None:
        """Sends until it is taken. The event's id stays the same, so that one that was taken twice counts once.

        Raises `SinkError` on an answer that will not change, `SinkUnreachable` when the patience is over.
        """
        body = json.dumps(event, allow_nan=False, ensure_ascii=False).encode()
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        pause = FIRST_PAUSE_S
        while True:
            try:
                status, text = self._send(body)
            except (OSError, http.client.HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if 200 <= status < 300:
                    return
                problem = f"{status} {text[:300]}".strip()
                if status < 500 and status not in RETRIED:
                    raise SinkError(f"{self.url} refused {event['type']}: {problem}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise SinkUnreachable(f"{self.url} did not take {event['type']}: {problem}")
            print(f"baton-pipeline: {self.url}: {problem}; trying again", file=sys.stderr, flush=True)
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _send(self, body: bytes) -> tuple[int, str]:
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._host, self._address.port, timeout=CALL_TIMEOUT_S)
        path = self._address.path or "/"
        if self._address.query:
            path += "?" + self._address.query
        try:
            connection.request("POST", path, body, {"content-type": CONTENT_TYPE})
            response = connection.getresponse()
            return response.status, response.read(1024).decode("utf-8", "replace").strip()
        finally:
            connection.close()
