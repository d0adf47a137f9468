"""declearn's optimizers at a node: what the ``init_optimizer`` of a PyTorch or scikit-learn plan may return.

What such an optimizer remembers (momenta, counts of steps) stays at the node for the experiment's next round.

declearn takes seconds to import, so nothing here imports it but where a plan uses it.

Source: declearn, https://gitlab.inria.fr/magnet/declearn, ``declearn.optimizer.Optimizer``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch

from appliance.protocol.tensors import Array
from appliance.training.arguments import TrainingArguments
from appliance.training.correction import Correction, Tensors, correction_for
from appliance.training.declearn_memory import flattened, restored
from appliance.training.errors import ArgumentInvalidError

_SCAFFOLD = "scaffold-client"
_OUTLINE = "outline"  # of what is remembered, as the bytes of a JSON text


def is_declearn(made: Any) -> bool:
    """Whether this is one of declearn's optimizers; asked without declearn."""
    return any(kind.__module__.startswith("declearn.optimizer") for kind in type(made).__mro__)


class DeclearnSteps:
    """One of declearn's optimizers, with what the engine asks of PyTorch's.

    Args:
        optimizer: A ``declearn.optimizer.Optimizer``: learning rate, weight decay, regularizers and modules.
        trained: The tensors that it changes, by name.
        plan: What else it depends on: the plan's text, the model arguments.
        kept: What ``memory`` returned at this node's last round; empty where there is none.

    Attributes:
        is_new: Whether it begins without a memory; None where it remembers nothing over rounds. A memory is of the
            same plan, tensors, modules and regularizers, or it is none; rates may change.
    """

    def __init__(
        self, optimizer: Any, trained: Mapping[str, torch.nn.Parameter], *, plan: object, kept: Mapping[str, Array]
    ) -> None:
        self.optimizer = optimizer
        self._trained = dict(trained)
        self._vector = import_module("declearn.model.torch").TorchVector
        self._hooks: list[Callable[[Any], None]] = []
        config = optimizer.get_config()
        rates = [config.pop(name) for name in ("lrate", "w_decay")]
        shapes = {name: tuple(tensor.shape) for name, tensor in trained.items()}
        self._of = hashlib.sha256(json.dumps([plan, config, shapes], sort_keys=True, default=repr).encode()).hexdigest()
        has_modules = any(module.name != _SCAFFOLD for module in optimizer.modules)
        remembers = has_modules or not all(isinstance(rate, int | float) for rate in rates)
        self.is_new = not self._recall(kept) if remembers else None
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

    def memory(self) -> dict[str, Array]:
        """What it is to remember in its next round, as tensors; Scaffold's part is kept with its correction."""
        if self.is_new is None:
            return {}
        tensors: dict[str, Array] = {}
        state = self.optimizer.get_state()
        state["modules"] = [(name, None if name == _SCAFFOLD else each) for name, each in state["modules"]]
        outline = json.dumps({"of": self._of, "state": flattened(state, tensors)})
        return {_OUTLINE: np.frombuffer(outline.encode(), np.uint8), **tensors}

    def _recall(self, kept: Mapping[str, Array]) -> bool:
        """Whether it has a memory."""
        try:
            outline = json.loads(np.asarray(kept[_OUTLINE], np.uint8).tobytes())
            if outline["of"] != self._of:
                return False
            state = restored(outline["state"], kept, self._like_trained)
            fresh = {module.name: module.get_state() for module in self.optimizer.modules}
            state["modules"] = [(name, fresh[name] if each is None else each) for name, each in state["modules"]]
            self.optimizer.set_state(state)
        except (AttributeError, KeyError, TypeError, ValueError):  # not ours, or of another release of declearn
            return False
        return True

    def _like_trained(self, arrays: Mapping[str, Array]) -> Any:
        return self._vector({name: torch.tensor(array).to(self._trained[name]) for name, array in arrays.items()})

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

    def follow(self, gradients: Mapping[str, Array]) -> None:
        """Make a step along gradients that were computed elsewhere."""
        for name, array in gradients.items():
            self._trained[name].grad = torch.tensor(array).to(self._trained[name])
        self.step()

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
                {
                    name: tensors[name].to(tensor) if name in tensors else torch.zeros_like(tensor)
                    for name, tensor in self._received.items()
                }
            )

        self._module.state = whole(kept)
        self._module.process_aux_var(message(state=whole(sent)))
        return {}

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        super()._before_step(optimizer)
        self._learning_rate += self._steps.optimizer.lrate


def correction_with(
    steps: DeclearnSteps, arguments: TrainingArguments, aggregator_args: Mapping[str, Any]
) -> Correction | None:
    """What the training arguments and the aggregator ask of a plan with declearn's optimizer; None: nothing.

    Raises:
        ArgumentInvalidError: The aggregator asks for Scaffold, or the optimizer has its module, and the other does not.
    """
    is_asked, has_module = aggregator_args.get("correction") == "scaffold", steps.scaffold is not None
    if is_asked is not has_module:
        missing = "ScaffoldClientModule among the optimizer's modules" if is_asked else "the aggregator Scaffold()"
        raise ArgumentInvalidError(f"Scaffold with declearn's optimizers needs {missing} as well.")
    pull = arguments.fedprox_mu or 0.0
    return DeclearnScaffold(pull, steps) if is_asked else correction_for(arguments, aggregator_args)
