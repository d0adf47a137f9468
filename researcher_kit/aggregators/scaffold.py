"""SCAFFOLD: each node's drift is measured and taken out of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import JsonValue

from appliance.protocol.tensors import Array
from researcher_kit.aggregators.base import (
    Aggregator,
    Setting,
    Tensors,
    Update,
    move_buffers,
    parts,
    read_part,
    require_number,
    weighted_mean,
)
from researcher_kit.errors import AggregationError, ExperimentArgumentError


class Scaffold(Aggregator):
    """Stochastic controlled averaging, with option 2 for the control variates.

    A node adds ``c - c_i`` to each gradient, and keeps its own variate ``c_i`` from round to round. The researcher's
    variate ``c`` follows from the mean update alone, so nothing but the update leaves a node. All nodes of a round
    count alike, as in the source; one that is not in a round keeps its variate.

    Plans must be of PyTorch, and train with ``torch.optim.SGD`` without momentum: the variates are formed from
    ``num_updates`` steps of a known length, which ``epochs`` would not give to nodes of different size.

    Args:
        server_lr: How far the parameters follow the mean update, above 0.

    Raises:
        ExperimentArgumentError: ``server_lr`` is not above 0; or, when the experiment runs, ``num_updates`` is not
            set, or ``epochs`` is.
        AggregationError: The nodes' steps differed in length.

    Source: Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML 2020,
    Algorithm 1.

    Example:
        >>> import numpy as np
        >>> from appliance.training import TrainingArguments
        >>> scaffold = Scaffold()
        >>> scaffold.prepare(Setting(nodes=("north",), training_args=TrainingArguments(num_updates=2)))
        >>> update = Update("north", 1, {"w": np.float32([-1.0])}, learning_rates=0.5)
        >>> scaffold.aggregate([update], {"w": np.float32([3.0])})
        {'w': array([2.], dtype=float32)}
        >>> scaffold.node_tensors()
        {'w': array([2.], dtype=float32)}
    """

    def __init__(self, server_lr: float = 1.0) -> None:
        self.server_lr = require_number("server_lr", server_lr, above=0)
        self._variate: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"Scaffold(server_lr={self.server_lr:g})"

    def prepare(self, setting: Setting) -> None:
        """See ``Aggregator``."""
        arguments = setting.training_args
        if arguments.epochs is not None or arguments.num_updates is None:
            raise ExperimentArgumentError(
                "Scaffold counts updates of the model, and not epochs.",
                remedy="Set the training argument 'num_updates', and leave out 'epochs'.",
            )
        super().prepare(setting)

    def create_aggregator_args(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return {"correction": "scaffold"}

    def node_tensors(self) -> Mapping[str, Array]:
        """The researcher's control variate ``c``; empty before the first round, where it is nought."""
        return self._variate

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        steps = _common_steps(updates)
        share = len(updates) / max(len(self.setting.nodes), len(updates))
        equally = [1] * len(updates)
        result, trained = move_buffers(self.setting, updates, equally, parameters)
        variate: dict[str, Array] = {}
        for name, spec in trained.items():
            result[name], variate[name] = np.empty(spec.shape, spec.dtype), np.empty(spec.shape, np.float32)
            for first, last in parts(spec):
                change = weighted_mean(updates, equally, name, first, last)
                base = read_part(parameters, name, first, last)
                result[name].reshape(-1)[first:last] = base + self.server_lr * change
                # The mean over the round's nodes of c_i+ - c_i = -c - change / steps.
                before = read_part(self._variate, name, first, last) if name in self._variate else 0.0
                variate[name].reshape(-1)[first:last] = before - share * (before + change / steps)
        self._variate = variate
        return result

    def state(self) -> dict[str, JsonValue]:
        """See ``Aggregator``."""
        return {"server_lr": self.server_lr}

    def state_tensors(self) -> Mapping[str, Array]:
        """See ``Aggregator``."""
        return self._variate

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """See ``Aggregator``."""
        self.server_lr = state["server_lr"]  # type: ignore[assignment]  # as ``state`` wrote it
        self._variate = dict(tensors)


def _common_steps(updates: Sequence[Update]) -> float:
    """The sum of the learning rates over a round's updates of the model: K times eta in the source."""
    steps = {update.node_id: update.learning_rates for update in updates}
    known = [step for step in steps.values() if step]
    if len(known) < len(steps) or not np.allclose(known, known[0], rtol=1e-4):
        said = ", ".join(f"{node}: {step}" for node, step in steps.items())
        raise AggregationError(
            f"Scaffold needs steps of one length at all nodes; the learning rates summed up to {said}.",
            remedy="Train with torch.optim.SGD, one learning rate, and the same num_updates everywhere.",
        )
    return float(known[0])
