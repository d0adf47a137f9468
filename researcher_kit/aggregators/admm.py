"""Consensus by the alternating direction method of multipliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from appliance.protocol.tensors import Array
from researcher_kit.aggregators.base import Aggregator, Tensors, Update, moved, require_number


class ConsensusADMM(Aggregator):
    """The nodes' models are pulled towards one another by a price that each node keeps to itself.

    A node minimises its own loss plus ``rho / 2 * |w - z + u|²``, where ``z`` are the global parameters and ``u`` is
    its scaled dual variable, kept from round to round; it returns ``w + u``, of which the mean is the next ``z``. All
    nodes count alike. Plans must be of PyTorch.

    Args:
        rho: How strong the pull is, above 0.

    Raises:
        ExperimentArgumentError: ``rho`` is not above 0.

    Source: Boyd et al., Distributed Optimization and Statistical Learning via the Alternating Direction Method of
    Multipliers, Foundations and Trends in Machine Learning 3(1), 2011, section 7.1.

    Example:
        >>> import numpy as np
        >>> updates = [Update(str(v), 1, {"w": np.float32([v])}) for v in (1, 3)]
        >>> ConsensusADMM(rho=0.1).aggregate(updates, {"w": np.float32([10])})
        {'w': array([12.], dtype=float32)}
    """

    def __init__(self, rho: float = 0.1) -> None:
        self.rho = require_number("rho", rho, above=0)

    def __repr__(self) -> str:
        return f"ConsensusADMM(rho={self.rho:g})"

    def create_aggregator_args(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return {"correction": "admm", "rho": self.rho}

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        equally = [1] * len(updates)
        return {name: moved(updates, equally, name, parameters) for name in parameters}

    def state(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return {"rho": self.rho}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """See ``Aggregator``."""
        super().restore(state, tensors)
        self.rho = state["rho"]  # type: ignore[assignment]  # as ``state`` wrote it
