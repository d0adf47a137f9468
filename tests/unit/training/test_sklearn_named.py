"""Plans of a known model, by Fed-BioMed's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from appliance import training
from appliance.training import ArgumentInvalidError, DataManager, FedLogisticRegression, FedSGDClassifier
from appliance.training.sklearn_plan import LEARNERS
from appliance.training.source import load_plan, plan_source

Built = Callable[..., Any]
CLASSIFIER = {"n_features": 2, "n_classes": 2}


class Readmission(FedSGDClassifier):
    """As a researcher writes it: the data, and nothing else."""

    def training_data(self) -> DataManager:
        """See ``TrainingPlan``."""
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.column("y"))


def _with_data(plan: type) -> Any:
    return type("Named", (plan,), {"training_data": lambda self: None})()


def test_each_model_has_a_plan_of_its_name() -> None:
    """A researcher looks for the model's name."""
    assert {name.removeprefix("Fed") for name in training.__all__ if name.startswith("Fed")} == set(LEARNERS)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_each_is_built_of_its_counts_alone(name: str) -> None:
    """scikit-learn's own defaults are good for all the rest."""
    plan = _with_data(getattr(training, f"Fed{name}"))
    plan.build({**CLASSIFIER, "n_samples": 10}, training.TrainingArguments(), seed=1)

    assert type(plan.model()).__name__ == name


def test_model_arguments_reach_the_model(build: Built) -> None:
    """The model's own ones stand beside the counts, as in Fed-BioMed."""
    plan = build(Readmission, {**CLASSIFIER, "loss": "log_loss", "alpha": 0.5})

    assert (plan.model().loss, plan.model().alpha) == ("log_loss", 0.5)


def test_an_unknown_model_argument_is_named_with_what_was_meant(build: Built) -> None:
    """scikit-learn would raise a TypeError, of which a researcher sees the name only."""
    with pytest.raises(ArgumentInvalidError, match=r"no model argument 'alfa'.*alpha"):
        build(Readmission, {**CLASSIFIER, "alfa": 0.5})


def test_no_penalty_can_be_said_in_json() -> None:
    """JSON has no infinity."""
    plan = _with_data(FedLogisticRegression)
    plan.build({**CLASSIFIER, "C": None}, training.TrainingArguments(), seed=1)

    assert np.inf == plan.model().C


def test_its_text_imports_what_it_is_made_of() -> None:
    """Hospitals run the text alone."""
    source = plan_source(Readmission)

    assert source.text.startswith("from appliance.training import DataManager, FedSGDClassifier, ")
    assert issubclass(load_plan(source.text, "Readmission"), FedSGDClassifier)
