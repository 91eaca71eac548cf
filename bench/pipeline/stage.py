"""A stage of the benchmark's pipelines as a plain Python function: `python stage.py validate|train|evaluate|deploy`.

`train` stands in every variant. The other three are what a team writes that does everything in Python with the usual packages; the
variant `rust` has `baton fn` in their place. Plain http.server: nothing is imported but what a stage of that kind imports.
"""

import csv
import hashlib
import io
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

STORE = Path(os.environ["BATON_ARTIFACTS"].removeprefix("file://"))
SERVER = os.environ["BATON_SERVER"]
TRAIN_SECONDS = float(os.environ.get("TRAIN_SECONDS", "0.5"))
onnxruntime.set_default_logger_severity(4)


def put(content: bytes) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    path = STORE / "blobs/sha256" / digest
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        part.write_bytes(content)
        part.rename(path)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def get(reference: dict) -> bytes:
    content = (STORE / "blobs/sha256" / reference["digest"].removeprefix("sha256:")).read_bytes()
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != reference["digest"]:
        raise ValueError("damaged blob")
    return content


def table(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    rows = list(csv.reader(io.StringIO(content.decode())))
    label = rows[0].index("label")
    values = np.array([[float(cell) for cell in row] for row in rows[1:]])
    return np.delete(values, label, axis=1).astype(np.float32), values[:, label].astype(int)


def validate(data: dict) -> tuple[str, dict]:
    content = get(data)
    x, y = table(content)
    if not ((x >= 0) & (x <= 16)).all() or len(y) < 10:
        return "dataset.rejected", {"dataset": data["dataset"], "reasons": [{"code": "RANGE", "text": "out of range"}]}
    lines = content.decode().splitlines(keepends=True)
    cut = len(lines) * 4 // 5
    return "dataset.validated", {
        "dataset": data["dataset"],
        "digest": data["digest"],
        "training": put("".join(lines[:cut]).encode()),
        "holdout": put("".join([lines[0], *lines[cut:]]).encode()),
    }


def train(data: dict) -> tuple[str, dict]:
    x, y = table(get(data["training"]))
    started = time.process_time()
    # As much work as is asked for, in rounds of a real fit.
    while True:
        model = LogisticRegression(max_iter=100).fit(x / 16.0, y)
        if time.process_time() - started >= TRAIN_SECONDS:
            break
    model.coef_ = model.coef_ / 16.0
    onnx = to_onnx(model, x[:1], options={"zipmap": False}, target_opset=21).SerializeToString()
    bundle = {"model": data["dataset"], "parts": {"model.onnx": put(onnx)}, "label": "label"}
    reference = put(json.dumps(bundle).encode())
    return "training.finished", {"model": data["dataset"], "bundle": reference, "holdout": data["holdout"]}


def artifact(bundle: dict) -> bytes:
    return get(json.loads(get(bundle))["parts"]["model.onnx"])


def evaluate(data: dict) -> tuple[str, dict]:
    x, y = table(get(data["holdout"]))
    session = onnxruntime.InferenceSession(artifact(data["bundle"]))
    labels = session.run(None, {session.get_inputs()[0].name: x})[0]
    generation = 0
    try:
        with urllib.request.urlopen(f"{SERVER}/v1/models/{data['model']}") as response:
            generation = json.loads(response.read())["generation"]
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    accuracy = float((labels == y).mean())
    verdict = "accept" if accuracy > 0.3 else "reject"
    return "model.evaluated", data | {"candidate": {"accuracy": accuracy}, "verdict": verdict, "generation": generation}


def deploy(data: dict) -> tuple[str, dict]:
    request = urllib.request.Request(
        f"{SERVER}/v1/models/{data['model']}/artifact",
        artifact(data["bundle"]),
        {"if-match": f'"{data["generation"]}"', "content-type": "application/octet-stream"},
        method="PUT",
    )
    with urllib.request.urlopen(request) as response:
        change = json.loads(response.read())
    return "model.deployed", {"model": data["model"], "version": change["version"], "generation": change["generation"]}


STAGE = sys.argv[1]
CALL = {"validate": validate, "train": train, "evaluate": evaluate, "deploy": deploy}[STAGE]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            kind, answer = CALL(data)
            status, body = 200, json.dumps(answer).encode()
        except Exception as error:  # noqa: BLE001 - whatever it was, the engine delivers again
            status, body, kind = 503, str(error).encode(), ""
        self.send_response(status)
        if status == 200:
            identity = f"{self.headers['ce-source']}\0{self.headers['ce-id']}\0{STAGE}".encode()
            self.send_header("ce-specversion", "1.0")
            self.send_header("ce-id", hashlib.sha256(identity).hexdigest())
            self.send_header("ce-source", f"/bench/{STAGE}")
            self.send_header("ce-type", f"dev.baton.{kind}.v1")
            self.send_header("ce-subject", data.get("model") or data["dataset"])
            if run := self.headers["ce-pipelinerun"]:
                self.send_header("ce-pipelinerun", run)
            self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
