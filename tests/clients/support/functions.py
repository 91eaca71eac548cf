"""Functions of the binary (`baton fn`) as processes, and the store that they share, written as a trainer would."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import requests

from .runner import BINARY, ONNXRUNTIME, eventually


class Store:
    """An artifact store in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes | str | dict) -> dict:
        """Stores a blob; a reference to it."""
        if isinstance(content, dict):
            content = json.dumps(content)
        if isinstance(content, str):
            content = content.encode()
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def get(self, reference: dict) -> bytes:
        content = (self.folder / "blobs/sha256" / reference["digest"].removeprefix("sha256:")).read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == reference["digest"]
        return content

    def bundle(self, model: str, parts: dict[str, bytes | str], **fields) -> dict:
        """Stores a bundle; a reference to it."""
        return self.put({"model": model, "parts": {name: self.put(part) for name, part in parts.items()}, **fields})

    def log(self, kind: str, name: str) -> list[dict]:
        return [json.loads(entry.read_text()) for entry in sorted((self.folder / kind / name).glob("*.json"))]


class Function:
    """A running `baton fn NAME`."""

    def __init__(self, name: str, store: Store, server: str, **environment: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BATON_")}
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BINARY, "fn", name],
            stderr=self.log,
            env=inherited
            | {
                "LISTEN_ADDRESS": f"127.0.0.1:{port}",
                "BATON_ARTIFACTS": str(store.folder),
                "BATON_SERVER": f"http://{server}",
                "ORT_DYLIB_PATH": ONNXRUNTIME,
            }
            | environment,
        )
        eventually(self.is_ready, "ready", 30)

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.address}/health/readiness", timeout=5).status_code == 200
        except requests.ConnectionError:
            assert self.process.poll() is None, self.log_text()
            return False

    def log_text(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def post(self, kind: str, data, *, id: str = "1", source: str = "/test", **attributes) -> requests.Response:
        """Posts an event of this project in binary mode."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": id,
            "ce-source": source,
            "ce-type": f"dev.baton.{kind}.v1",
            "content-type": "application/json",
        }
        headers |= {f"ce-{name}": value for name, value in attributes.items()}
        return requests.post(self.address, data=json.dumps(data), headers=headers, timeout=120)

    def answer(self, kind: str, data, **options) -> tuple[str, dict]:
        """The type of the one event that answers (without prefix and version), and its data."""
        response = self.post(kind, data, **options)
        assert response.status_code == 200, f"{response.status_code}: {response.text}"
        return response.headers["ce-type"].removeprefix("dev.baton.").removesuffix(".v1"), response.json()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()
