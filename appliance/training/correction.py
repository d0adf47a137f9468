"""What an aggregator, or ``fedprox_mu``, adds to a node's gradients.

FedProx, SCAFFOLD and consensus ADMM all add ``offset + pull * (w - z)`` to the gradient of a tensor ``w`` that began
the round as ``z``. They differ in where the offset comes from, and in what the node keeps for its next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from appliance.training.arguments import TrainingArguments
from appliance.training.errors import ArgumentInvalidError

Tensors = dict[str, torch.Tensor]


class Correction:
    """A pull towards the parameters that were received.

    Source: Li et al., Federated Optimization in Heterogeneous Networks (FedProx), MLSys 2020.

    Args:
        pull: FedProx's mu, or ADMM's rho.
    """

    def __init__(self, pull: float) -> None:
        self._pull = pull
        self._trained: dict[str, torch.nn.Parameter] = {}
        self._names: dict[int, str] = {}
        self._received: Tensors = {}
        self._offsets: Tensors = {}

    def begin(self, trained: Mapping[str, torch.nn.Parameter], sent: Tensors, kept: Tensors) -> None:
        """Begin a round.

        Args:
            trained: The model's trainable tensors by name, as they were received.
            sent: What the aggregator sent with them; empty before the first round.
            kept: What ``end`` returned at this node's last round; empty before the first.
        """
        self._trained = dict(trained)
        self._names = {id(tensor): name for name, tensor in trained.items()}
        self._received = {name: tensor.detach().clone() for name, tensor in trained.items()}
        self._offsets = self._offsets_of(sent, kept)

    def attach(self, optimizer: Any) -> None:
        """Correct gradients at each step of an optimizer, whoever makes it take the step.

        Raises:
            ArgumentInvalidError: The correction does not fit this kind of optimizer.
        """
        optimizer.register_step_pre_hook(self._before_step)

    def end(self) -> tuple[Tensors, float | None]:
        """End the training: what the node shall keep, and the sum of the learning rates, where it matters."""
        return {}, None

    def turn_into_returned(self) -> None:
        """Make the trained model the one that the node shall return."""

    def _offsets_of(self, sent: Tensors, kept: Tensors) -> Tensors:  # noqa: ARG002 - for those that have some
        return {}

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for tensor in group["params"]:
                    name = self._names.get(id(tensor))
                    if name is None or tensor.grad is None:
                        continue
                    if name in self._offsets:
                        tensor.grad.add_(self._offsets[name])
                    if self._pull:
                        tensor.grad.add_(tensor - self._received[name], alpha=self._pull)


class ScaffoldCorrection(Correction):
    """Adds ``c - c_i``, and forms the next ``c_i`` by option 2.

    Source: Karimireddy et al., SCAFFOLD, ICML 2020, Algorithm 1, equation 4.
    """

    def begin(self, trained: Mapping[str, torch.nn.Parameter], sent: Tensors, kept: Tensors) -> None:
        """See ``Correction``."""
        super().begin(trained, sent, kept)
        self._learning_rates = dict.fromkeys(trained, 0.0)

    def attach(self, optimizer: Any) -> None:
        """See ``Correction``."""
        settings = getattr(optimizer, "defaults", {})
        if not isinstance(optimizer, torch.optim.SGD) or settings.get("momentum"):
            # Not what it is called: the name may be the plan's own word.
            raise ArgumentInvalidError("Scaffold works with torch.optim.SGD without momentum; the plan has another.")
        super().attach(optimizer)

    def end(self) -> tuple[Tensors, float | None]:
        """See ``Correction``: kept is ``c_i``."""
        rates = set(self._learning_rates.values())
        if len(rates) != 1:
            raise ArgumentInvalidError(
                "Scaffold needs one learning rate for all tensors; the plan's optimizer has more."
            )
        kept = {
            name: (self._received[name] - tensor.detach()) / self._learning_rates[name] - self._offsets.get(name, 0.0)
            for name, tensor in self._trained.items()
        }
        return kept, rates.pop()

    def _offsets_of(self, sent: Tensors, kept: Tensors) -> Tensors:
        return {
            name: sent.get(name, torch.zeros_like(tensor)) - kept.get(name, torch.zeros_like(tensor))
            for name, tensor in self._received.items()
            if name in sent or name in kept
        }

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        super()._before_step(optimizer)
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                if name := self._names.get(id(tensor)):
                    self._learning_rates[name] += float(group["lr"])


class AdmmCorrection(Correction):
    """Adds ``rho * (w - z + u)``; returns ``w + u`` and keeps it, from which the next ``u`` follows.

    Source: Boyd et al., Distributed Optimization and Statistical Learning via ADMM, 2011, section 7.1.
    """

    def __init__(self, pull: float, rho: float) -> None:
        super().__init__(pull + rho)
        self._rho = rho

    def end(self) -> tuple[Tensors, float | None]:
        """See ``Correction``: kept is ``w + u``."""
        return {
            name: tensor.detach() + self._offsets.get(name, 0.0) / self._rho for name, tensor in self._trained.items()
        }, None

    def turn_into_returned(self) -> None:
        """See ``Correction``."""
        with torch.no_grad():
            for name, offset in self._offsets.items():
                self._trained[name].add_(offset, alpha=1 / self._rho)

    def _offsets_of(self, sent: Tensors, kept: Tensors) -> Tensors:  # noqa: ARG002 - it sends nothing
        return {name: self._rho * (kept[name] - tensor) for name, tensor in self._received.items() if name in kept}


def correction_for(arguments: TrainingArguments, aggregator_args: Mapping[str, Any]) -> Correction | None:
    """What the training arguments and the aggregator ask for; None: plain gradients.

    Raises:
        ArgumentInvalidError: The aggregator asks for something else than this release knows.
    """
    pull = arguments.fedprox_mu or 0.0
    match dict(aggregator_args):
        case {"correction": "scaffold"}:
            return ScaffoldCorrection(pull)
        case {"correction": "admm", "rho": float() | int() as rho} if rho > 0:
            return AdmmCorrection(pull, float(rho))
        case {"correction": _}:
            raise ArgumentInvalidError("The aggregator asks for a correction that this node's release does not know.")
    return Correction(pull) if pull else None
