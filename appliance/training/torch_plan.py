"""Training plans for PyTorch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import default_collate

from appliance.protocol.tensors import TensorFile
from appliance.training.correction import Correction, correction_for
from appliance.training.data_manager import DataManager
from appliance.training.declearn_steps import DeclearnSteps, correction_with, is_declearn
from appliance.training.errors import ArgumentInvalidError, PlanInvalidError, TrainingFailedError
from appliance.training.plan import Array, Arrays, Samples, TrainingPlan, require_like
from appliance.training.repeated_draws import RepeatedDraws
from appliance.training.split import Indices


class TorchTrainingPlan(TrainingPlan):
    """A plan whose model is a ``torch.nn.Module``.

    Example:
        A logistic regression::

            class Logistic(TorchTrainingPlan):
                def init_model(self, model_args):
                    return torch.nn.Linear(model_args["features"], 1)

                def init_optimizer(self, optimizer_args):
                    return torch.optim.SGD(self.model().parameters(), lr=optimizer_args["lr"])

                def init_dependencies(self):
                    return ["import torch"]

                def training_data(self):
                    return DataManager(self.dataset.matrix(["age", "bmi"]), self.dataset.matrix(["label"]))

                def training_step(self, data, target):
                    return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)

        Two optimizers that take turns need ``training_update`` instead of ``training_step``::

            class Adversarial(TorchTrainingPlan):
                ...

                def init_optimizer(self, optimizer_args):
                    parts = (self.model().generator, self.model().critic)
                    return [torch.optim.Adam(part.parameters(), lr=optimizer_args["lr"]) for part in parts]

                def training_update(self, data, target):
                    generator_optimizer, critic_optimizer = self.optimizer()
                    ...
                    return loss
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Do without ``training_step`` where ``training_update`` is the plan's own."""
        super().__init_subclass__(**options)
        if "training_update" in vars(cls) and getattr(cls.training_step, "__isabstractmethod__", False):
            cls.training_step = TorchTrainingPlan._no_step  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self._optimizers: list[Any] = []
        self._schedulers: list[Any] = []
        self._scaler = torch.amp.GradScaler("cpu", enabled=False)
        self._correction: Correction | None = None
        self._kept: dict[str, torch.Tensor] = {}
        self._remembered: Arrays = {}
        self._sent: dict[str, torch.Tensor] = {}

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        """Build the optimizer for ``self.model()``, or a list of several, and return it.

        SGD, unless a plan says otherwise; one of declearn's will do as well. It is made anew in each round, and of
        its steps only declearn's remember the last round's; ``self.round`` is the round's number, for a rate that
        falls over rounds.
        """
        try:
            return torch.optim.SGD(self.model().parameters(), **optimizer_args)
        except (TypeError, ValueError):
            raise ArgumentInvalidError("torch.optim.SGD does not take optimizer_args as given.") from None

    def init_scheduler(self) -> Any:
        """Build a scheduler of ``self.optimizer()``'s learning rate, or a list; each steps after each update."""
        return None

    @abstractmethod
    def training_step(self, data: Any, target: Any) -> Any:
        """Compute the loss of one batch and return it."""

    def _no_step(self, data: Any, target: Any) -> Any:  # noqa: ARG002 - a hook's own
        raise PlanInvalidError("The plan has no training_step.")

    def training_update(self, data: Any, target: Any) -> Any:
        """Update the model once, by one batch, and return the loss.

        A plan that trains in a way of its own overrides this, and steps ``self.optimizer()`` itself. As it is, all
        optimizers step along the gradient of ``training_step``, which is computed of ``micro_batch_size`` samples at a
        time and, with ``mixed_precision``, in half of the digits.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        total: Any = 0
        for part_data, part_target, share in self._micro_batches(data, target):
            with torch.autocast(self.device.type, dtype=self._half(), enabled=self._arguments.mixed_precision):
                loss = self.training_step(part_data, part_target)
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
                raise TrainingFailedError("training_step must return the loss: one number, with its gradient.")
            loss = loss * share if share != 1 else loss
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        for optimizer in self._optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()
        return total

    def _model_tensors(self, *, copy: bool = True) -> Arrays:
        """The state's tensors by name; without ``share_persistent_buffers`` only what is trained."""
        return {name: _array(tensor, copy=copy) for name, tensor in self._shared().items()}

    def _fill_model(self, parameters: Mapping[str, Array]) -> None:
        shared = self._shared()
        require_like(parameters, {name: tuple(tensor.shape) for name, tensor in shared.items()})
        with torch.no_grad():
            for name, tensor in shared.items():
                _fill(tensor, parameters, name)

    def local_parameters(self) -> Sequence[str]:
        """Names of tensors that stay at each node, or patterns such as ``"*.norm*"``: none, unless a plan says so.

        A node goes on with its own ones from round to round, as FedBN has it for batch norm.

        Source: Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021.
        """
        return ()

    def trained_names(self) -> frozenset[str]:
        """See ``TrainingPlan``."""
        return frozenset(self._trained())

    def frozen_names(self) -> frozenset[str]:
        """See ``TrainingPlan``: parameters for which ``init_model`` set ``requires_grad`` to False."""
        shared = self._shared()
        named = self.model().named_parameters()
        return frozenset(name for name, tensor in named if name in shared and not tensor.requires_grad)

    def set_kept_tensors(self, kept: Mapping[str, Array], sent: Mapping[str, Array]) -> None:
        """See ``TrainingPlan``."""
        state = self._state()
        self._sent = {name: self._like(array) for name, array in sent.items()}
        self._kept, self._remembered = {}, {}
        for name, array in kept.items():
            kind, _, tensor = name.partition("/")
            if kind == "local" and tensor in state:
                with torch.no_grad():
                    state[tensor].copy_(torch.from_numpy(np.array(array)))
            elif kind == "correction":
                self._kept[tensor] = self._like(array)
            elif kind == "optimizer":
                self._remembered[tensor] = array

    def get_returned_parameters(self) -> Arrays:
        """See ``TrainingPlan``."""
        if self._correction is not None:
            self._correction.turn_into_returned()
        return super().get_returned_parameters()

    def get_kept_tensors(self) -> Arrays:
        """See ``TrainingPlan``."""
        shared = self._shared()
        local = {f"local/{name}": _array(value) for name, value in self._state().items() if name not in shared}
        correction = {f"correction/{name}": _array(value) for name, value in self._kept.items()}
        memory = self._optimizer.memory() if isinstance(self._optimizer, DeclearnSteps) else {}
        return local | correction | {f"optimizer/{name}": array for name, array in memory.items()}

    def _shared(self) -> dict[str, torch.Tensor]:
        """The live tensors that travel."""
        state = self._state()
        if not self._arguments.share_persistent_buffers:
            trained = {name for name, _ in self.model().named_parameters()}
            state = {name: value for name, value in state.items() if name in trained}
        stay = self.local_parameters()
        for each in stay:
            if not any(fnmatchcase(name, each) for name in self._state()):
                # What it was to keep at the hospital would leave it, unnoticed.
                raise PlanInvalidError(f"local_parameters() names '{each}', and no tensor of the model is called so.")
        return {name: value for name, value in state.items() if not any(fnmatchcase(name, each) for each in stay)}

    def _state(self) -> dict[str, torch.Tensor]:
        state = self.model().state_dict()
        return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """Those of the tensors that travel which an optimizer may change."""
        shared = self._shared()
        named = self.model().named_parameters()
        return {name: tensor for name, tensor in named if name in shared and tensor.requires_grad}

    def _like(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self.device)

    def _initial_model(self, *, are_parameters_to_follow: bool) -> Any:
        model = self._quickly_filled_model() if are_parameters_to_follow else None
        if model is not None:
            return model
        with self._reproducible():
            return self.init_model(self.model_args())

    def _quickly_filled_model(self) -> Any:
        """The model before its parameters are set; None where one that is not set next would need true draws."""
        draws = RepeatedDraws()
        try:
            with draws:
                model = self.init_model(self.model_args())
        except Exception:
            if not draws.repeated:
                raise
            return None  # it may be the repetition that it does not bear
        return model if _holds_all(model, draws.repeated) else None

    def _adopt(self, model: Any, *, use_gpu: bool) -> torch.nn.Module:
        if not isinstance(model, torch.nn.Module):
            raise PlanInvalidError("init_model must return a torch.nn.Module.")
        self._correction = None
        self.device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
        return model.to(self.device)

    def _read_samples(self, manager: DataManager) -> Samples:
        if isinstance(manager.dataset, TorchDataset):
            return _DatasetSamples(manager.dataset, self.device)
        target = None if manager.target is None else _tensor(manager.target)
        return _TensorSamples(_tensor(manager.dataset), target, self.device)

    def _start_training(self) -> None:
        self._optimizer = self.init_optimizer(self.optimizer_args())
        if self._optimizer is not None and is_declearn(self._optimizer):
            plan, kept = (self.text_sha256, self.model_args()), self._remembered
            self._optimizer = DeclearnSteps(self._optimizer, self._trained(), plan=plan, kept=kept)
        self._optimizers = _several(self._optimizer)
        can_step = [hasattr(one, "step") and hasattr(one, "zero_grad") for one in self._optimizers]
        if not can_step or not all(can_step):
            raise PlanInvalidError("init_optimizer must return an optimizer with step() and zero_grad(), or several.")
        self._schedulers = _several(self.init_scheduler())
        if not all(hasattr(one, "step") for one in self._schedulers):
            raise PlanInvalidError("init_scheduler must return a scheduler with step(), or several.")
        needs_scale = self._arguments.mixed_precision and self._half() is torch.float16
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=needs_scale)
        self.model().train()
        self._correction = self._new_correction()
        if self._correction is not None:
            self._correction.begin(self._trained(), self._sent, self._kept)
            for optimizer in self._optimizers:
                self._correction.attach(optimizer)

    def _new_correction(self) -> Correction | None:
        if isinstance(self._optimizer, DeclearnSteps):
            return correction_with(self._optimizer, self._arguments, self._aggregator_args)
        return correction_for(self._arguments, self._aggregator_args)

    def _is_optimizer_new(self) -> bool | None:
        return self._optimizer.is_new if isinstance(self._optimizer, DeclearnSteps) else None

    def _end_training(self) -> float | None:
        self.model().zero_grad(set_to_none=True)  # as large as the model, and the update is yet to be written
        if self._correction is None:
            return None
        self._kept, learning_rates = self._correction.end()
        self._sent = {}
        return learning_rates

    def _update(self, data: Any, target: Any, *, wants_loss: bool) -> float:
        loss = self.training_update(data, target)
        for scheduler in self._schedulers:
            scheduler.step()
        if not wants_loss:
            return 0.0
        try:
            return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        except (TypeError, ValueError, RuntimeError):
            raise TrainingFailedError("training_update must return the loss: one number.") from None

    def _micro_batches(self, data: Any, target: Any) -> Iterator[tuple[Any, Any, float]]:
        """A batch in pieces, each with its share of the samples."""
        size, count = self._arguments.micro_batch_size, _samples(data)
        if size is None or count is None or count <= size:
            yield data, target, 1.0
            return
        for first in range(0, count, size):
            piece = slice(first, min(first + size, count))
            yield _piece(data, piece), _piece(target, piece), (piece.stop - first) / count

    def _half(self) -> torch.dtype:
        """The short numbers of this device: bfloat16, or float16 on a GPU that does not know those."""
        is_old = self.device.type == "cuda" and not torch.cuda.is_bf16_supported()
        return torch.float16 if is_old else torch.bfloat16

    def _predict(self, data: Any, target: Any) -> tuple[Array, Array]:
        self.model().eval()
        with torch.no_grad():
            output = self.model()(data)
        if not isinstance(output, torch.Tensor) or not isinstance(target, torch.Tensor):
            raise TrainingFailedError("test_metric needs one tensor of outputs and targets; else write testing_step.")
        return _array(target), _array(output)

    def _test_step(self, data: Any, target: Any) -> Any:
        self.model().eval()
        with torch.no_grad():
            return self.testing_step(data, target)


class _TensorSamples:
    """Samples that lie in memory as tensors."""

    are_in_memory = True

    def __init__(self, data: torch.Tensor, target: torch.Tensor | None, device: torch.device) -> None:
        self._data = data.to(device)
        self._target = None if target is None else target.to(device)

    def take(self, indices: Indices) -> tuple[Any, Any]:
        chosen = torch.from_numpy(indices).to(self._data.device)
        return self._data[chosen], None if self._target is None else self._target[chosen]

    def place(self, data: Any, target: Any) -> tuple[Any, Any]:
        return data, target


class _DatasetSamples:
    """Samples that a map-style dataset reads one by one."""

    are_in_memory = False

    def __init__(self, dataset: TorchDataset[Any], device: torch.device) -> None:
        self._dataset = dataset
        self._device = device

    def take(self, indices: Indices) -> tuple[Any, Any]:
        batch = default_collate([self._dataset[int(index)] for index in indices])
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise PlanInvalidError("A dataset given to DataManager must yield pairs (data, target).")
        return batch[0], batch[1]

    def place(self, data: Any, target: Any) -> tuple[Any, Any]:
        return _moved(data, self._device), _moved(target, self._device)


def _several(made: Any) -> list[Any]:
    """What a hook made, as a list: of nothing, one, a list or a mapping of several."""
    if made is None:
        return []
    if isinstance(made, Mapping):
        return list(made.values())
    return list(made) if isinstance(made, list | tuple) else [made]


def _samples(batch: Any) -> int | None:
    """How many samples a batch has; None where that cannot be told."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((count for count in map(_samples, parts) if count is not None), None)


def _piece(batch: Any, piece: slice) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch[piece] if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {name: _piece(part, piece) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return [_piece(part, piece) for part in batch]
    return batch


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return [_moved(part, device) for part in batch]
    return batch


def _tensor(values: Any) -> torch.Tensor:
    """Any array as a tensor; float64 becomes float32, which is what models compute in."""
    if isinstance(values, torch.Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise PlanInvalidError("DataManager was given something other than numbers.")
    return torch.tensor(array.astype(np.float32) if array.dtype.kind == "f" else array)


def _holds_all(model: Any, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether each of these is a part of the model's state, which is what travels."""
    state = model.state_dict().values() if isinstance(model, torch.nn.Module) else ()
    places = {tensor.data_ptr() for tensor in state if isinstance(tensor, torch.Tensor)}
    return all(tensor.data_ptr() in places for tensor in tensors)


def _fill(tensor: torch.Tensor, parameters: Mapping[str, Array], name: str) -> None:
    """From a file part by part: a large tensor is never in memory twice."""
    if not isinstance(parameters, TensorFile) or not tensor.is_contiguous():
        tensor.copy_(torch.from_numpy(np.require(parameters[name], requirements=["C", "W"])))
        return
    flat = tensor.view(-1)
    for first, last in parameters.specs[name].parts():
        flat[first:last].copy_(torch.from_numpy(parameters.part(name, first, last)))


def _array(tensor: torch.Tensor, *, copy: bool = True) -> Array:
    """A numpy array; every float becomes float32."""
    array = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype).numpy()
    return np.array(array) if copy else np.asarray(array)
