"""Trains the iris classifier: v1 from few flowers under strong regularisation, v2 from all that are not held out.

    python sample-models/iris/train.py
"""

import sys
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

# A script's import path is its own folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import training

VERSIONS = {
    "v1": {"training_rows": 30, "C": 0.01},
    "v2": {"training_rows": 100, "C": 1.0},
}


def build(C: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))


if __name__ == "__main__":
    training.train_versions(
        script=__file__,
        dataset=training.Dataset("iris", "iris.csv", load_iris(), held_out_rows=50),
        input_name="X",
        versions=VERSIONS,
        build=build,
    )
