"""The soak's plan: a classifier whose width decides whether its tensors travel in messages or by the network host."""

from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan


class SoakPlan(TorchTrainingPlan):
    """Two layers; the last column is the class."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """30 features in, 2 classes out."""
        width = model_args["width"]
        return torch.nn.Sequential(torch.nn.Linear(30, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))

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
