"""Federated averaging."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.protocol.tensors import Array
from researcher_kit.aggregators.base import Aggregator, Tensors, Update, moved, sample_weights


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
        weights = sample_weights(updates)
        return {name: moved(updates, weights, name, parameters) for name in parameters}
