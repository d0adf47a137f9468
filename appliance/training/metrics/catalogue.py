"""Which metrics there are, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from appliance.protocol.counts import Counts
from appliance.training.errors import TrainingFailedError
from appliance.training.metrics import classification, counting, probabilities, regression, segmentation, survival
from appliance.training.metrics.classification import Array
from appliance.training.metrics.options import Options, parse_options


class Metric(StrEnum):
    """The metrics that ``test_metric`` may name.

    Classes: ACCURACY, BALANCED_ACCURACY, F1_SCORE, PRECISION, RECALL, SPECIFICITY, AUC, AVERAGE_PRECISION.
    Probabilities: BRIER, CALIBRATION_ERROR. Numbers: MSE, RMSE, MAE, R2, EXPLAINED_VARIANCE.
    Segmentations: DICE, IOU, HAUSDORFF. Survival: C_INDEX.

    Example:
        >>> Metric.named("mean_squared_error")
        <Metric.MSE: 'MSE'>
    """

    ACCURACY = "ACCURACY"
    BALANCED_ACCURACY = "BALANCED_ACCURACY"
    F1_SCORE = "F1_SCORE"
    PRECISION = "PRECISION"
    RECALL = "RECALL"
    SPECIFICITY = "SPECIFICITY"
    AUC = "AUC"
    AVERAGE_PRECISION = "AVERAGE_PRECISION"
    BRIER = "BRIER"
    CALIBRATION_ERROR = "CALIBRATION_ERROR"
    MSE = "MSE"
    RMSE = "RMSE"
    MAE = "MAE"
    MEAN_SQUARE_ERROR = "MSE"  # and the next: other names of the two
    MEAN_ABSOLUTE_ERROR = "MAE"
    R2 = "R2"
    EXPLAINED_VARIANCE = "EXPLAINED_VARIANCE"
    DICE = "DICE"
    IOU = "IOU"
    HAUSDORFF = "HAUSDORFF"
    C_INDEX = "C_INDEX"

    @classmethod
    def named(cls, name: str) -> Metric | str:
        """The metric of this name or of Fed-BioMed's name for it; the name itself when there is none."""
        upper = name.upper()
        return cls.__members__.get(_ALIASES.get(upper, upper), name)


_ALIASES = {
    "MEAN_SQUARED_ERROR": "MSE", "ROC_AUC": "AUC",
    "ROOT_MEAN_SQUARED_ERROR": "RMSE", "CONCORDANCE": "C_INDEX", "SENSITIVITY": "RECALL", "JACCARD": "IOU",
    "PR_AUC": "AVERAGE_PRECISION", "ECE": "CALIBRATION_ERROR",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A metric over a node's samples.

    Attributes:
        value: None when the samples do not determine it (for AUC: only one class is present).
        counts: What it is made of, for a metric that a mean over nodes would get wrong.
    """

    value: float | None
    counts: Counts | None = None


@dataclass(frozen=True)
class _Entry:
    """How a metric is computed; one without ``compute`` is the ratio that its counts are."""

    compute: Callable[[Array, Array, Options], float | None] | None
    arguments: tuple[str, ...] = ()
    count: counting.Count | None = None


_CLASSES, _SEGMENTS, _PROBABILITIES = ("threshold", "average"), ("threshold",), ("outputs",)
_METRICS: Mapping[Metric, _Entry] = {
    Metric.ACCURACY: _Entry(classification.accuracy, _CLASSES),
    Metric.BALANCED_ACCURACY: _Entry(classification.balanced_accuracy, ("threshold",), counting.count_classes),
    Metric.PRECISION: _Entry(classification.precision, _CLASSES, counting.count_hits),
    Metric.RECALL: _Entry(classification.recall, _CLASSES, counting.count_hits),
    Metric.F1_SCORE: _Entry(classification.f1_score, _CLASSES, counting.count_hits),
    Metric.SPECIFICITY: _Entry(classification.specificity, _CLASSES, counting.count_hits),
    Metric.AUC: _Entry(classification.auc, _PROBABILITIES, counting.count_scores),
    Metric.AVERAGE_PRECISION: _Entry(classification.average_precision, _PROBABILITIES, counting.count_scores),
    Metric.BRIER: _Entry(probabilities.brier, _PROBABILITIES),
    Metric.CALIBRATION_ERROR: _Entry(probabilities.calibration_error, ("outputs", "bins"), counting.count_gaps),
    Metric.MSE: _Entry(regression.mse),
    Metric.RMSE: _Entry(regression.rmse),
    Metric.MAE: _Entry(regression.mae),
    Metric.R2: _Entry(regression.r2, (), counting.count_moments),
    Metric.EXPLAINED_VARIANCE: _Entry(regression.explained_variance, (), counting.count_moments),
    Metric.DICE: _Entry(segmentation.dice, _SEGMENTS),
    Metric.IOU: _Entry(segmentation.iou, _SEGMENTS),
    Metric.HAUSDORFF: _Entry(None, ("threshold", "percentile", "spacing"), segmentation.hausdorff),
    Metric.C_INDEX: _Entry(None, (), survival.c_index),
}


def require_metric_arguments(metric: Metric, arguments: Mapping[str, Any]) -> None:
    """Raise ArgumentInvalidError for an argument that the metric does not take, or a value that it does not allow."""
    parse_options(metric, _METRICS[metric].arguments, arguments)


def evaluate(metric: Metric, target: Array, output: Array, arguments: Mapping[str, Any] | None = None) -> float | None:
    """One metric over all samples; see ``measure``, whose value it is.

    Example:
        >>> evaluate(Metric.ACCURACY, np.array([0, 1, 1]), np.array([-2.0, 0.5, -0.1]))
        0.6666666666666666
    """
    return measure(metric, target, output, arguments).value


def measure(metric: Metric, target: Array, output: Array, arguments: Mapping[str, Any] | None = None) -> Measured:
    """One metric over all samples, and what it is made of.

    Args:
        metric: Which one.
        target: What is true: of shape (n,) or (n, 1), classes as whole numbers from 0; for a segmentation (n, …) or
            (n, 1, …); for survival (n, 2), time and whether the event was seen.
        output: What the model gave, of shape (n,), (n, 1) or (n, k), and (n, k, …) for a segmentation.
        arguments: What the metric takes; see ``Options``.

    Raises:
        ArgumentInvalidError: An argument that the metric does not take.
        TrainingFailedError: Targets and outputs do not belong together.
    """
    entry = _METRICS[metric]
    options = parse_options(metric, entry.arguments, arguments or {})
    target, output = _flat(target), _flat(output)
    if len(target) != len(output):
        raise TrainingFailedError(f"The model gave {len(output)} outputs for {len(target)} targets.")
    if len(target) == 0:
        return Measured(None)
    value = None if entry.compute is None else entry.compute(target, output, options)
    counts = None if entry.count is None else entry.count(target, output, options)
    if entry.compute is None and counts is not None and counts.cells[1]:
        value = (counts.cells[0] or 0.0) / counts.cells[1]
    return Measured(value if value is not None and np.isfinite(value) else None, counts)


def _flat(values: Array) -> Array:
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
