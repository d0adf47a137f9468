"""Kinds of plan in a real runner and sandbox: what comes out is what a fit on the pooled tables gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from declearn.optimizer import Optimizer
from sklearn.naive_bayes import GaussianNB

from researcher_kit import (
    DataManager,
    Experiment,
    FedAdam,
    FedGaussianNB,
    LocalFederation,
    Standardise,
    TorchTrainingPlan,
)


class Bayes(FedGaussianNB):
    """As a notebook has it: the data, and nothing else."""

    def training_data(self) -> DataManager:
        """See ``TrainingPlan``."""
        return DataManager(self.dataset.matrix(["x"]), self.dataset.column("y"))


class Head(TorchTrainingPlan):
    """A head on a frozen base, on standardised data, stepped by declearn."""

    def init_dependencies(self):
        """See ``TrainingPlan``."""
        return ["import torch", "from declearn.optimizer import Optimizer"]

    def init_model(self, model_args):
        """See ``TrainingPlan``."""
        base = torch.nn.Linear(1, 4).requires_grad_(False)
        return torch.nn.Sequential(base, torch.nn.Linear(4, 1))

    def init_optimizer(self, optimizer_args):
        """See ``TrainingPlan``."""
        return Optimizer(lrate=0.1, modules=["adam"])

    def init_standardisation(self):
        """See ``TrainingPlan``."""
        return Standardise(1)

    def training_data(self):
        """See ``TrainingPlan``."""
        return DataManager(self.dataset.matrix(["x"]), self.dataset.matrix(["y"]))

    def training_step(self, data, target):
        """See ``TrainingPlan``."""
        return torch.nn.functional.mse_loss(self.model()(data), target)


@pytest.fixture
def pooled(tables: dict[str, Path]) -> tuple[np.ndarray, np.ndarray]:
    """What nobody may have in one place: x and y of all records."""
    table = np.concatenate([np.genfromtxt(path, delimiter=",", names=True)[["x", "y"]] for path in tables.values()])
    return table["x"][:, np.newaxis].astype(np.float32).astype(np.float64), table["y"]


def test_statistics_come_to_the_pooled_fit(local: LocalFederation, pooled: tuple[np.ndarray, np.ndarray]) -> None:
    """In double precision through file, sandbox, update and aggregation."""
    model_args = {"n_features": 1, "n_classes": 2}
    experiment = Experiment(
        tags=["any"], training_plan_class=Bayes, model_args=model_args, federation=local, progress=False
    )
    experiment.run(1)

    model, alone = experiment.training_plan().model(), GaussianNB().fit(*pooled)
    np.testing.assert_allclose(model.predict_proba(pooled[0]), alone.predict_proba(pooled[0]), atol=1e-9)


@pytest.mark.parametrize("is_apart", [False, True])
def test_a_head_learns_on_standardised_data(
    local: LocalFederation,
    pooled: tuple[np.ndarray, np.ndarray],
    is_apart: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first round measures whatever the aggregator is, the others train; the base never comes back.

    Momenta last from the second round to the third, and the round's report says where they begin.
    And wherever the base travels: a large one has a file of its own.
    """
    if is_apart:
        monkeypatch.setattr("researcher_kit.round.MAX_ENCLOSED_BYTES", 0)
    experiment = Experiment(
        tags=["any"],
        training_plan_class=Head,
        training_args={"num_updates": 3, "random_seed": 1},
        aggregator=FedAdam(server_lr=0.1),
        federation=local,
        progress=False,
    )
    before = experiment.parameters()
    experiment.run(3)
    after = experiment.parameters()

    assert len({record.parameters_bytes for record in experiment.history}) == 1 + is_apart
    assert after["standardisation/means"] == pytest.approx(pooled[0].mean())
    assert (after["0.weight"] == before["0.weight"]).all()
    assert (after["1.weight"] != before["1.weight"]).any()
    told = [{reply.is_optimizer_new for reply in record.replies} for record in experiment.history]
    assert told == [{None}, {True}, {False}]
    assert {row[-1] for row in experiment.history[1].report().rows} == {"its optimizer began anew"}
