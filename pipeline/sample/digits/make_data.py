"""Writes the data of the digits example: a data set that grows and drifts, spoilt versions of it, and a stream with
known answers.

    python pipeline/sample/digits/make_data.py FOLDER

The same bytes on every machine. The images are scikit-learn's handwritten digits, 8 by 8 pixels from 0 (white) to 16
(black); columns `pixel_0` to `pixel_63`, row by row, and `label`.

v1.csv          600 images
v2.csv          those, and 600 of a new scanner that sees white on black. A model of v1 reads these no better than by
                chance, one that was trained on both reads both
noisy.csv       v2 with six labels in ten shuffled: a well-formed file from which only a worse model can come
poisoned.csv    v1 with pixels of 255 and labels that are no digits
pickled.csv     a pickle by another name, which would call a function if somebody loaded it
stream.csv      300 images that no version has: 150 by the old scanner, then 150 by the new one
"""

import csv
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

BLACK = 16
OLD, NEW, STREAM = slice(0, 600), slice(600, 1200), slice(1497, 1797)
SEED = 20261121
HEADER = [*(f"pixel_{number}" for number in range(64)), "label"]
# Calls `print`, which is harmless, and shows that a loader of pickles would have called anything.
PICKLE = b"cbuiltins\nprint\n(S'a pickle was loaded'\ntR."


def write(folder: Path) -> None:
    """Writes all files into `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = (array.astype(int) for array in load_digits(return_X_y=True))
    random = np.random.default_rng(SEED)

    old, new = images[OLD], _white_on_black(images[NEW])
    both, both_labels = np.vstack([old, new]), np.concatenate([labels[OLD], labels[NEW]])
    _table(folder / "v1.csv", old, labels[OLD])
    _table(folder / "v2.csv", both, both_labels)

    noisy = both_labels.copy()
    shuffled = random.permutation(len(noisy))[: len(noisy) * 6 // 10]
    noisy[shuffled] = random.permutation(noisy[shuffled])
    _table(folder / "noisy.csv", both, noisy)

    poisoned, wrong = old.copy(), labels[OLD].copy()
    at = random.permutation(len(poisoned))
    poisoned[at[:60], random.integers(0, 64, 60)] = 255
    wrong[at[60:120]] = 77
    _table(folder / "poisoned.csv", poisoned, wrong)

    (folder / "pickled.csv").write_bytes(PICKLE)

    seen, known = images[STREAM], labels[STREAM]
    half = len(seen) // 2
    _table(folder / "stream.csv", np.vstack([seen[:half], _white_on_black(seen[half:])]), known)


def _white_on_black(images: np.ndarray) -> np.ndarray:
    return BLACK - images


def _table(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows([*image, label] for image, label in zip(images.tolist(), labels.tolist(), strict=True))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_data.py FOLDER")
    write(Path(sys.argv[1]))
