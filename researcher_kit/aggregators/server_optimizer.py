"""An optimizer of declearn's at the researcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from pydantic import JsonValue

from appliance.protocol.tensors import Array
from appliance.training.declearn_memory import flattened, restored
from researcher_kit.aggregators.base import (
    Aggregator,
    Tensors,
    Update,
    move_buffers,
    parts,
    sample_weights,
    weighted_mean,
)
from researcher_kit.errors import AggregationError, ExperimentArgumentError


class ServerOptimizer(Aggregator):
    """The mean update, weighted by samples, as the gradient of an optimizer of declearn's: Fed-BioMed's agg_optimizer.

    Buffers and integers are averaged as ``FedAverage`` does. Unlike with the other aggregators, memory holds the model
    several times: declearn works on whole vectors.

    Args:
        optimizer: A ``declearn.optimizer.Optimizer``; with a learning rate of 1 and nothing else, this is
            ``FedAverage``. It needs the package ``declearn`` (the extra of that name).

    Raises:
        ExperimentArgumentError: It is no such optimizer, or it asks nodes for more than their updates.
        AggregationError: The nodes trained on no sample at all.

    Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 1; declearn.

    Example:
        >>> import numpy as np
        >>> from declearn.optimizer import Optimizer
        >>> aggregator = ServerOptimizer(Optimizer(lrate=0.5, modules=["momentum"]))
        >>> updates = [Update("north", 1, {"w": np.float32([4.0])}), Update("south", 3, {"w": np.float32([0.0])})]
        >>> aggregator.aggregate(updates, {"w": np.float32([10.0])})
        {'w': array([10.5], dtype=float32)}
    """

    def __init__(self, optimizer: Any = None) -> None:
        self._optimizer = optimizer  # None until a breakpoint's is restored
        if optimizer is None:
            return
        if not hasattr(optimizer, "compute_updates_from_gradients"):
            raise ExperimentArgumentError("ServerOptimizer needs a declearn.optimizer.Optimizer.")
        if any(module.name == "scaffold-server" for module in optimizer.modules):
            raise ExperimentArgumentError(
                "Scaffold's researcher's side is an aggregator of its own.",
                remedy="Use aggregator=Scaffold(server_lr), and leave ScaffoldServerModule out.",
            )

    def __repr__(self) -> str:
        config = self._optimizer.get_config() if self._optimizer is not None else {}
        return f"ServerOptimizer({', '.join(f'{name}={value!r}' for name, value in config.items() if value)})"

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        if self._optimizer is None:
            raise AggregationError("ServerOptimizer was given no optimizer.")
        weights = sample_weights(updates)
        result, trained = move_buffers(self.setting, updates, weights, parameters)
        gradients: dict[str, Array] = {}
        for name, spec in trained.items():
            gradients[name] = np.empty(spec.shape, np.float32)
            for first, last in parts(spec):
                gradients[name].reshape(-1)[first:last] = -weighted_mean(updates, weights, name, first, last)
        vector = _declearn("model.sklearn").NumpyVector
        model = _Weights(vector({name: parameters[name] for name in gradients}))
        self._optimizer.start_round()
        changes = self._optimizer.compute_updates_from_gradients(model, vector(gradients)).coefs
        return result | {name: parameters[name] + np.asarray(changes[name], np.float32) for name in gradients}

    def state(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        if self._optimizer is None:
            return {}
        parts_of = {"config": self._optimizer.get_config(), "memory": self._optimizer.get_state()}
        return {name: flattened(part, {}) for name, part in parts_of.items()}

    def state_tensors(self) -> Mapping[str, Array]:
        """See ``Aggregator``."""
        tensors: dict[str, Array] = {}
        if self._optimizer is not None:
            flattened(self._optimizer.get_state(), tensors)
        return tensors

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """See ``Aggregator``."""
        if state:
            self._optimizer = _declearn("optimizer").Optimizer.from_config(state["config"])
            vector = _declearn("model.sklearn").NumpyVector
            self._optimizer.set_state(restored(state["memory"], tensors, vector))


def _declearn(module: str) -> Any:
    """A module of declearn's, imported where it is used: it takes seconds.

    Raises:
        ExperimentArgumentError: It is not installed where this runs, which may be at a federator.
    """
    try:
        return import_module(f"declearn.{module}")
    except ImportError:
        raise ExperimentArgumentError(
            "ServerOptimizer needs the package declearn, which is not installed where the experiment runs.",
            remedy="Install 'fedward[declearn]'; at a federator, its operator loads the image of this release.",
        ) from None


class _Weights:
    """What declearn's regularizers ask a model for."""

    def __init__(self, vector: Any) -> None:
        self._vector = vector

    def get_weights(self, trainable: bool = True) -> Any:  # noqa: ARG002 - declearn's own signature
        return self._vector
