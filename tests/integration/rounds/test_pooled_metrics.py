"""Metrics of two real hospitals together, and tests that return what is no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from appliance.protocol.errors import Code
from appliance.training import evaluate, split_indices
from appliance.training.metrics import Metric
from researcher_kit import Experiment, Federation
from researcher_kit.errors import NodeFailedError
from tests.hospitals import NODES, PLAN, Hospitals, training_args

TESTED = training_args() | {"test_ratio": 0.4, "test_on_global_updates": True}


def in_one_place(hospitals: Hospitals, experiment: Experiment, metric: str) -> float:
    """The metric of both hospitals' held-out records together, which nobody but a test could compute."""
    model, outputs, targets = experiment.training_plan().model(), [], []
    for node in NODES:
        table = np.loadtxt(hospitals.data(node) / "cells.csv", delimiter=",", skiprows=1, dtype=np.float32)
        table = table[split_indices(len(table), 0.4, 1)[1]]
        with torch.no_grad():
            outputs.append(model(torch.from_numpy(table[:, :-1])).numpy())
        targets.append(table[:, -1].astype(int))
    value = evaluate(Metric(metric), np.concatenate(targets), np.concatenate(outputs))
    assert value is not None
    return value


@pytest.mark.parametrize("metric", ["AUC", "F1_SCORE", "AVERAGE_PRECISION", "BRIER"])
def test_pooled_is_the_metric_of_both_hospitals_records(
    hospitals: Hospitals, federation: Federation, metric: str
) -> None:
    """Through runner, egress guard, envelope and history, with bins merged as the release's policy says."""
    experiment = hospitals.experiment(federation, training_args=TESTED | {"test_metric": metric})
    experiment.run(1)
    found = experiment.evaluate().pooled[metric]

    assert (found.nodes, found.samples) == (2, 228)
    assert abs(found.value - in_one_place(hospitals, experiment, metric)) <= found.bound + 1e-5
    assert found.bound < 0.25  # two rounds: the scores are all close to 0 still, in few bins


def test_a_hospital_that_says_off_is_not_in_the_pooled_value(hospitals: Hospitals, federation: Federation) -> None:
    """Its staff decide, and its own value is still told."""
    experiment = hospitals.experiment(federation, training_args=TESTED | {"test_metric": "AUC"})
    south = hospitals.staff("south")
    south.call("policy.set", changes={"pooled_counts": "off"}, shown={})
    try:
        evaluation = experiment.evaluate()
    finally:
        south.call("policy.set", changes={"pooled_counts": None}, shown={})

    assert evaluation.pooled["AUC"].nodes == 1
    assert evaluation.metrics["south"].keys() == {"AUC"}


def test_a_test_that_returns_text_is_named_and_the_experiment_goes_on(
    hospitals: Hospitals, federation: Federation
) -> None:
    """And the text, which may be a record, stays where it is."""
    text = PLAN.read_text() + (
        "\n    def testing_step(self, data: Any, target: Any) -> Any:\n"
        '        return {"loss": "Zwiebelfisch" if self.model_args()["is_wrong"] else float("nan"), "mine": 0.5}\n'
    )
    file = hospitals.home("alice") / "wrong.py"
    file.write_text(text)
    for node in NODES:
        hospitals.staff(node).call("plan.add", name="wrong", source=text)
    experiment = hospitals.experiment(
        federation, training_plan_file=file, training_args=TESTED, model_args={"width": 8, "is_wrong": True}
    )
    with pytest.raises(NodeFailedError) as caught:
        experiment.run(1)

    assert caught.value.code is Code.METRIC_INVALID
    assert "testing_step" in str(caught.value)
    assert "Zwiebelfisch" not in str(caught.value)
    experiment.set_model_args({"width": 8, "is_wrong": False})
    assert experiment.run(1) == 1
    assert experiment.history[-1].mean_metrics() == {"mine": 0.5}
