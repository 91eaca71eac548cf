"""The training data: a CSV file with a header, and its columns as arrays."""

import csv
import math
from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError, missing

if TYPE_CHECKING:
    import numpy


class Table:
    """A CSV file in UTF-8 with the column `label` and the columns of features, by default all others in their order but
    `key`, which names rows and is never a feature.

    Raises `DataError` for a file that is none, or that lacks a column.
    """

    def __init__(self, path: Path, label: str, features: list[str] | None = None, key: str | None = None):
        self.path, self.label = path, label
        header = self._header()
        if doubled := sorted({name for name in header if header.count(name) > 1}):
            raise DataError(f"the training data have several columns {', '.join(map(repr, doubled))}")
        for name in [label, *(features or [])]:
            if name not in header:
                raise DataError(f"the training data have no column {name!r}; they have {_listed(header)}")
        self.columns = [name for name in header if name not in (label, key)] if features is None else list(features)
        if key in self.columns:
            raise DataError(f"the key {key!r} names rows; it cannot be one of the features")
        if not self.columns or label in self.columns:
            raise DataError(f"the training data need columns besides the label {label!r}, not {_listed(self.columns)}")
        self._width = len(header)
        self._label_at = header.index(label)
        self._features_at = [header.index(name) for name in self.columns]

    def _header(self) -> list[str]:
        for _, cells in self._records():
            return cells
        raise DataError("the training data are an empty file")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells, the header too."""
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                for cells in reader:
                    # A last empty line is no row.
                    if cells:
                        yield reader.line_num, cells
        except UnicodeDecodeError as error:
            raise DataError(f"the training data are no UTF-8 text: {error}") from error
        except csv.Error as error:
            raise DataError(f"the training data are no CSV: {error}") from error

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        records = self._records()
        next(records, None)
        for line, cells in records:
            if len(cells) != self._width:
                raise DataError(
                    f"the training data have {len(cells)} cells in line {line}, {self._width} in the header"
                )
            yield line, cells

    def rows(self) -> Iterator[dict[str, str]]:
        """Each row as text by column: features and label."""
        names = {**dict(zip(self.columns, self._features_at, strict=True)), self.label: self._label_at}
        for _, cells in self._rows():
            yield {name: cells[at] for name, at in names.items()}

    @cached_property
    def features(self) -> "numpy.ndarray":
        """FP32 [rows, columns], as the served model will get them; an empty cell is NaN."""
        numpy = _numpy()
        # Four bytes a cell, where a list of Python's numbers takes 32.
        values = array("f")
        for line, cells in self._rows():
            for name, at in zip(self.columns, self._features_at, strict=True):
                values.append(_number(cells[at], name, line))
        if not values:
            raise DataError("the training data have no row")
        return numpy.frombuffer(values, dtype=numpy.float32).reshape(-1, len(self.columns)).copy()

    @cached_property
    def labels(self) -> "numpy.ndarray":
        """One a row: INT64 if all are integers (also as 3.0), else FP64 if all are numbers, else text."""
        numpy = _numpy()
        texts = []
        for line, cells in self._rows():
            text = cells[self._label_at].strip()
            if not text:
                raise DataError(f"the training data have no label in line {line}")
            texts.append(text)
        if not texts:
            raise DataError("the training data have no row")
        try:
            return numpy.array([int(text) for text in texts], dtype=numpy.int64)
        except (ValueError, OverflowError):
            pass
        try:
            numbers = numpy.array([float(text) for text in texts], dtype=numpy.float64)
        except ValueError:
            return numpy.array(texts)
        if not numpy.isfinite(numbers).all():
            line = next(line for line, cells in self._rows() if not math.isfinite(float(cells[self._label_at])))
            raise DataError(f"the label in line {line} of the training data is no finite number")
        whole = (numbers == numpy.floor(numbers)).all() and abs(numbers).max() < 2**53
        return numbers.astype(numpy.int64) if whole else numbers


def _number(cell: str, column: str, line: int) -> float:
    if not cell.strip():
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        raise DataError(
            f"column {column!r}, line {line} of the training data: {cell!r:.50} is no number; "
            "for other columns read run.rows() or run.training_file, and encode them yourself"
        ) from None
    # The largest FP32.
    if not abs(number) < 3.4028236e38:
        raise DataError(f"column {column!r}, line {line} of the training data: {cell!r:.50} is no finite FP32 number")
    return number


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none"


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise missing("arrays need numpy", "sklearn", error) from error
    return numpy
