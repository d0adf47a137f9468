"""The benchmark's plan: fully connected layers and plain gradient descent, as the bare loop has them."""

import itertools
from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan


class BenchPlan(TorchTrainingPlan):
    """Classifies the last column by all others."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """Widths of the layers in ``layers``, input first."""
        widths = model_args["layers"]
        modules: list[torch.nn.Module] = []
        for before, after in itertools.pairwise(widths):
            modules += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        return torch.nn.Sequential(*modules[:-1])

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args["lr"])

    def training_data(self) -> DataManager:
        """All columns but the last; the last is the class."""
        names = list(self.dataset.columns)
        inputs = torch.from_numpy(self.dataset.matrix(names[:-1]))
        return DataManager(inputs, torch.from_numpy(self.dataset.matrix(names[-1:])).long().flatten())

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of one batch."""
        return torch.nn.functional.cross_entropy(self.model()(data), target)
