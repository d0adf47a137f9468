"""The mean and the variance of each column over all centres, in two rounds, for a federated standardisation.

What leaves the node: in the first round each column's mean, in the second its mean squared distance from the mean of
all centres, in units of that mean: a column of counts in the millions has squares that no node lets out. Averaged with
the numbers of rows as weights they are exactly those of the pooled table.
"""

from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan

LEAST_UNIT = 1e-3


class Statistics(torch.nn.Module):
    """A mean and a variance for each column."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(columns))
        self.variance = torch.nn.Parameter(torch.zeros(columns))


class CentreStatistics(TorchTrainingPlan):
    """Sets the statistics to the centre's own; nothing is learnt."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """``columns``: how many there are."""
        return Statistics(model_args["columns"])

    def training_data(self) -> DataManager:
        """All rows."""
        rows = torch.from_numpy(self.dataset.matrix())
        return DataManager(rows, rows, batch_size=len(rows), shuffle=False)

    def training_update(self, data: torch.Tensor, target: torch.Tensor) -> float:
        """The mean in the first round; then the variance about the mean of all centres, which stays as it is."""
        statistics = self.model()
        with torch.no_grad():
            if self.round == 1:
                statistics.mean.copy_(data.double().mean(dim=0))
            else:
                units = statistics.mean.abs().clamp(min=LEAST_UNIT)
                statistics.variance.copy_(((data.double() - statistics.mean) / units).square().mean(dim=0))
        return 0.0
