"""Trains the reader of handwritten digits: the job `train` of the sample pipeline.

By hand: python pipeline/sample/digits/train.py --data v1.csv --label label --model digits --out digits/
"""

from pathlib import Path

from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from baton_pipeline import Run, main

HERE = Path(__file__).resolve().parent


def train(run: Run) -> None:
    # A network: no linear model reads black on white and white on black.
    network = MLPClassifier(
        (run.parameter("neurons", 64),),
        max_iter=run.parameter("iterations", 300),
        random_state=run.parameter("seed", 1),
    )
    model = make_pipeline(MinMaxScaler(), network)
    # The pipeline keeps rows of its own for the comparison with the model in service; these are for the trainer's own figure.
    known, unseen, labels, truth = train_test_split(run.features, run.labels, test_size=0.15, random_state=1)
    model.fit(known, labels)
    run.finish(
        model,
        metrics={"accuracy": model.score(unseen, truth), "rows": len(known)},
        input_name="pixels",
        contract=HERE / "contract.proto",
        outliers=0.999,
    )


main(train, code=["train.py", "contract.proto"])
