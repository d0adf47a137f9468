"""A linear variational autoencoder: five numbers that tell most of a scan's measures.

What leaves the node: two matrices and their biases, and the spread of the noise. The means and spreads by which the
columns are standardised come with the model's arguments; they are those of all centres together.
"""

import math
from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan

FARTHEST = 5.0  # standard deviations; a broken scan's measures lie at hundreds


class LinearVAE(torch.nn.Module):
    """One linear layer each way, and noise of one spread."""

    def __init__(self, columns: int, latent: int) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(columns, latent)
        self.log_variance = torch.nn.Parameter(torch.zeros(latent))
        self.decoder = torch.nn.Linear(latent, columns)
        self.log_noise = torch.nn.Parameter(torch.zeros(()))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Each row as its five numbers tell it."""
        return self.decoder(self.encoder(rows))


class ScanVAE(TorchTrainingPlan):
    """Trained by plain stochastic gradient descent on the evidence lower bound."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """``latent`` numbers for the columns whose ``mean`` and ``spread`` are given."""
        return LinearVAE(len(model_args["mean"]), model_args["latent"])

    def training_data(self) -> DataManager:
        """Each scan's measures, standardised by what is common to all centres."""
        mean, spread = (torch.tensor(self.model_args()[name]) for name in ("mean", "spread"))
        rows = (torch.from_numpy(self.dataset.matrix()) - mean) / spread
        rows = rows.clamp(-FARTHEST, FARTHEST)
        return DataManager(rows, rows)

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The negative evidence lower bound, in nats a scan and column, up to a constant."""
        model = self.model()
        mean = model.encoder(data)
        drawn = mean + torch.randn_like(mean) * torch.exp(model.log_variance / 2)
        distance = (model.decoder(drawn) - target).square() / model.log_noise.exp()
        divergence = -0.5 * (1 + model.log_variance - mean**2 - model.log_variance.exp()).sum(dim=1).mean()
        return 0.5 * (distance.sum(dim=1).mean() + target.shape[1] * model.log_noise) + divergence

    def testing_step(self, data: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        """How far held-out scans are from what their five numbers tell: the share of the variance that is left."""
        error = (self.model()(data) - target).square().mean()
        return {"reconstruction_error": float(error)} if math.isfinite(error) else {}
