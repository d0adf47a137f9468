"""Aggregators that a few wrong or hostile nodes cannot move far. They need to see each node's update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from appliance.protocol.tensors import Array
from researcher_kit.aggregators.base import (
    Aggregator,
    Tensors,
    Update,
    is_float,
    moved,
    parts,
    read_part,
    require_number,
    spec_of,
)
from researcher_kit.errors import AggregationError, ExperimentArgumentError

Float64 = NDArray[np.float64]


class _ByCoordinate(Aggregator):
    """Looks at one number of all nodes at a time. Every node counts alike: a number of samples is only a claim."""

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        return {name: self._merged(updates, name, parameters) for name in parameters}

    def _merged(self, updates: Sequence[Update], name: str, parameters: Tensors) -> Array:
        spec = spec_of(parameters, name)
        merged = np.empty(spec.shape, spec.dtype)
        for first, last in parts(spec, at_once=len(updates)):
            middle = self._middle(np.stack([read_part(update, name, first, last) for update in updates]))
            if is_float(spec):
                middle += read_part(parameters, name, first, last)
            else:
                np.rint(middle, out=middle)
            merged.reshape(-1)[first:last] = middle
        return merged

    @abstractmethod
    def _middle(self, values: Array) -> Float64:
        """Of values of shape (nodes, n), n numbers; ``values`` may be overwritten."""


class CoordinateMedian(_ByCoordinate):
    """The median of the nodes' updates, number by number.

    Source: Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.

    Example:
        >>> import numpy as np
        >>> updates = [Update(str(v), 1, {"w": np.float32([v])}) for v in (1, 2, 1e9)]
        >>> CoordinateMedian().aggregate(updates, {"w": np.float32([10])})
        {'w': array([12.], dtype=float32)}
    """

    def __repr__(self) -> str:
        return "CoordinateMedian()"

    def _middle(self, values: Array) -> Float64:
        return _median(values)


class TrimmedMean(_ByCoordinate):
    """The mean of the nodes' updates, number by number, without the largest and the smallest ones.

    Args:
        share: Which share of the nodes is left out at either end, from 0 and below 0.5; rounded down to whole nodes.

    Raises:
        ExperimentArgumentError: The share is out of its range.

    Source: Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.

    Example:
        >>> import numpy as np
        >>> updates = [Update(str(v), 1, {"w": np.float32([v])}) for v in (-1e9, 1, 2, 3, 1e9)]
        >>> TrimmedMean(share=0.2).aggregate(updates, {"w": np.float32([10])})
        {'w': array([12.], dtype=float32)}
    """

    def __init__(self, share: float = 0.1) -> None:
        self.share = require_number("share", share, above=0, below=0.5, or_equal=True)

    def __repr__(self) -> str:
        return f"TrimmedMean(share={self.share:g})"

    def _middle(self, values: Array) -> Float64:
        # 0.3 of 10 is 3, though 0.3 * 10 is a little less in binary.
        cut = int(round(self.share * len(values), 9))
        kept = _ranked(values, cut, len(values) - cut) if cut else [*values]
        mean = np.zeros(values[0].shape)
        for row in kept:
            mean += row
        mean /= len(kept)
        return mean

    def state(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return {"share": self.share}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """See ``Aggregator``."""
        super().restore(state, tensors)
        self.share = state["share"]  # type: ignore[assignment]  # as ``state`` wrote it


class Krum(Aggregator):
    """The mean of those updates that lie closest to their neighbours; the others are left out whole.

    Each update's score is the sum of its squared distances to its nearest ``nodes - faulty - 2`` others, over all
    floating-point tensors; the ``keep`` lowest are averaged, every node counting alike.

    Args:
        faulty: How many nodes may be wrong or hostile; a round needs ``2 * faulty + 3`` updates.
        keep: How many are averaged; 1 is Krum, more is Multi-Krum.

    Raises:
        ExperimentArgumentError: One of them is out of its range.
        AggregationError: A round had too few updates.

    Source: Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, NeurIPS 2017.

    Example:
        >>> import numpy as np
        >>> updates = [Update(str(v), 1, {"w": np.float32([v])}) for v in (1, 2, 3, 4, 1e9)]
        >>> Krum(faulty=1).aggregate(updates, {"w": np.float32([10])})
        {'w': array([12.], dtype=float32)}
    """

    def __init__(self, faulty: int = 1, keep: int = 1) -> None:
        for name, value, least in (("faulty", faulty, 0), ("keep", keep, 1)):
            if type(value) is not int or value < least:
                raise ExperimentArgumentError(f"{name} is {value!r}; expected a whole number from {least}.")
        self.faulty, self.keep = faulty, keep

    def __repr__(self) -> str:
        return f"Krum(faulty={self.faulty}, keep={self.keep})"

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        needed = max(2 * self.faulty + 3, self.faulty + self.keep)
        if len(updates) < needed:
            message = f"{self!r} needs {needed} updates in a round; there were {len(updates)}."
            raise AggregationError(message, remedy="Ask more nodes, or expect fewer of them to be faulty.")
        distances = np.sort(self._squared_distances(updates, parameters), axis=1)
        nearest = len(updates) - self.faulty - 2
        scores = distances[:, 1 : nearest + 1].sum(axis=1)  # the nearest of all is the update itself
        chosen = [updates[index] for index in sorted(np.argsort(scores, kind="stable")[: self.keep])]
        return {name: moved(chosen, [1] * len(chosen), name, parameters) for name in parameters}

    @staticmethod
    def _squared_distances(updates: Sequence[Update], parameters: Tensors) -> Float64:
        total = np.zeros((len(updates), len(updates)))
        for name in parameters:
            spec = spec_of(parameters, name)
            for first, last in parts(spec, at_once=len(updates)) if is_float(spec) else ():
                found = np.stack([read_part(update, name, first, last) for update in updates])
                values = found.astype(np.float64)
                # Seen from the median: products of far-away numbers would lose the distance between them, and a single
                # hostile node could see to it that they are far away.
                values -= _median(found)
                products = values @ values.T
                squares = np.diag(products)
                total += squares[:, None] + squares[None, :] - 2 * products
        np.fill_diagonal(total, 0.0)
        return np.maximum(total, 0.0)

    def state(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return {"faulty": self.faulty, "keep": self.keep}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """See ``Aggregator``."""
        super().restore(state, tensors)
        self.faulty, self.keep = state["faulty"], state["keep"]  # type: ignore[assignment]  # as ``state`` wrote it


def _median(values: Array) -> Float64:
    """The median of values of shape (nodes, n), number by number; ``values`` may be overwritten."""
    middle_rows = _ranked(values, (len(values) - 1) // 2, len(values) // 2 + 1)
    middle: Float64 = np.add(middle_rows[0], middle_rows[-1], dtype=np.float64) / 2
    return middle


def _ranked(values: Array, first: int, last: int) -> list[Array]:
    """Of values of shape (nodes, n), those from rank ``first`` up to ``last``, number by number, in order.

    Two nodes' numbers are compared all at once, which is many times faster than to sort each number's column;
    ``values`` may be overwritten.
    """
    rows, spare = [*values], np.empty_like(values[0])
    for one, other, needs_low, needs_high in _comparisons(len(rows), first, last):
        if needs_low and needs_high:
            np.minimum(rows[one], rows[other], out=spare)
            np.maximum(rows[one], rows[other], out=rows[other])
            rows[one], spare = spare, rows[one]
        elif needs_low:
            np.minimum(rows[one], rows[other], out=rows[one])
        else:
            np.maximum(rows[one], rows[other], out=rows[other])
    return rows[first:last]


@cache
def _comparisons(count: int, first: int, last: int) -> list[tuple[int, int, bool, bool]]:
    """Which of ``count`` places to compare in turn, so that those from ``first`` up to ``last`` end with their ranks.

    Returns:
        Two places, and whether the smaller and the larger of their values is looked at afterwards.

    Source: Batcher, Sorting Networks and Their Applications, AFIPS 1968; without what the wanted places do not need.
    """
    pairs: list[tuple[int, int]] = []
    for size in (1 << level for level in range((count - 1).bit_length())):
        for apart in (size >> level for level in range(size.bit_length())):
            for start in range(apart % size, count - apart, 2 * apart):
                places = range(start, min(start + apart, count - apart))
                pairs += [(p, p + apart) for p in places if p // (2 * size) == (p + apart) // (2 * size)]
    needed, kept = {*range(first, last)}, []
    for one, other in reversed(pairs):
        if one in needed or other in needed:
            kept.append((one, other, one in needed, other in needed))
            needed |= {one, other}
    return kept[::-1]
