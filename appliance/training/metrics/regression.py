"""Metrics of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance.training.errors import TrainingFailedError
from appliance.training.metrics.classification import Array
from appliance.training.metrics.options import Options

Float64 = NDArray[np.float64]


def difference(target: Array, output: Array) -> Float64:
    """Targets less outputs."""
    if target.shape != output.shape:
        raise TrainingFailedError(f"Targets and outputs differ in shape: {target.shape} and {output.shape}.")
    difference: Float64 = target.astype(np.float64) - output.astype(np.float64)
    return difference


def mse(target: Array, output: Array, _: Options) -> float:
    """The mean of the squared differences."""
    return float(np.square(difference(target, output)).mean())


def rmse(target: Array, output: Array, options: Options) -> float:
    """The root of the mean squared difference, in the target's unit."""
    return float(np.sqrt(mse(target, output, options)))


def mae(target: Array, output: Array, _: Options) -> float:
    """The mean of the differences without their sign, in the target's unit."""
    return float(np.abs(difference(target, output)).mean())


def r2(target: Array, output: Array, _: Options) -> float | None:
    """One less the squared differences' share of the targets' spread; the mean over columns."""
    left = np.square(difference(target, output)).mean(axis=0)
    return _of_spread(left, target)


def explained_variance(target: Array, output: Array, _: Options) -> float | None:
    """As ``r2``, but that a constant difference costs nothing."""
    return _of_spread(difference(target, output).var(axis=0), target)


def _of_spread(left: Float64, target: Array) -> float | None:
    total = target.astype(np.float64).var(axis=0)
    return float(np.mean(1 - left / total)) if np.all(total > 0) else None
