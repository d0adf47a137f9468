"""Which women's gums will bleed at half of all sites or more at visit 5, told from their baseline examination?

Data: the Obstetrics and Periodontal Therapy trial. The label is a finding at a dental examination during pregnancy,
not an outcome of birth.

What leaves the hospital: the weights and the bias of one logistic regression, one weight for each input below.
Race and ethnicity are not among the inputs.
"""

from typing import Any

import torch

from appliance.training import DataManager, TorchTrainingPlan

# Each input with the value that counts as 0 and the distance that counts as 1. They are fixed here, so that no
# hospital's averages have to be exchanged.
SCALES = {
    "age": (26.0, 6.0),  # years
    "bmi": (28.0, 7.0),  # kg/m2
    "treated": (0.5, 0.5),  # 1 for the treatment group
    "smoker": (0.0, 1.0),
    "diabetes": (0.0, 1.0),
    "hypertension": (0.0, 1.0),
    "public_assistance": (0.5, 0.5),
    "pregnancies": (2.0, 2.0),  # before this one
    "teeth": (15.0, 7.0),  # that qualify for treatment
    "gingival_index": (1.4, 0.4),  # 0 to 3
    "bleeding": (70.0, 17.0),  # % of sites that bleed on probing
    "pocket_depth": (2.9, 0.6),  # mm, mean
    "pockets_4mm": (25.0, 16.0),  # % of sites
    "pockets_5mm": (10.0, 14.0),  # % of sites
    "attachment_loss": (1.4, 0.7),  # mm, mean
    "attachment_2mm": (42.0, 25.0),  # % of sites
    "attachment_3mm": (15.0, 17.0),  # % of sites
    "calculus_index": (1.1, 0.6),  # 0 to 3
    "plaque_index": (1.2, 0.5),  # 0 to 3
}
EDUCATION = 3  # levels, one column each: less than 8 years, 8 to 12, more
BLEEDS_FROM = 50.0  # % of sites, at visit 5


class BleedingPlan(TorchTrainingPlan):
    """A logistic regression, trained by plain stochastic gradient descent."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:  # noqa: ARG002 - this model has none
        """One weight for each input, and a bias."""
        return torch.nn.Linear(len(SCALES) + EDUCATION, 1)

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> torch.optim.Optimizer:
        """The researcher chooses the learning rate (lr) and the weight decay."""
        return torch.optim.SGD(self.model().parameters(), **optimizer_args)

    def training_data(self) -> DataManager:
        """One sample for each woman who was seen at visit 5: her baseline, and whether her gums bleed then."""
        baseline = self.dataset.matrix(list(SCALES))
        centre, distance = torch.tensor(list(SCALES.values())).T
        inputs = (torch.from_numpy(baseline) - centre) / distance
        education = torch.from_numpy(self.dataset.matrix(["education"]))
        bleeds = self.dataset.matrix(["bleeding_visit_5"]) >= BLEEDS_FROM
        return DataManager(torch.cat([inputs, education], dim=1), torch.from_numpy(bleeds).float())

    def training_step(self, data: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of one batch."""
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)
