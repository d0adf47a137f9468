"""One metric over the samples of all nodes, from each node's value and counts.

What is a mean over samples is pooled from the values, by the nodes' numbers of samples. What is not needs counts: there
the result is exact but for the six digits that leave a node, or lies in an interval that is stated with it, because
scores are known by their bins only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.protocol.counts import Counts, form_of

Table = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """What one node's test says of one metric."""

    samples: int
    value: float | None = None
    counts: Counts | None = None


@dataclass(frozen=True)
class Pooled:
    """A metric over the samples of several nodes.

    Attributes:
        value: The metric; the middle of what it can be where ``bound`` is above 0.
        bound: How far at most the metric of all the records in one place lies from ``value``, rounding aside.
        nodes: How many nodes it is of.
        samples: How many samples.

    Example:
        >>> str(Pooled(0.8123, 0.004, nodes=3, samples=240))
        '0.8123 ± 0.004'
    """

    value: float
    bound: float = 0.0
    nodes: int = 1
    samples: int = 0

    def __str__(self) -> str:
        return f"{self.value:.4g}" + (f" ± {self.bound:.1g}" if self.bound else "")


def pool(metric: str, parts: Sequence[Part]) -> Pooled | None:
    """A metric over all nodes' samples.

    Args:
        metric: Its name; one that a plan named itself is pooled if it is a ratio.
        parts: One for each node; those that cannot be pooled are left out.

    Returns:
        The value; None where there is none, or where nothing says how to pool it.

    Example:
        >>> pool("MAE", [Part(10, 1.0), Part(30, 2.0)])
        Pooled(value=1.75, bound=0.0, nodes=2, samples=40)
    """
    if metric in _MEANS:
        of_value = {node: part for node, part in enumerate(parts) if part.value is not None and part.samples}
        return _pooled([*of_value.values()], _mean(metric, [*of_value.values()]))
    form = form_of(metric)
    known = [part for part in parts if part.counts is not None and part.counts.form is form and part.samples]
    if not known or len({part.counts.rows for part in known if part.counts}) > 1:
        return None
    return _pooled(known, _POOL.get(metric, _ratio)(known))


def _pooled(parts: Sequence[Part], found: Interval | None) -> Pooled | None:
    if found is None or not parts:
        return None
    low, high = found
    bound = (high - low) / 2
    return Pooled((low + high) / 2, bound if bound > 1e-12 else 0.0, len(parts), sum(part.samples for part in parts))


def _mean(metric: str, parts: Sequence[Part]) -> Interval | None:
    if not parts:
        return None
    values = np.array([part.value for part in parts], dtype=np.float64)
    weights = [part.samples for part in parts]
    found = float(
        np.sqrt(np.average(values**2, weights=weights)) if metric == "RMSE" else np.average(values, weights=weights)
    )
    return found, found


def _tables(parts: Sequence[Part]) -> list[tuple[int, list[list[float | None]]]]:
    return [(part.samples, part.counts.table()) for part in parts if part.counts is not None]


# Classes

Score = Callable[[Table, Table, Table, float], Table]


def _of_classes(score: Score, *, is_of_true: bool = False) -> Callable[[Sequence[Part]], Interval | None]:
    """A score of each class, averaged over the classes that are there."""

    def compute(parts: Sequence[Part]) -> Interval | None:
        tables = _tables(parts)
        found, predicted, true = np.sum([np.array(table, dtype=np.float64) for _samples, table in tables], axis=0).T
        present = (true > 0) if is_of_true else (true + predicted > 0)
        samples = float(sum(samples for samples, _table in tables))
        chosen = present if len(true) > 1 else np.array([True])
        scores = score(found[chosen], predicted[chosen], true[chosen], samples)
        return (float(scores.mean()),) * 2

    return compute


def _share(part: Table, whole: Table) -> Table:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


# Scores, known by the bins that they lie in


@dataclass(frozen=True)
class _Spans:
    """Groups of samples of one kind: each has so many, somewhere in the bins ``low`` to ``high``."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    size: Table

    @property
    def total(self) -> float:
        return float(self.size.sum())

    def at_low(self, bins: int) -> Table:
        """How many there are in each bin if all are as low as can be."""
        return np.bincount(self.low, self.size, bins).astype(np.float64)

    def at_high(self, bins: int) -> Table:
        return np.bincount(self.high, self.size, bins).astype(np.float64)


def _spans(rows: Sequence[Sequence[float | None]]) -> _Spans:
    low, high, size = [], [], []
    for row in rows:
        first = 0
        for place, cell in enumerate(row):
            if cell is not None:
                if cell:
                    low.append(first)
                    high.append(place)
                    size.append(cell)
                first = place + 1
    return _Spans(np.array(low, dtype=np.int64), np.array(high, dtype=np.int64), np.array(size, dtype=np.float64))


def _of_scores(
    measure: Callable[[_Spans, _Spans, int], Interval | None],
) -> Callable[[Sequence[Part]], Interval | None]:
    """A measure of each class against the others, averaged over the classes."""

    def compute(parts: Sequence[Part]) -> Interval | None:
        tables = [table for _samples, table in _tables(parts)]
        bins = len(tables[0][0])
        found = []
        for row in range(0, len(tables[0]), 2):
            of, others = (_spans([table[row + which] for table in tables]) for which in (0, 1))
            interval = measure(of, others, bins)
            if interval is None:
                return None
            found.append(interval)
        return float(np.mean([low for low, _ in found])), float(np.mean([high for _, high in found]))

    return compute


def _auc(of: _Spans, others: _Spans, bins: int) -> Interval | None:
    """The share of pairs in the right order: all of those that the bins order, none or all of the others."""
    pairs = of.total * others.total
    if not pairs:
        return None
    surely_below = np.concatenate([[0.0], np.cumsum(others.at_high(bins))])  # wholly below bin b
    perhaps_below = np.cumsum(others.at_low(bins))  # in bin b or below, at their lowest
    right = float((of.size * surely_below[of.low]).sum())
    not_wrong = float((of.size * perhaps_below[of.high]).sum())
    return right / pairs, not_wrong / pairs


def _average_precision(of: _Spans, others: _Spans, bins: int) -> Interval | None:
    """The mean over positives of the precision at their score: the least and the most that the bins allow.

    The least has positives as low and negatives as high as can be, negatives first: the i-th positive from the top then
    has precision i / (i + negatives above it). At any score in a bin precision is at most what it is there with every
    positive that can lie as high, and only those negatives that must; of a group's bins the best counts.
    """
    if not of.total:
        return None
    low = np.repeat(of.low, of.size.astype(np.int64))
    low = low[np.argsort(-low)]
    negatives_high = np.cumsum(others.at_high(bins)[::-1])[::-1]  # perhaps in bin b or above
    order = np.arange(1, len(low) + 1)
    least = float((order / (order + negatives_high[low])).mean())
    hits = np.cumsum(of.at_high(bins)[::-1])[::-1]
    surely_above = np.append(np.cumsum(others.at_low(bins)[::-1])[::-1], 0.0)[1:]
    precision = np.divide(hits, hits + surely_above, out=np.zeros(bins), where=hits > 0)
    best = [precision[first : last + 1].max() for first, last in zip(of.low, of.high, strict=True)]
    return least, float(np.average(best, weights=of.size))


# The others


def _calibration(parts: Sequence[Part]) -> Interval:
    """Each withheld sample adds between 0 and 1 to some bin's gap, either way."""
    tables = _tables(parts)
    samples = sum(samples for samples, _table in tables)
    rows = np.array([[[cell or 0.0 for cell in row] for row in table] for _samples, table in tables])
    withheld = samples - rows[:, :, 0].sum()
    found = float(np.abs(rows[:, :, 1].sum(axis=0)).sum())
    return max(0.0, found - withheld) / samples, min(1.0, (found + withheld) / samples)


def _of_moments(*, is_bias_free: bool) -> Callable[[Sequence[Part]], Interval | None]:
    """One less the errors' share of the targets' spread; the mean over columns (Chan et al., 1983, for the sums)."""

    def compute(parts: Sequence[Part]) -> Interval | None:
        tables = _tables(parts)
        weights = np.array([samples for samples, _table in tables], dtype=np.float64)
        moments = np.array([table for _samples, table in tables], dtype=np.float64)  # (nodes, columns, 4)
        spread = _spread(moments[:, :, 0], moments[:, :, 1], weights)
        error = _spread(moments[:, :, 2], moments[:, :, 3], weights)
        if not is_bias_free:
            error = error + np.average(moments[:, :, 2], axis=0, weights=weights) ** 2
        return (float(np.mean(1 - error / spread)),) * 2 if np.all(spread > 0) else None

    return compute


def _spread(means: Table, variances: Table, weights: Table) -> Table:
    mean = np.average(means, axis=0, weights=weights)
    spread: Table = np.average(variances + (means - mean) ** 2, axis=0, weights=weights)
    return spread


def _ratio(parts: Sequence[Part]) -> Interval | None:
    part, whole = np.sum([np.array(table[0], dtype=np.float64) for _samples, table in _tables(parts)], axis=0)
    return (float(part / whole),) * 2 if whole else None


_MEANS = frozenset({"ACCURACY", "BRIER", "MAE", "MSE", "RMSE", "DICE", "IOU"})
_POOL: Mapping[str, Callable[[Sequence[Part]], Interval | None]] = {
    "BALANCED_ACCURACY": _of_classes(lambda found, _predicted, true, _all: _share(found, true), is_of_true=True),
    "PRECISION": _of_classes(lambda found, predicted, _true, _all: _share(found, predicted)),
    "RECALL": _of_classes(lambda found, _predicted, true, _all: _share(found, true)),
    "F1_SCORE": _of_classes(lambda found, predicted, true, _all: _share(2 * found, predicted + true)),
    "SPECIFICITY": _of_classes(
        lambda found, predicted, true, all_: _share(all_ - true - predicted + found, all_ - true)
    ),
    "AUC": _of_scores(_auc),
    "AVERAGE_PRECISION": _of_scores(_average_precision),
    "CALIBRATION_ERROR": _calibration,
    "R2": _of_moments(is_bias_free=False),
    "EXPLAINED_VARIANCE": _of_moments(is_bias_free=True),
}
