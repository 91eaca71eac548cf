"""The two ways to be a trainer: `main(train)` and `with training_run() as run`."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import local
from .errors import PipelineError, SinkUnreachable, UsageError
from .job import Order, Training
from .meter import Meter
from .run import Run

EXIT_FAILED = 1
EXIT_USAGE = 64
# The model is in the store, but the sink could not be told; the job, started again, finds it there.
EXIT_TRY_AGAIN = 75


def main(
    train: Callable[[Run], None],
    *,
    code: Iterable[str | Path] | None = None,
    reuse: bool = True,
    arguments: Sequence[str] | None = None,
) -> None:
    """Trains as a job of a pipeline if K_EVENT_PATH is set, else from the command line (`--help`). Ends the process.

    `code` are the files and folders that make the trainer, by default all `*.py` beside the program and below. With
    `reuse`, `train` is not called if an earlier run had the same training data, code, parameters and packages: its
    model is the answer.

    Exit codes: 0 done; 1 failed, `training.failed` tells why; 64 wrong usage, or an event that a trainer cannot answer;
    75 done, but the sink could not be told.
    """
    if os.environ.get("K_EVENT_PATH"):
        sys.exit(_job(train, code, reuse))
    try:
        local.train(train, arguments, code, Meter.of_process())
    except PipelineError as error:
        _print(error)
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    sys.exit(0)


def _job(train: Callable[[Run], None], code: Iterable[str | Path] | None, reuse: bool) -> int:
    try:
        training = Training(Order.read(os.environ), Meter.of_process())
    except PipelineError as error:
        _print(error)
        return EXIT_USAGE
    try:
        inputs = training.prepare(code)
        if reuse and training.repeat_earlier(inputs):
            print("baton-pipeline: an earlier run had the same inputs; its model is the answer", flush=True)
            return 0
        run = training.begin(inputs)
        train(run)
        training.end(run, inputs)
    except SinkUnreachable as error:
        _print(error)
        return EXIT_TRY_AGAIN
    except BaseException as error:
        if isinstance(error, PipelineError):
            _print(error)
        else:
            traceback.print_exc()
        training.fail(error)
        return EXIT_FAILED
    return 0


@contextmanager
def training_run(*, code: Iterable[str | Path] | None = None) -> Iterator[Run]:
    """A job of a pipeline as a `with` block; see `main`, which can leave out a training that was done before.

    Leaves with the block's own exception, after telling it. Raises `PipelineError` for a job that cannot begin or end.
    """
    training = Training(Order.read(os.environ), Meter.of_process())
    try:
        inputs = training.prepare(code)
        run = training.begin(inputs)
        yield run
        training.end(run, inputs)
    except SinkUnreachable as error:
        _print(error)
        sys.exit(EXIT_TRY_AGAIN)
    except BaseException as error:
        training.fail(error)
        if isinstance(error, SystemExit) and not error.code:
            raise SystemExit(EXIT_FAILED) from error
        raise


def _print(error: PipelineError) -> None:
    print(f"baton-pipeline: {error}", file=sys.stderr, flush=True)
