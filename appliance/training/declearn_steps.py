"""declearn's optimizers at a node: what a plan's ``init_optimizer`` may return instead of PyTorch's.

declearn takes seconds to import, so nothing here imports it but where a plan uses it.

Source: declearn, https://gitlab.inria.fr/magnet/declearn, ``declearn.optimizer.Optimizer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from appliance.training.correction import Correction, Tensors
from appliance.training.errors import ArgumentInvalidError

_SCAFFOLD = "scaffold-client"


def is_declearn(made: Any) -> bool:
    """Whether this is one of declearn's optimizers; asked without declearn."""
    return any(kind.__module__.startswith("declearn.optimizer") for kind in type(made).__mro__)


class DeclearnSteps:
    """One of declearn's optimizers, with what the engine asks of PyTorch's.

    Args:
        optimizer: A ``declearn.optimizer.Optimizer``: learning rate, weight decay, regularizers and modules.
        trained: The tensors that it changes, by name.
    """

    def __init__(self, optimizer: Any, trained: Mapping[str, torch.nn.Parameter]) -> None:
        self.optimizer = optimizer
        self._trained = dict(trained)
        self._vector = import_module("declearn.model.torch").TorchVector
        self._hooks: list[Callable[[Any], None]] = []
        optimizer.start_round()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All tensors, with the learning rate of the next step."""
        return [{"params": list(self._trained.values()), "lr": self.optimizer.lrate}]

    @property
    def scaffold(self) -> Any:
        """The module that corrects gradients for Scaffold; None if there is none.

        Raises:
            ArgumentInvalidError: It is not the last, or the weights also shrink: what a step adds would then not be
                the corrected gradient.
        """
        modules = self.optimizer.modules
        found = next((module for module in modules if module.name == _SCAFFOLD), None)
        if found is not None and (found is not modules[-1] or self.optimizer.w_decay):
            raise ArgumentInvalidError("declearn's scaffold-client must be the last module, without w_decay.")
        return found

    def register_step_pre_hook(self, hook: Callable[[Any], None]) -> None:
        """Call ``hook`` before each step."""
        self._hooks.append(hook)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for tensor in self._trained.values():
            tensor.grad = None

    def get_weights(self, trainable: bool = True) -> Any:  # noqa: ARG002 - declearn's own signature
        """What declearn's regularizers pull at; copies, for they keep those of the round's first step."""
        return self._vector({name: self._trained[name].detach().clone() for name in self._moved})

    def step(self) -> None:
        """Change the tensors that have a gradient."""
        for hook in self._hooks:
            hook(self)
        gradients = {name: tensor.grad for name, tensor in self._trained.items() if tensor.grad is not None}
        self._moved = tuple(gradients)
        updates = self.optimizer.compute_updates_from_gradients(self, self._vector(gradients))
        with torch.no_grad():
            for name, update in updates.coefs.items():
                self._trained[name].add_(update)


class DeclearnScaffold(Correction):
    """Scaffold by declearn's own module, which keeps ``c_i`` and gets ``c`` in place of its auxiliary variables.

    Its own messages to the researcher, the change of each ``c_i``, are not needed: with option 2 their mean follows
    from the mean update and the learning rates, as ``Scaffold`` forms it. So nothing but the update leaves the node.

    Args:
        pull: FedProx's mu.
        steps: The plan's optimizer, whose ``scaffold`` is not None.
    """

    def __init__(self, pull: float, steps: DeclearnSteps) -> None:
        super().__init__(pull)
        self._steps, self._module, self._learning_rate = steps, steps.scaffold, 0.0

    def end(self) -> tuple[Tensors, float | None]:
        """See ``Correction``: kept is ``c_i``."""
        self._module.collect_aux_var()
        return dict(self._module.state.coefs), self._learning_rate

    def _offsets_of(self, sent: Tensors, kept: Tensors) -> Tensors:
        vector = import_module("declearn.model.torch").TorchVector
        message = import_module("declearn.optimizer.modules").ScaffoldAuxVar

        def whole(tensors: Tensors) -> Any:
            return vector(
                {name: tensors.get(name, torch.zeros_like(tensor)) for name, tensor in self._received.items()}
            )

        self._module.state = whole(kept)
        self._module.process_aux_var(message(state=whole(sent)))
        return {}

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        super()._before_step(optimizer)
        self._learning_rate += self._steps.optimizer.lrate


def scaffold_of(steps: DeclearnSteps, pull: float, aggregator_args: Mapping[str, Any]) -> DeclearnScaffold | None:
    """Scaffold's correction for a plan with declearn's optimizer; None where neither side speaks of it.

    Raises:
        ArgumentInvalidError: Only one side does.
    """
    is_asked, has_module = aggregator_args.get("correction") == "scaffold", steps.scaffold is not None
    if is_asked is not has_module:
        missing = "ScaffoldClientModule among the optimizer's modules" if is_asked else "the aggregator Scaffold()"
        raise ArgumentInvalidError(f"Scaffold with declearn's optimizers needs {missing} as well.")
    return DeclearnScaffold(pull, steps) if is_asked else None
