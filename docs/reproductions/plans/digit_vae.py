"""A variational autoencoder that puts pictures of digits onto a plane.

What leaves the node: the weights of three fully connected layers on the way to the plane, and of three on the way back.
"""

from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan


class Autoencoder(torch.nn.Module):
    """Three layers each way, with ``latent`` numbers in the middle."""

    def __init__(self, pixels: int, wide: int, narrow: int, latent: int) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(pixels, wide),
            torch.nn.ReLU(),
            torch.nn.Linear(wide, narrow),
            torch.nn.ReLU(),
            torch.nn.Linear(narrow, 2 * latent),
        )
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(latent, narrow),
            torch.nn.ReLU(),
            torch.nn.Linear(narrow, wide),
            torch.nn.ReLU(),
            torch.nn.Linear(wide, pixels),
        )

    def encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each picture lies: the mean and the logarithm of the variance, of shape (n, latent)."""
        mean, log_variance = self.encoder(pictures).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, places: torch.Tensor) -> torch.Tensor:
        """The pictures at places of shape (n, latent): the chance of ink in each pixel."""
        return torch.sigmoid(self.decoder(places))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The logits of each picture drawn again, and where it lies."""
        mean, log_variance = self.encode(pictures)
        drawn = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        return self.decoder(drawn), mean, log_variance


class DigitVAE(TorchTrainingPlan):
    """Trained by Adam on the evidence lower bound; no digit's class is looked at."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """``pixels``, ``wide``, ``narrow`` and ``latent`` are the layers' widths."""
        return Autoencoder(**model_args)

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> torch.optim.Optimizer:
        """The researcher chooses the learning rate (lr)."""
        return torch.optim.Adam(self.model().parameters(), **optimizer_args)

    def training_data(self) -> DataManager:
        """A picture in each row, bytes from 0 to 255; the column ``digit`` is left alone."""
        pixels = [name for name in self.dataset.columns if name != "digit"]
        pictures = self.dataset.matrix(pixels) / 255
        return DataManager(pictures, pictures)

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The negative evidence lower bound of one batch, in nats a picture."""
        logits, mean, log_variance = self.model()(data)
        ink = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        divergence = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp())
        return (ink + divergence) / len(data)
