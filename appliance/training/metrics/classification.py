"""Metrics of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.training.errors import TrainingFailedError
from appliance.training.metrics.options import Options

Array = NDArray[Any]


def classes(target: Array, output: Array, options: Options) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and predicted classes, each of shape (n,)."""
    if target.ndim != 1 or output.ndim > 2:
        shapes = f"{target.shape} and {output.shape}"
        raise TrainingFailedError(f"Targets and outputs have the shapes {shapes}; expected (n,) and (n,) or (n, k).")
    predicted = output > options.threshold if output.ndim == 1 else output.argmax(axis=1)
    return target.astype(np.int64), predicted.astype(np.int64)


def is_binary(true: Array, predicted: Array, output: Array, options: Options) -> bool:
    """Whether a metric is of the positive class alone, rather than a mean over classes."""
    if options.average is not None:
        return options.average == "binary"
    return bool(output.ndim == 1 and max(true.max(), predicted.max()) <= 1)


def accuracy(target: Array, output: Array, options: Options) -> float:
    """The share of samples whose class is right."""
    true, predicted = classes(target, output, options)
    return float((true == predicted).mean())


def balanced_accuracy(target: Array, output: Array, options: Options) -> float:
    """The mean over the classes that are present of the share that is found."""
    true, predicted = classes(target, output, options)
    return float(np.mean([(predicted[true == label] == label).mean() for label in np.unique(true)]))


Score = Callable[[float, float, float, float], float]


def _of_hits(score: Score) -> Callable[[Array, Array, Options], float]:
    """A metric from true positives, predicted positives, positives and samples, averaged over classes."""

    def metric(target: Array, output: Array, options: Options) -> float:
        true, predicted = classes(target, output, options)
        present = np.union1d(true, predicted)
        scores = [
            score(
                float(((true == label) & (predicted == label)).sum()),
                float((predicted == label).sum()),
                float((true == label).sum()),
                float(len(true)),
            )
            for label in ([1] if is_binary(true, predicted, output, options) else present)
        ]
        return float(np.mean(scores))

    return metric


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


precision = _of_hits(lambda hits, predicted, _true, _all: _ratio(hits, predicted))
recall = _of_hits(lambda hits, _predicted, true, _all: _ratio(hits, true))
f1_score = _of_hits(lambda hits, predicted, true, _all: _ratio(2 * hits, predicted + true))
specificity = _of_hits(lambda hits, predicted, true, all_: _ratio(all_ - true - predicted + hits, all_ - true))


def auc(target: Array, output: Array, _: Options) -> float | None:
    """The area under the ROC curve; for k classes the mean of each class against the others."""
    return _by_class(_rank_auc, target, output)


def average_precision(target: Array, output: Array, _: Options) -> float | None:
    """The mean of the precisions at each positive, best score first; for k classes the mean over classes."""
    return _by_class(_average_precision, target, output)


def _by_class(measure: Callable[[Array, Array], float | None], target: Array, output: Array) -> float | None:
    if output.ndim == 1:
        return measure(target == 1, output)
    found = [measure(target == label, output[:, label]) for label in range(output.shape[1])]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if len(known) == len(found) else None


def _rank_auc(positive: Array, score: Array) -> float | None:
    """The share of pairs (positive, negative) in the right order, ties counting half (Mann and Whitney, 1947)."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    rank_sum = float(mean_rank[place][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def _average_precision(positive: Array, score: Array) -> float | None:
    """The sum over thresholds of precision times the recall that it adds; scores that tie are one threshold."""
    total = int(positive.sum())
    if total == 0:
        return None
    order = np.argsort(-score, kind="stable")
    hits, chosen = np.cumsum(positive[order]), np.arange(1, len(score) + 1)
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found = hits[ends]
    return float(np.sum(np.diff(found, prepend=0) / total * found / chosen[ends]))
