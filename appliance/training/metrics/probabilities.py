"""Metrics of how far a model's probabilities can be believed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance.training.errors import TrainingFailedError
from appliance.training.metrics.classification import Array
from appliance.training.metrics.options import Options

Float64 = NDArray[np.float64]


def _probabilities(target: Array, output: Array, options: Options) -> Float64:
    """Of shape (n,) for one score, which is the positive class's; of (n, k) for k classes."""
    if target.ndim != 1 or output.ndim > 2:
        shapes = f"{target.shape} and {output.shape}"
        raise TrainingFailedError(f"Targets and outputs have the shapes {shapes}; expected (n,) and (n,) or (n, k).")
    scores: Float64 = output.astype(np.float64)
    if options.outputs == "probabilities":
        if scores.min() < 0 or scores.max() > 1:
            raise TrainingFailedError("The model's outputs are no probabilities: one lies outside of 0 to 1.")
        return scores
    if scores.ndim == 1:
        result: Float64 = np.where(scores >= 0, 1, np.exp(-np.abs(scores))) / (1 + np.exp(-np.abs(scores)))
        return result
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Float64 = powers / powers.sum(axis=1, keepdims=True)
    return shares


def brier(target: Array, output: Array, options: Options) -> float:
    """The mean squared difference between probability and outcome; over k classes, their sum.

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78, 1950.
    """
    found = _probabilities(target, output, options)
    if found.ndim == 1:
        return float(np.square(found - (target == 1)).mean())
    return float(np.square(found - np.eye(found.shape[1])[target.astype(np.int64)]).sum(axis=1).mean())


def calibration_error(target: Array, output: Array, options: Options) -> float:
    """How far probabilities lie from frequencies: the mean over ``bins`` of equal width, by their samples.

    For one score the positive class's probability is looked at, for k classes that of the predicted one.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    place, gap = confidences(target, output, options)
    return float(np.abs(np.bincount(place, gap, options.bins)).sum() / len(target))


def confidences(target: Array, output: Array, options: Options) -> tuple[NDArray[np.int64], Float64]:
    """For each sample the bin of its probability, and its probability less its outcome; see ``calibration_error``."""
    found = _probabilities(target, output, options)
    if found.ndim == 1:
        confidence, is_right = found, target == 1
    else:
        confidence, is_right = found.max(axis=1), found.argmax(axis=1) == target
    place = np.minimum((confidence * options.bins).astype(np.int64), options.bins - 1)
    return place, confidence - is_right
