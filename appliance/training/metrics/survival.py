"""Metrics of time until an event."""

from __future__ import annotations

import numpy as np

from appliance.protocol.counts import Counts
from appliance.training.errors import TrainingFailedError
from appliance.training.metrics.classification import Array
from appliance.training.metrics.counting import ratio
from appliance.training.metrics.options import Options

_AT_ONCE = 1000  # rows of the comparison of all with all


def c_index(target: Array, output: Array, _: Options) -> Counts | None:
    """The share of comparable pairs in which the one with the higher risk had its event earlier; ties count half.

    A pair is comparable if the earlier of the two times is an event's. Returned are the pairs in the right order, and
    all: those of other nodes are added to them, while nobody compares a patient of one with a patient of another.

    Source: Harrell et al., Evaluating the Yield of Medical Tests, JAMA 247, 1982.
    """
    if target.ndim != 2 or target.shape[1] != 2 or output.ndim != 1:
        shapes = f"{target.shape} and {output.shape}"
        raise TrainingFailedError(
            f"Targets and outputs have the shapes {shapes}; expected (n, 2), time and event, and (n,)."
        )
    time, event, risk = target[:, 0], target[:, 1] > 0, output.astype(np.float64)
    right = pairs = 0.0
    for first in range(0, len(time), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        is_later = (time[None, :] > time[rows, None]) | ((time[None, :] == time[rows, None]) & ~event[None, :])
        comparable = event[rows, None] & is_later
        pairs += float(comparable.sum())
        right += float((comparable & (risk[rows, None] > risk[None, :])).sum())
        right += 0.5 * float((comparable & (risk[rows, None] == risk[None, :])).sum())
    return ratio(right, pairs)
