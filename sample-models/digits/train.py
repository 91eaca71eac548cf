"""Trains the classifier of handwritten digits: v1 a small network from few images,
v2 a larger one from all that are not held out.

    python sample-models/digits/train.py
"""

import sys
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler

# A script's import path is its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import training

VERSIONS = {
    "v1": {"training_rows": 100, "neurons": 8},
    "v2": {"training_rows": 1347, "neurons": 64},
}


def build(neurons: int) -> Pipeline:
    # So many iterations that training ends because nothing improves any more.
    network = MLPClassifier((neurons,), max_iter=2000, random_state=training.SEED)
    return make_pipeline(MinMaxScaler(), network)


if __name__ == "__main__":
    training.train_versions(
        script=__file__,
        dataset=training.Dataset("digits", "digits.csv.gz", load_digits(), held_out_rows=450),
        input_name="pixels",
        versions=VERSIONS,
        build=build,
    )
