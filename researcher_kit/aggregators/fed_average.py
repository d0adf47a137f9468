"""Federated averaging."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appliance.protocol.tensors import Array, TensorSpec
from researcher_kit.aggregators.base import Aggregator, Tensors, Update, read_part
from researcher_kit.errors import AggregationError


class FedAverage(Aggregator):
    """The mean of the nodes' updates, weighted by their numbers of samples, added to the global parameters.

    Sums are formed in float64 in the order of the member ids, so that the order of arrival does not change a bit.
    Integer tensors become the weighted mean of the nodes' values, rounded to the nearest (ties to even).

    Raises:
        AggregationError: The nodes trained on no sample at all.

    Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017.

    Example:
        >>> import numpy as np
        >>> updates = [Update("north", 1, {"w": np.float32([4.0])}), Update("south", 3, {"w": np.float32([0.0])})]
        >>> FedAverage().aggregate(updates, {"w": np.float32([10.0])})
        {'w': array([11.], dtype=float32)}
    """

    def __repr__(self) -> str:
        return "FedAverage()"

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        total = sum(update.weight for update in updates)
        if total <= 0:
            raise AggregationError("The nodes trained on no sample, so there is no mean of their updates.")
        return {name: _merged(updates, name, parameters[name], total) for name in parameters}


def _merged(updates: Sequence[Update], name: str, base: Array, total: int) -> Array:
    merged = np.empty(base.shape, base.dtype)
    flat_base, flat = base.reshape(-1), merged.reshape(-1)
    # In parts that stay in the processor's cache: a whole tensor of doubles would pass through memory for each update.
    for first, last in TensorSpec(base.shape, base.dtype.name).parts():
        mean = np.zeros(last - first, np.float64)
        for update in updates:
            mean += np.multiply(read_part(update, name, first, last), update.weight, dtype=np.float64)
        mean /= total
        if base.dtype.kind == "f":
            mean += flat_base[first:last]
        else:
            np.rint(mean, out=mean)
        flat[first:last] = mean
    return merged
