"""Where in a head scan are the deep grey nuclei? A residual 3-D U-Net.

What leaves the node: the network's weights, 7.2 million, and batch norm's statistics.
"""

from typing import Any

import torch
from monai.losses import DiceLoss
from monai.networks.nets import UNet

from appliance.training import DataManager, TorchTrainingPlan


class NucleiUNet(TorchTrainingPlan):
    """Five levels, three residual units at each, batch norm, dropout."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        """``channels`` of the levels, from the finest to the coarsest, and the share of ``dropout``."""
        channels = model_args["channels"]
        return UNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            channels=channels,
            strides=[2] * (len(channels) - 1),
            num_res_units=3,
            norm="batch",
            dropout=model_args["dropout"],
        )

    def training_data(self) -> DataManager:
        """Each row is a slice of a patient's scan, and after it the same slice of the nuclei; rows come in order."""
        side = self.model_args()["side"]
        rows = torch.from_numpy(self.dataset.matrix([name for name in self.dataset.columns if name != "patient"]))
        scans, nuclei = rows.reshape(-1, side, 2, side, side).unbind(dim=2)
        return DataManager((scans / 255).unsqueeze(1), nuclei.unsqueeze(1))

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The soft Dice loss of one batch."""
        return DiceLoss(sigmoid=True)(self.model()(data), target)

    def testing_step(self, data: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        """The mean Dice coefficient of held-out patients."""
        found = (self.model()(data) > 0).flatten(1)
        true = target.flatten(1) > 0
        both = (found & true).sum(dim=1)
        return {"dice": float((2 * both / (found.sum(dim=1) + true.sum(dim=1)).clamp(min=1)).mean())}
