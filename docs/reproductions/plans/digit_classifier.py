"""Which digit is it? A small network for pictures of digits.

What leaves the node: the weights of two fully connected layers.
"""

from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan

CLASSES = 10


class DigitClassifier(TorchTrainingPlan):
    """Two layers with a rectifier in between, trained by plain stochastic gradient descent."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """``pixels`` inputs and ``hidden`` units."""
        return torch.nn.Sequential(
            torch.nn.Linear(model_args["pixels"], model_args["hidden"]),
            torch.nn.ReLU(),
            torch.nn.Linear(model_args["hidden"], CLASSES),
        )

    def training_data(self) -> DataManager:
        """A picture in each row, bytes from 0 to 255, and its digit."""
        pixels = [name for name in self.dataset.columns if name != "digit"]
        return DataManager(self.dataset.matrix(pixels) / 255, self.dataset.matrix(["digit"])[:, 0].astype(int))

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The cross entropy of one batch."""
        return torch.nn.functional.cross_entropy(self.model()(data), target)
