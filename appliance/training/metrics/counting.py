"""From a node's samples to the counts that leave it; see ``appliance.protocol.counts``.

Each returns None where there is nothing to pool: targets of another kind, or more classes, bins or columns than counts
may have.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from appliance.protocol.counts import MAX_COUNTS, Counts, CountsForm, score_bins
from appliance.training.metrics.classification import Array, classes, is_binary
from appliance.training.metrics.options import Options
from appliance.training.metrics.probabilities import confidences
from appliance.training.metrics.regression import difference

Count = Callable[[Array, Array, Options], Counts | None]

_MAX_CLASSES, _MAX_COLUMNS, _MAX_CALIBRATION_BINS = 32, 16, 100


def count_hits(target: Array, output: Array, options: Options) -> Counts | None:
    """How many of each class were found, predicted and true; of the positive one alone where that is enough."""
    true, predicted = classes(target, output, options)
    labels = [1] if is_binary(true, predicted, output, options) else _labels(true, output)
    if labels is None:
        return None
    of = [(true == label, predicted == label) for label in labels]
    cells = [float(chosen.sum()) for is_true, is_found in of for chosen in (is_true & is_found, is_found, is_true)]
    return Counts(form=CountsForm.CLASSES, rows=len(labels), cells=tuple(cells))


def count_classes(target: Array, output: Array, options: Options) -> Counts | None:
    """As ``count_hits``, but always of every class."""
    return count_hits(target, output, options.model_copy(update={"average": "macro"}))


def count_scores(target: Array, output: Array, options: Options) -> Counts | None:
    """How many samples of each class, and how many others, have their score in each bin.

    Bins are of equal width in p for probabilities, and in score / (1 + |score|) for logits, which may be of any size.
    """
    true = target.astype(np.int64)
    labels = [1] if output.ndim == 1 else _labels(true, output)
    if labels is None or not np.isfinite(output).all():
        return None
    rows = 2 * len(labels)
    cells: list[float] = []
    for label in labels:
        place = score_places(output if output.ndim == 1 else output[:, label], options, score_bins(rows))
        for chosen in (true == label, true != label):
            cells += np.bincount(place[chosen], minlength=score_bins(rows)).astype(float).tolist()
    return Counts(form=CountsForm.SCORES, rows=rows, cells=tuple(cells))


def score_places(scores: Array, options: Options, bins: int) -> NDArray[np.int64]:
    """Into which of the bins each score falls; a higher score never into a lower bin."""
    wide = scores.astype(np.float64)
    share = wide if options.outputs == "probabilities" else (wide / (1 + np.abs(wide)) + 1) / 2
    return np.clip((share * bins).astype(np.int64), 0, bins - 1)


def count_gaps(target: Array, output: Array, options: Options) -> Counts | None:
    """For each bin of probabilities its samples, and the sum of probability less outcome."""
    if options.bins > _MAX_CALIBRATION_BINS or not np.isfinite(output).all():
        return None
    place, gap = confidences(target, output, options)
    sizes = np.bincount(place, minlength=options.bins)
    cells = np.column_stack([sizes, np.bincount(place, gap, options.bins)]).ravel()
    return Counts(form=CountsForm.CALIBRATION, rows=options.bins, cells=tuple(map(float, cells)))


def count_moments(target: Array, output: Array, _: Options) -> Counts | None:
    """Mean and variance of targets and of errors, for each column."""
    error = difference(target, output)
    if target.ndim > 2 or (target.ndim == 2 and target.shape[1] > _MAX_COLUMNS) or not np.isfinite(error).all():
        return None
    columns = target.astype(np.float64).reshape(len(target), -1), error.reshape(len(target), -1)
    cells = np.column_stack([moment for values in columns for moment in (values.mean(axis=0), values.var(axis=0))])
    return Counts(form=CountsForm.MOMENTS, rows=len(cells), cells=tuple(map(float, cells.ravel())))


def ratio(part: float, whole: float) -> Counts | None:
    """A part of a whole, where both are finite numbers."""
    is_sound = np.isfinite(part) and np.isfinite(whole)
    return Counts(form=CountsForm.RATIO, rows=1, cells=(float(part), float(whole))) if is_sound else None


def _labels(true: NDArray[np.int64], output: Array) -> list[int] | None:
    """All classes that the model knows; None when they are too many, or when targets name another."""
    number = 2 if output.ndim == 1 else output.shape[1]
    is_right = number <= min(_MAX_CLASSES, MAX_COUNTS // 3) and true.min() >= 0 and true.max() < number
    return list(range(number)) if is_right else None
