"""Trains the reader of handwritten digits: the job `train` of the sample pipeline.

By hand: python pipeline/sample/digits/train.py --data v1.csv --label label --model digits --out digits/
"""

from pathlib import Path

from baton_pipeline import Run, main
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

HERE = Path(__file__).resolve().parent


def train(run: Run) -> None:
    # A network: no linear model reads black on white and white on black.
    network = MLPClassifier(
        (run.parameter("neurons", 64),),
        max_iter=run.parameter("iterations", 1000),
        random_state=run.parameter("seed", 1),
    )
    model = make_pipeline(MinMaxScaler(), network)
    # For the trainer's own figure; the comparison with the model in service has rows that no trainer sees.
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
