"""Adaptive server optimizers: the mean update is taken for a gradient.

Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from appliance.protocol.tensors import Array
from researcher_kit.aggregators.base import (
    Aggregator,
    Tensors,
    Update,
    move_buffers,
    parts,
    read_part,
    require_number,
    sample_weights,
    weighted_mean,
)

Float64 = NDArray[np.float64]


class _FedOpt(Aggregator):
    """What FedAdam, FedYogi and FedAdagrad have in common.

    The mean update is weighted by numbers of samples. Buffers, such as batch norm's statistics, and integers are
    averaged as ``FedAverage`` does: a variance must not be moved by momentum. Two tensors for each of the model's
    are kept between rounds.

    Args:
        server_lr: The step, above 0.
        beta_1: How much of the last rounds' direction is kept, from 0 and below 1.
        beta_2: How much of the last rounds' squares is kept, from 0 and below 1.
        tau: How adaptive it is, above 0; the larger, the closer to plain averaging.

    Raises:
        ExperimentArgumentError: One of them is out of its range.
    """

    def __init__(self, server_lr: float = 0.01, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 0.001) -> None:
        self.server_lr = require_number("server_lr", server_lr, above=0)
        self.beta_1 = require_number("beta_1", beta_1, above=0, below=1, or_equal=True)
        self.beta_2 = require_number("beta_2", beta_2, above=0, below=1, or_equal=True)
        self.tau = require_number("tau", tau, above=0)
        self._direction: dict[str, Array] = {}
        self._squares: dict[str, Array] = {}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value:g}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({given})"

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        weights = sample_weights(updates)
        result, trained = move_buffers(self.setting, updates, weights, parameters)
        directions: dict[str, Array] = {}
        squares: dict[str, Array] = {}
        for name, spec in trained.items():
            result[name], directions[name], squares[name] = (np.empty(spec.shape, np.float32) for _ in range(3))
            for first, last in parts(spec):
                change = weighted_mean(updates, weights, name, first, last)
                direction = self._kept(self._direction, name, first, last, 0.0)
                direction += (1 - self.beta_1) * (change - direction)
                square = self._square(self._kept(self._squares, name, first, last, self.tau**2), change * change)
                step = self.server_lr * direction / (np.sqrt(square) + self.tau)
                result[name].reshape(-1)[first:last] = read_part(parameters, name, first, last) + step
                directions[name].reshape(-1)[first:last] = direction
                squares[name].reshape(-1)[first:last] = square
        self._direction, self._squares = directions, squares
        return result

    @abstractmethod
    def _square(self, before: Float64, change: Float64) -> Float64:
        """The second moment, from the one before and the squared mean update."""

    @staticmethod
    def _kept(tensors: Mapping[str, Array], name: str, first: int, last: int, start: float) -> Float64:
        if name not in tensors:
            return np.full(last - first, start)
        return read_part(tensors, name, first, last).astype(np.float64)

    def _arguments(self) -> dict[str, float]:
        return {"server_lr": self.server_lr, "beta_1": self.beta_1, "beta_2": self.beta_2, "tau": self.tau}

    def state(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return dict(self._arguments())

    def state_tensors(self) -> dict[str, Array]:
        """See ``Aggregator``."""
        kept = {"direction": self._direction, "squares": self._squares}
        return {f"{kind}/{name}": array for kind, tensors in kept.items() for name, array in tensors.items()}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """See ``Aggregator``."""
        for name in self._arguments():
            setattr(self, name, state[name])
        for kind, kept in (("direction/", self._direction), ("squares/", self._squares)):
            kept.clear()
            kept |= {name.removeprefix(kind): tensors[name] for name in tensors if name.startswith(kind)}


class FedAdam(_FedOpt):
    """Adam at the researcher, with the nodes' mean update as its gradient.

    Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021.

    Example:
        >>> import numpy as np
        >>> update = Update("north", 1, {"w": np.float32([2.0])})
        >>> FedAdam(server_lr=0.1).aggregate([update], {"w": np.float32([1.0])})["w"].round(3)
        array([1.1], dtype=float32)
    """

    def _square(self, before: Float64, change: Float64) -> Float64:
        return before + (1 - self.beta_2) * (change - before)


class FedYogi(_FedOpt):
    """Yogi at the researcher: like FedAdam, with a second moment that grows and shrinks slowly.

    Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021.

    Example:
        >>> FedYogi(server_lr=0.05)
        FedYogi(server_lr=0.05, beta_1=0.9, beta_2=0.99, tau=0.001)
    """

    def _square(self, before: Float64, change: Float64) -> Float64:
        return before - (1 - self.beta_2) * change * np.sign(before - change)


class FedAdagrad(_FedOpt):
    """Adagrad at the researcher: steps shrink with all that a parameter has moved so far.

    Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021.

    Example:
        >>> FedAdagrad(server_lr=0.1)
        FedAdagrad(server_lr=0.1, beta_1=0, beta_2=0, tau=0.001)
    """

    def __init__(self, server_lr: float = 0.01, tau: float = 0.001, beta_1: float = 0.0) -> None:
        super().__init__(server_lr, beta_1, 0.0, tau)

    def _square(self, before: Float64, change: Float64) -> Float64:
        return before + change
