"""Writes golden.jsonl: the features of three small files with the scores that the fetched model gives for them.

    python sample-models/magika/rows.py
"""

import base64
import sys
from pathlib import Path

import numpy as np

import file_types

# A script's import path is its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import golden

PYTHON = b'''\
import sys


def count_words(path):
    """Words of a text file, the most frequent first."""
    counts = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            for word in line.split():
                counts[word] = counts.get(word, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


if __name__ == "__main__":
    for word, count in count_words(sys.argv[1]):
        print(f"{count:6d} {word}")
'''

JSON = b"""\
{
  "model": "iris",
  "version": "3",
  "generation": 7,
  "state": "active",
  "unchanged": false,
  "warnings": []
}
"""

# One transparent pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)


def rows(magika: file_types.Magika) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for label, content in {"python": PYTHON, "png": PNG, "json": JSON}.items():
        features = magika.features(content[: magika.block_size], content[-magika.block_size :])
        found[label] = {"bytes": np.array([features], np.int32)}
    return found


if __name__ == "__main__":
    magika = file_types.Magika(file_types.BUNDLE)
    examples = rows(magika)
    model = file_types.BUNDLE / "model.onnx"
    for label, inputs in examples.items():
        (scores,) = golden.session(model).run(["target_label"], inputs)
        answer = magika.answer(scores[0].tolist())
        if answer.label != label:
            sys.exit(f"the model takes the {label} example for {answer}")
    golden.write(model, Path(__file__).resolve().parent / "golden.jsonl", examples)
