"""Counts: what makes one metric of many nodes' tests, in so many numbers and none of a record.

A test's value at one hospital and its value at another do not make the value over both patients' together: an AUC is
no mean of AUCs. Counts do. They are few, of a fixed form and length, and agree with the number of samples that they
count, at whoever reads them: a node cannot say in them what no test can have found, nor a plan more than they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_COUNTS = 512  # numbers of one test, over all its metrics
SCORE_BINS = 64  # at most; with more classes fewer
_MAX_ROWS = 128

Cell = Annotated[float, Field(allow_inf_nan=False)] | None


class CountsForm(StrEnum):
    """What the rows of counts hold.

    CLASSES: for each class, or for the positive one alone: how many were found, predicted, true.
    SCORES: two rows for each class, or for the positive one alone: how many samples of it, and how many others, have
    their score in each bin; None is counted in the next bin that is not.
    CALIBRATION: for each bin of probabilities: its samples, and the sum of probability less outcome; None is withheld.
    MOMENTS: for each column: the target's mean and variance, the error's mean and variance.
    RATIO: a part and its whole.
    """

    CLASSES = "classes"
    SCORES = "scores"
    CALIBRATION = "calibration"
    MOMENTS = "moments"
    RATIO = "ratio"


_WIDTHS = {CountsForm.CLASSES: 3, CountsForm.CALIBRATION: 2, CountsForm.MOMENTS: 4, CountsForm.RATIO: 2}
HISTOGRAMS = frozenset({CountsForm.SCORES, CountsForm.CALIBRATION})  # they say more than sums do


_FORMS = {
    "BALANCED_ACCURACY": CountsForm.CLASSES,
    "PRECISION": CountsForm.CLASSES,
    "RECALL": CountsForm.CLASSES,
    "F1_SCORE": CountsForm.CLASSES,
    "SPECIFICITY": CountsForm.CLASSES,
    "AUC": CountsForm.SCORES,
    "AVERAGE_PRECISION": CountsForm.SCORES,
    "CALIBRATION_ERROR": CountsForm.CALIBRATION,
    "R2": CountsForm.MOMENTS,
    "EXPLAINED_VARIANCE": CountsForm.MOMENTS,
}


def form_of(metric: str) -> CountsForm:
    """The form of a metric's counts; a metric that a plan named itself can only be a ratio."""
    return _FORMS.get(metric, CountsForm.RATIO)


def score_bins(rows: int) -> int:
    """How many bins of scores there are with so many rows: coarse enough for ``MAX_COUNTS``."""
    return min(SCORE_BINS, MAX_COUNTS // rows)


class Counts(BaseModel):
    """One metric's counts at one node.

    Attributes:
        form: What the rows hold.
        rows: How many there are.
        cells: Row after row, all of one length.

    Example:
        >>> counts = Counts(form=CountsForm.CLASSES, rows=1, cells=(8, 10, 12))
        >>> counts.fault(samples=40), counts.fault(samples=9)
        (None, 'it counts more than there are samples')
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    form: CountsForm
    rows: int = Field(ge=1, le=_MAX_ROWS)
    cells: tuple[Cell, ...] = Field(max_length=MAX_COUNTS)

    @model_validator(mode="after")
    def _has_its_form(self) -> Counts:
        width = score_bins(self.rows) if self.form is CountsForm.SCORES else _WIDTHS[self.form]
        if len(self.cells) != self.rows * width:
            raise ValueError(f"{self.rows} rows of {self.form} have {self.rows * width} cells")
        if self.form is CountsForm.SCORES and self.rows % 2:
            raise ValueError("scores have two rows for each class")
        if self.form is CountsForm.RATIO and self.rows != 1:
            raise ValueError("a ratio has one row")
        if None in self.cells and self.form not in HISTOGRAMS:
            raise ValueError(f"no cell of {self.form} may be missing")
        return self

    def table(self) -> list[list[float | None]]:
        """The rows."""
        width = len(self.cells) // self.rows
        return [[*self.cells[start : start + width]] for start in range(0, len(self.cells), width)]

    def fault(self, samples: int) -> str | None:
        """What is impossible in them for so many samples; None when nothing is."""
        match self.form:
            case CountsForm.CLASSES:
                return _fault_of_classes(self.table(), samples)
            case CountsForm.SCORES:
                return _fault_of_scores(self.table(), samples)
            case CountsForm.CALIBRATION:
                return _fault_of_calibration(self.table(), samples)
            case CountsForm.MOMENTS:
                is_below = any(min(row[1] or 0, row[3] or 0) < 0 for row in self.table())
                return "a variance is below 0" if is_below else None
            case CountsForm.RATIO:
                return None


Rows = Sequence[Sequence[float | None]]


def _whole(rows: Rows) -> list[list[int]] | None:
    cells = [[cell or 0 for cell in row] for row in rows]
    are_counts = all(cell >= 0 and float(cell).is_integer() for row in cells for cell in row)
    return [[int(cell) for cell in row] for row in cells] if are_counts else None


def _fault_of_classes(rows: Rows, samples: int) -> str | None:
    counts = _whole(rows)
    if counts is None:
        return "a count is no whole number from 0"
    if any(max(row) > samples for row in counts):
        return "it counts more than there are samples"
    if any(found > min(predicted, true) for found, predicted, true in counts):
        return "more of a class were found than predicted, or than there are"
    if len(counts) > 1 and not sum(row[1] for row in counts) == sum(row[2] for row in counts) == samples:
        return "the classes do not add up to the samples"
    return None


def _fault_of_scores(rows: Rows, samples: int) -> str | None:
    counts = _whole(rows)
    if counts is None:
        return "a count is no whole number from 0"
    if any(row[-1] is None for row in rows):
        return "the last bin is missing"
    sizes = [sum(row) for row in counts]
    if any(of + others != samples for of, others in zip(sizes[::2], sizes[1::2], strict=True)):
        return "the bins do not add up to the samples"
    if len(sizes) > 2 and sum(sizes[::2]) != samples:
        return "the classes do not add up to the samples"
    return None


def _fault_of_calibration(rows: Rows, samples: int) -> str | None:
    if any((size is None) != (gap is None) for size, gap in rows):
        return "half of a bin is missing"
    shown = [(size, gap) for size, gap in rows if size is not None and gap is not None]
    sizes = _whole([[size] for size, _gap in shown])
    if sizes is None:
        return "a count is no whole number from 0"
    if any(abs(gap) > size * 1.00001 for size, gap in shown):  # a gap is rounded
        return "a bin's gap is larger than its samples"
    total = sum(size for (size,) in sizes)
    is_part = len(shown) < len(rows)
    if total > samples or (total < samples and not is_part):
        return "the bins do not add up to the samples"
    return None
