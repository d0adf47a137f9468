"""A small head on a frozen residual network, as transfer learning has it; the cells' 30 numbers are its image."""

import itertools

import torch

from appliance.training import DataManager, TorchTrainingPlan


class Block(torch.nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.way = torch.nn.Sequential(
            torch.nn.Conv2d(inputs, outputs, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = torch.nn.Conv2d(inputs, outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Of shape (n, inputs, height, width)."""
        return torch.relu(self.way(image) + self.shortcut(image))


class Transfer(TorchTrainingPlan):
    """Eight blocks, which no round trains, and a linear layer."""

    def init_model(self, model_args):
        """See ``TrainingPlan``."""
        width = model_args["width"]
        widths = [1, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
        base = torch.nn.Sequential(*(Block(*pair) for pair in itertools.pairwise(widths)))
        pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        return torch.nn.Sequential(base.requires_grad_(False), pooled, torch.nn.Linear(8 * width, 1))

    def training_data(self):
        """See ``TrainingPlan``."""
        features = [f"f{n}" for n in range(30)]
        images = torch.as_tensor(self.dataset.matrix(features)).float().reshape(-1, 1, 5, 6)
        return DataManager(
            torch.utils.data.TensorDataset(images, torch.as_tensor(self.dataset.matrix(["malign"])).float())
        )

    def training_step(self, data, target):
        """See ``TrainingPlan``."""
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)
