"""Training plans for PyTorch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import default_collate

from appliance.protocol.tensors import TensorFile
from appliance.training.data_manager import DataManager
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
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self._received: list[torch.Tensor] = []

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        """Build the optimizer for ``self.model()`` and return it: SGD, unless a plan says otherwise."""
        try:
            return torch.optim.SGD(self.model().parameters(), **optimizer_args)
        except (TypeError, ValueError):
            names = ", ".join(sorted(optimizer_args)) or "nothing"
            raise ArgumentInvalidError(f"torch.optim.SGD does not take optimizer_args as given ({names}).") from None

    @abstractmethod
    def training_step(self, data: Any, target: Any) -> Any:
        """Compute the loss of one batch and return it."""

    def get_parameters(self, *, copy: bool = True) -> Arrays:
        """The state's tensors by name; without ``share_persistent_buffers`` only what is trained."""
        return {name: _array(tensor, copy=copy) for name, tensor in self._shared().items()}

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Give the model these tensors.

        Raises:
            ParametersInvalidError: They are not exactly the model's: other names or shapes.
        """
        shared = self._shared()
        require_like(parameters, {name: tuple(tensor.shape) for name, tensor in shared.items()})
        with torch.no_grad():
            for name, tensor in shared.items():
                _fill(tensor, parameters, name)

    def _shared(self) -> dict[str, torch.Tensor]:
        """The live tensors that travel."""
        model = self.model()
        state = model.state_dict()
        if not self._arguments.share_persistent_buffers:
            trained = {name for name, _ in model.named_parameters()}
            state = {name: value for name, value in state.items() if name in trained}
        return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

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
        self.device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
        return model.to(self.device)

    def _read_samples(self, manager: DataManager) -> Samples:
        if isinstance(manager.dataset, TorchDataset):
            return _DatasetSamples(manager.dataset, self.device)
        target = None if manager.target is None else _tensor(manager.target)
        return _TensorSamples(_tensor(manager.dataset), target, self.device)

    def _start_training(self) -> None:
        self._optimizer = self.init_optimizer(self.optimizer_args())
        if not hasattr(self._optimizer, "step") or not hasattr(self._optimizer, "zero_grad"):
            raise PlanInvalidError("init_optimizer must return an optimizer with step() and zero_grad().")
        self.model().train()
        if self._arguments.fedprox_mu:
            self._received = [tensor.detach().clone() for tensor in self.model().parameters()]

    def _end_training(self) -> None:
        self.model().zero_grad(set_to_none=True)  # as large as the model, and the update is yet to be written

    def _update(self, data: Any, target: Any, *, wants_loss: bool) -> float:
        self._optimizer.zero_grad()
        loss = self.training_step(data, target)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise TrainingFailedError("training_step must return the loss: one number, with its gradient.")
        (loss + self._proximal_term() if self._arguments.fedprox_mu else loss).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach()) if wants_loss else 0.0

    def _proximal_term(self) -> torch.Tensor:
        """FedProx: ``mu/2 · |w - w_global|²`` (Li et al., Federated Optimization in Heterogeneous Networks, 2020)."""
        pairs = zip(self.model().parameters(), self._received, strict=True)
        distance = torch.stack([(now - received).square().sum() for now, received in pairs]).sum()
        return 0.5 * (self._arguments.fedprox_mu or 0.0) * distance

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
