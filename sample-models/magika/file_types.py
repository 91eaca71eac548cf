#!/usr/bin/env python3
"""Prints the type of each file in a folder, as the served magika model sees it.

    python3 sample-models/magika/file_types.py FOLDER [--server http://127.0.0.1:8080]

Needs Python 3.9 and nothing else. Several files go into one request (Open Inference Protocol with binary tensors).
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

BUNDLE = Path(__file__).resolve().parents[2] / ".cache/models/magika"
FILES_PER_REQUEST = 32
TIMEOUT_SECONDS = 30


class Answer(NamedTuple):
    label: str
    score: float


class Magika:
    """What is done around the model: bytes to features, scores to a type.

    As the package magika does it in its standard mode, high confidence.
    """

    def __init__(self, bundle: Path):
        config = json.loads((bundle / "config.min.json").read_text(encoding="utf-8"))
        if config["mid_size"] or config["use_inputs_at_offsets"]:
            raise ValueError("this model reads parts of the file that this client does not send")
        self.head_size, self.tail_size = config["beg_size"], config["end_size"]
        self.block_size, self.padding = config["block_size"], config["padding_token"]
        self.min_size = config["min_file_size_for_dl"]
        self.labels, self.renamed = config["target_labels_space"], config["overwrite_map"]
        self.thresholds, self.default_threshold = config["thresholds"], config["medium_confidence_threshold"]
        types = json.loads((bundle / "content_types_kb.min.json").read_text(encoding="utf-8"))
        self.is_text = {label: entry["is_text"] for label, entry in types.items()}

    def features(self, head: bytes, tail: bytes) -> list[int]:
        """The model's input for the first and last block of a file: white space at the ends is dropped, then the first
        bytes of the head, padded behind, and the last bytes of the tail, padded in front.
        """
        head, tail = head.lstrip()[: self.head_size], tail.rstrip()[-self.tail_size :]
        gap = self.head_size - len(head) + self.tail_size - len(tail)
        return [*head, *[self.padding] * gap, *tail]

    def without_model(self, head: bytes) -> Answer | None:
        """The type of a file that is too short for the model."""
        if not head:
            return Answer("empty", 1.0)
        if len(head.lstrip()) >= self.min_size:
            return None
        try:
            head.decode("utf-8")
        except UnicodeDecodeError:
            return Answer("unknown", 1.0)
        return Answer("txt", 1.0)

    def answer(self, scores: tuple[float, ...]) -> Answer:
        """The best type; if its score is below what that type needs, only whether it is text."""
        best = max(range(len(scores)), key=scores.__getitem__)
        label, score = self.labels[best], scores[best]
        output = self.renamed.get(label, label)
        if score < self.thresholds.get(label, self.default_threshold):
            output = "txt" if self.is_text[output] else "unknown"
        return Answer(output, score)


def read_ends(path: Path, size: int) -> tuple[bytes, bytes]:
    """The first and the last `size` bytes, which are the same bytes if the file has no more."""
    with path.open("rb") as file:
        head = file.read(size)
        length = file.seek(0, 2)
        file.seek(max(0, length - size))
        return head, file.read(size)


def infer(server: str, rows: list[list[int]]) -> list[tuple[float, ...]]:
    """Scores for each row of features, in one request. The tensors follow the JSON as little-endian bytes."""
    shape = [len(rows), len(rows[0])]
    tensor = struct.pack(f"<{shape[0] * shape[1]}i", *(value for row in rows for value in row))
    header = {
        "inputs": [
            {"name": "bytes", "datatype": "INT32", "shape": shape, "parameters": {"binary_data_size": len(tensor)}}
        ],
        "outputs": [{"name": "target_label", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(header).encode()
    request = urllib.request.Request(
        f"{server}/v2/models/magika/infer",
        data=text + tensor,
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        body = response.read()
        json_size = int(response.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(body[:json_size])["outputs"]
    count, width = output["shape"]
    return list(struct.iter_unpack(f"<{width}f", body[json_size : json_size + 4 * count * width]))


def identify(magika: Magika, server: str, paths: Iterable[Path]) -> Iterator[tuple[Path, Answer | OSError]]:
    """Type and score of each path, in order; the error for one that cannot be read."""
    paths = iter(paths)
    while batch := list(islice(paths, FILES_PER_REQUEST)):
        known, rows = {}, {}
        for path in batch:
            try:
                head, tail = read_ends(path, magika.block_size)
            except OSError as error:
                known[path] = error
                continue
            answer = magika.without_model(head)
            if answer is None:
                rows[path] = magika.features(head, tail)
            else:
                known[path] = answer
        if rows:
            known.update(zip(rows, map(magika.answer, infer(server, list(rows.values())))))
        for path in batch:
            yield path, known[path]


def why(error: OSError) -> str:
    """The server's own words where it gave any."""
    if not isinstance(error, urllib.error.HTTPError):
        return str(getattr(error, "reason", error))
    body = error.read().decode("utf-8", "replace")
    try:
        return f"{error.code}: {json.loads(body)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code}: {body or error.reason}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Print type and score of each file in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="the data port (default: %(default)s)")
    parser.add_argument(
        "--bundle", type=Path, default=BUNDLE, help="folder with labels and thresholds (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is no folder")
    try:
        magika = Magika(arguments.bundle)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is missing; sample-models/magika/fetch.sh fetches it")

    # No pipes and sockets: opening one could wait for ever.
    paths = sorted(path for path in arguments.folder.iterdir() if path.is_file())
    status = 0
    try:
        for path, answer in identify(magika, arguments.server.rstrip("/"), paths):
            if isinstance(answer, OSError):
                print(f"{path.name}: {answer.strerror}", file=sys.stderr)
                status = 1
            else:
                print(f"{answer.label:<20} {answer.score:.4f}  {path.name}")
    except OSError as error:
        print(f"{arguments.server}: {why(error)}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
