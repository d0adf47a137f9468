"""Metrics over held-out samples, from a model's raw outputs.

A binary model gives one score a sample, of shape (n,) or (n, 1): the positive class where the score is above
``threshold``, which is 0 (a logit) unless ``test_metric_args`` says otherwise. A model of k classes gives (n, k)
scores, the class being the largest. A value that the samples do not determine is None: never NaN.

Tests hold these to scikit-learn's results; they are written out here so that a PyTorch plan need not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.protocol.wording import did_you_mean
from appliance.training.errors import ArgumentInvalidError, TrainingFailedError

Array = NDArray[Any]
Float64 = NDArray[np.float64]


class Metric(StrEnum):
    """The metrics that ``test_metric`` may name."""

    ACCURACY = "ACCURACY"
    F1_SCORE = "F1_SCORE"
    PRECISION = "PRECISION"
    RECALL = "RECALL"
    AUC = "AUC"
    MSE = "MSE"
    MAE = "MAE"
    EXPLAINED_VARIANCE = "EXPLAINED_VARIANCE"

    @classmethod
    def named(cls, name: str) -> Metric | str:
        """The metric of this name or of Fed-BioMed's name for it; the name itself when there is none."""
        upper = name.upper()
        return cls.__members__.get(_ALIASES.get(upper, upper), name)


_ALIASES = {"MEAN_SQUARE_ERROR": "MSE", "MEAN_SQUARED_ERROR": "MSE", "MEAN_ABSOLUTE_ERROR": "MAE", "ROC_AUC": "AUC"}


def evaluate(metric: Metric, target: Array, output: Array, arguments: Mapping[str, Any] | None = None) -> float | None:
    """One metric over all samples.

    Args:
        metric: Which one.
        target: What is true, of shape (n,) or (n, 1); classes as whole numbers from 0.
        output: What the model gave, of shape (n,), (n, 1) or (n, k).
        arguments: ``threshold`` for classes from one score; ``average`` ("binary", "macro") for precision, recall, F1.

    Returns:
        The value, or None when the samples do not determine it (for AUC: only one class is present).

    Raises:
        ArgumentInvalidError: An argument that the metric does not take.
        TrainingFailedError: Targets and outputs do not belong together.
    """
    options = _Options(metric, arguments or {})
    target, output = _flat(target), _flat(output)
    if len(target) != len(output):
        raise TrainingFailedError(f"The model gave {len(output)} outputs for {len(target)} targets.")
    if len(target) == 0:
        return None
    value = _METRICS[metric](target, output, options)
    return value if value is not None and np.isfinite(value) else None


class _Options:
    """What ``test_metric_args`` may say."""

    def __init__(self, metric: Metric, arguments: Mapping[str, Any]) -> None:
        known = ("threshold", "average")
        for name in arguments:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ArgumentInvalidError(f"{metric} takes no argument '{name}' in test_metric_args.{hint}")
        self.threshold = arguments.get("threshold", 0.0)
        self.average = arguments.get("average")
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise ArgumentInvalidError("test_metric_args.threshold must be a number.")
        if self.average not in (None, "binary", "macro"):
            raise ArgumentInvalidError("test_metric_args.average must be 'binary' or 'macro'.")


def _flat(values: Array) -> Array:
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _classes(target: Array, output: Array, options: _Options) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and predicted classes, each of shape (n,)."""
    if target.ndim != 1 or output.ndim > 2:
        shapes = f"{target.shape} and {output.shape}"
        raise TrainingFailedError(f"Targets and outputs have the shapes {shapes}; expected (n,) and (n,) or (n, k).")
    predicted = output > options.threshold if output.ndim == 1 else output.argmax(axis=1)
    return target.astype(np.int64), predicted.astype(np.int64)


def _accuracy(target: Array, output: Array, options: _Options) -> float:
    true, predicted = _classes(target, output, options)
    return float((true == predicted).mean())


def _of_hits(score: Callable[[float, float, float], float]) -> Callable[[Array, Array, _Options], float]:
    """A metric from true positives, predicted positives and positives, averaged over classes."""

    def metric(target: Array, output: Array, options: _Options) -> float:
        true, predicted = _classes(target, output, options)
        present = np.union1d(true, predicted)
        is_binary = options.average == "binary" or (options.average is None and present.max() <= 1 and output.ndim == 1)
        scores = [
            score(
                float(((true == label) & (predicted == label)).sum()),
                float((predicted == label).sum()),
                float((true == label).sum()),
            )
            for label in ([1] if is_binary else present)
        ]
        return float(np.mean(scores))

    return metric


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _auc(target: Array, output: Array, _: _Options) -> float | None:
    """The area under the ROC curve; for k classes the mean of each class against the others."""
    if output.ndim == 1:
        return _rank_auc(target == 1, output)
    areas = [_rank_auc(target == label, output[:, label]) for label in range(output.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if len(known) == len(areas) else None


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


def _error(measure: Callable[[Float64], Float64]) -> Callable[[Array, Array, _Options], float]:
    def metric(target: Array, output: Array, _: _Options) -> float:
        return float(measure(_difference(target, output)).mean())

    return metric


def _difference(target: Array, output: Array) -> Float64:
    if target.shape != output.shape:
        raise TrainingFailedError(f"Targets and outputs differ in shape: {target.shape} and {output.shape}.")
    difference: Float64 = target.astype(np.float64) - output.astype(np.float64)
    return difference


def _explained_variance(target: Array, output: Array, _: _Options) -> float | None:
    left, total = _difference(target, output).var(axis=0), target.astype(np.float64).var(axis=0)
    return float(np.mean(1 - left / total)) if np.all(total > 0) else None


_METRICS: Mapping[Metric, Callable[[Array, Array, _Options], float | None]] = {
    Metric.ACCURACY: _accuracy,
    Metric.PRECISION: _of_hits(lambda hits, predicted, _: _ratio(hits, predicted)),
    Metric.RECALL: _of_hits(lambda hits, _, true: _ratio(hits, true)),
    Metric.F1_SCORE: _of_hits(lambda hits, predicted, true: _ratio(2 * hits, predicted + true)),
    Metric.AUC: _auc,
    Metric.MSE: _error(np.square),
    Metric.MAE: _error(np.abs),
    Metric.EXPLAINED_VARIANCE: _explained_variance,
}
