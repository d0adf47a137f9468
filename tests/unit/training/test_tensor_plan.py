"""Plans of tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from appliance.data import Dataset
from appliance.training import (
    ArgumentInvalidError,
    DataManager,
    PlanInvalidError,
    TensorTrainingPlan,
    TrainingFailedError,
    TrainingProgress,
)
from appliance.training.source import load_plan, plan_source
from tests.unit.training.federated import federated

Built = Callable[..., Any]
Make = Callable[..., Dataset]
MIXTURE = Path(__file__).parents[3] / "docs/researcher/examples/gaussian_mixture.py"


class _Means(TensorTrainingPlan):
    """Each column's mean, and how often the plan ran here."""

    def init_model(self, model_args: dict[str, Any]) -> dict[str, Any]:
        return model_args or {"mean": np.zeros(2), "count": np.zeros((), np.int64)}

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]).astype(np.float64))

    def compute(self, tensors: dict[str, Any], data: Any, target: Any) -> dict[str, Any]:
        self.local = {"rounds": self.local.get("rounds", np.zeros(1)) + 1}
        return {"mean": data.mean(axis=0), "count": len(data)}


def _returning(result: Any) -> type:
    return type("Returning", (_Means,), {"compute": lambda self, tensors, data, target: result})


def test_the_mean_over_hospitals_is_that_of_all_samples(make_dataset: Make) -> None:
    """Weighted by samples; an integer is the mean of the nodes' values."""
    hospitals = [make_dataset(10), make_dataset(50)]

    found = federated(_Means, hospitals).model()

    pooled = np.concatenate([each.matrix(["x", "z"]) for each in hospitals]).astype(np.float64)
    np.testing.assert_allclose(found["mean"], pooled.mean(axis=0))
    assert found["count"] == round((10 * 10 + 50 * 50) / 60)


def test_a_federated_mixture_is_the_pooled_one(make_dataset: Make) -> None:
    """The example of the documentation, beside scikit-learn's on the pooled data."""
    source = plan_source(MIXTURE)
    plan = load_plan(source.text, source.class_name)
    hospitals, start = [make_dataset(30), make_dataset(90)], [[-1.0, 0.0], [1.0, 0.0]]
    pooled = np.concatenate([each.matrix(["x", "z"]) for each in hospitals]).astype(np.float64)

    found = federated(plan, hospitals, rounds=6, model_args={"means": start, "columns": ["x", "z"]}).model()

    alone = GaussianMixture(
        2, means_init=start, weights_init=[0.5, 0.5], precisions_init=[np.eye(2)] * 2, max_iter=6, tol=0, reg_covar=1e-6
    )
    with pytest.warns(UserWarning, match="did not converge"):
        alone.fit(pooled)
    np.testing.assert_allclose(found["sums"] / found["shares"][:, None], alone.means_, atol=1e-4)
    np.testing.assert_allclose(found["shares"], alone.weights_, atol=1e-4)


def test_batches_are_averaged_by_their_samples(build: Built) -> None:
    """A dataset that does not fit into memory at once."""
    whole, parts = build(_Means), build(_Means, batch_size=7)
    whole.train()
    parts.train()

    np.testing.assert_allclose(whole.model()["mean"], parts.model()["mean"])


def test_without_a_batch_size_all_samples_come_at_once(build: Built) -> None:
    """Once a round, and progress tells of no loss that nobody computed."""
    seen: list[TrainingProgress] = []
    plan = build(_Means)
    plan.train(seen.append)

    assert (plan.model()["count"], seen) == (40, [TrainingProgress(1, 1, 1, {})])


def test_what_is_local_stays_for_the_next_round(build: Built) -> None:
    """Latent variables belong to the node."""
    plan = build(_Means)
    plan.set_kept_tensors({"rounds": np.full(1, 4.0)}, {})
    plan.train()

    assert plan.get_kept_tensors()["rounds"] == 5
    assert set(plan.get_returned_parameters()) == {"mean", "count"}


def test_a_map_style_dataset_is_read_sample_by_sample(build: Built) -> None:
    """Images lie in files."""

    class Pairs:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, place: int) -> tuple[Any, int]:
            return np.full(2, place), place

    class Files(_Means):
        def training_data(self) -> DataManager:
            return DataManager(Pairs())

    plan = build(Files)
    plan.train()

    assert plan.model()["mean"].tolist() == [2.5, 2.5]


@pytest.mark.parametrize(
    ("result", "error", "reason"),
    [
        (None, TrainingFailedError, "a tensor for each"),
        ({"mean": np.zeros(2)}, TrainingFailedError, "a tensor for each"),
        ({"mean": np.zeros(3), "count": 1}, TrainingFailedError, r"another shape than \(2,\)"),
        ({"mean": ["a patient", "b"], "count": 1}, PlanInvalidError, "other than numbers"),
        ({"mean": [[1.0], [1.0, 2.0]], "count": 1}, PlanInvalidError, "uneven"),
    ],
)
def test_what_compute_must_not_return(build: Built, result: Any, error: type[Exception], reason: str) -> None:
    """Said in our words: what a plan makes at a node never stands in an error."""
    with pytest.raises(error, match=reason) as caught:
        build(_returning(result)).train()
    assert "patient" not in str(caught.value)


@pytest.mark.parametrize("first", [{"mean": "text"}, {1: np.zeros(2)}, {"a": np.zeros(1, "datetime64[s]")}])
def test_the_first_tensors_are_arrays_by_name(build: Built, first: dict[Any, Any]) -> None:
    """Before a hospital is asked."""
    with pytest.raises(PlanInvalidError):
        build(_Means, first)


def test_a_metric_needs_a_model(build: Built) -> None:
    """Tensors that predict nothing can be tested by the plan's own step alone."""
    with pytest.raises(ArgumentInvalidError, match="testing_step"):
        build(_Means, test_ratio=0.5, test_metric="MSE").test()
