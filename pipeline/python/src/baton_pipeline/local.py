"""A training without a pipeline: from a CSV file to a folder that `baton push` takes. For CI jobs and for trying a
trainer out."""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from . import origin, parameters, record
from .errors import UsageError
from .events import digest, now
from .job import NAME, policy
from .meter import Meter
from .record import Origin
from .run import PARTS, Run
from .store import digest_of
from .table import Table


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}")


def train(
    body: Callable[[Run], None], arguments: Sequence[str] | None, code: Iterable[str | Path] | None, meter: Meter
) -> None:
    """Reads the command line, trains, writes the bundle's files. Raises `PipelineError`, or whatever `body` raises."""
    parser = _Parser(description="Trains a model from a CSV file and writes it as a bundle.")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="the training data, CSV with a header")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where to write the bundle's files")
    parser.add_argument("--label", metavar="COLUMN", help="the column to predict; else the policy's (BATON_POLICY)")
    parser.add_argument("--model", metavar="NAME", help="the model's name; else the file's")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter; may be repeated"
    )
    options = parser.parse_args(arguments)

    rules = policy(os.environ)
    label = options.label or rules.get("label") or os.environ.get("BATON_LABEL")
    if not isinstance(label, str):
        raise UsageError("which column is the label? Give --label COLUMN")
    if not options.data.is_file():
        raise UsageError(f"there is no file {options.data}")
    model = options.model or rules.get("model") or options.data.stem.lower()
    if not isinstance(model, str) or not NAME.fullmatch(model):
        raise UsageError(f"{model!r} cannot be the name of a model: give --model NAME")
    data_digest = digest_of(options.data).digest
    given = {**parameters.from_environment(os.environ), **parameters.from_pairs(options.param)}
    asked = record.dumps([label, given], what="the parameters")
    made = Origin(origin.code(code), origin.environment(), origin.who(), now())
    run = Run(
        # The same training again has the same name, so that its settings, where it stands, are the same.
        name=digest(data_digest, made.code.digest, made.environment.digest, asked.decode())[:16],
        model=model,
        dataset=options.data.stem,
        dataset_digest=data_digest,
        table=Table(options.data, label, rules.get("features"), rules.get("key")),
        parameters=given,
        policy=rules,
    )
    body(run)
    if run.result is None:
        raise UsageError("the training ended without run.finish(model, metrics) or run.finish_files(folder, metrics)")
    files = {**run.result.files, "provenance.json": record.provenance(run, run.result, made, meter)}
    options.out.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        # One that an earlier training left there would be pushed with this one's.
        (options.out / name).unlink(missing_ok=True)
    for name, content in files.items():
        (options.out / name).write_bytes(content)
    figures = ", ".join(f"{name} {value:.6g}" for name, value in run.result.metrics.items())
    print(f"{model}: {figures or 'no metrics'}; {', '.join(sorted(files))} in {options.out}")
