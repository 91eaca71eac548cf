"""Trains models as jobs of a Baton pipeline.

    from baton_pipeline import main

    def train(run):
        model = LogisticRegression(max_iter=500).fit(run.features, run.labels)
        run.finish(model, metrics={"accuracy": model.score(run.features, run.labels)})

    main(train)

`main` reads the event that started the job, loads the training data, says that it began, calls `train`, uploads the
checked model and says that it ended, well or not. `training_run` is the same as a `with` block. Everything is said in
docs/pipeline-training.md; what goes over the wire in docs/pipeline-reference.md.
"""

from .errors import DataError, EventError, ExportError, PipelineError, SinkError, StoreError, UsageError
from .program import main, training_run
from .run import Run

__all__ = [
    "DataError",
    "EventError",
    "ExportError",
    "PipelineError",
    "Run",
    "SinkError",
    "StoreError",
    "UsageError",
    "main",
    "training_run",
]
