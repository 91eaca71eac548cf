"""The artifact store in S3: moto keeps create-if-absent, rclone pretends to and must be refused."""

import os
import socket
import subprocess

import pytest
import requests

from support.functions import Function, Store
from support.runner import BINARY, REPOSITORY, eventually

SCRIPTS = REPOSITORY / ".venv/pipeline/bin"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


@pytest.fixture
def s3(tmp_path):
    """Starts a server by its command line with {address}; gives the environment that leads to it."""
    running = []

    def start(*command: str) -> dict:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        filled = [part.format(address=f"127.0.0.1:{port}", port=port) for part in command]
        running.append(subprocess.Popen(filled, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def is_up():
            try:
                return requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code < 500
            except requests.ConnectionError:
                return False

        eventually(is_up, "up", 30)
        return CREDENTIALS | {"AWS_ENDPOINT": f"http://127.0.0.1:{port}"}

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_functions_work_on_s3(s3, tmp_path, server, admin, name):
    environment = s3(str(SCRIPTS / "moto_server"), "-p", "{port}")
    # moto asks for no signature.
    bucket = f"{environment['AWS_ENDPOINT']}/bucket"
    requests.put(bucket).raise_for_status()
    # Written as a folder first, then copied key by key.
    local = Store(tmp_path / "artifacts")
    model = (REPOSITORY / "sample-models/iris/v1/model.onnx").read_bytes()
    event = {
        "model": name,
        "bundle": local.bundle(name, {"model.onnx": model}),
        "verdict": "accept",
        "generation": 0,
        "reasons": [],
    }
    for blob in (local.folder / "blobs/sha256").iterdir():
        requests.put(f"{bucket}/some/prefix/blobs/sha256/{blob.name}", data=blob.read_bytes()).raise_for_status()
    deploy = Function("deploy", local, server.admin, BATON_ARTIFACTS="s3://bucket/some/prefix", **environment)
    kind, data = deploy.answer("model.evaluated", event)
    assert (kind, data["version"]) == ("model.deployed", "1")
    assert admin.model(name)["active"] == "1"
    keys = requests.get(bucket, params={"list-type": "2"}).text
    assert f"<Key>some/prefix/active/{name}/00000001.json</Key>" in keys
    assert "probe" not in keys
    assert deploy.stop() == 0


def test_a_server_that_ignores_create_if_absent_is_refused(s3, tmp_path):
    (tmp_path / "bucket").mkdir()
    environment = s3(str(SCRIPTS / "rclone"), "serve", "s3", "--addr", "{address}", str(tmp_path))
    ended = subprocess.run(
        [BINARY, "fn", "deploy", "--store", "s3://bucket/x"],
        env=os.environ | environment | {"LISTEN_ADDRESS": "127.0.0.1:0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 64
    assert "ignores create-if-absent" in ended.stderr


def test_a_store_that_cannot_be_reached_is_named():
    ended = subprocess.run(
        [BINARY, "fn", "deploy", "--store", "s3://bucket/x"],
        env=os.environ | CREDENTIALS | {"AWS_ENDPOINT": "http://127.0.0.1:9", "LISTEN_ADDRESS": "127.0.0.1:0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 69
    assert "cannot write probe/" in ended.stderr
