"""The demo's model: what `make demo` promises, without the network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from appliance.data import Dataset, LoadingPlan, check
from appliance.demo import baselines, settings
from appliance.training import TrainingArguments, derive_seed, plan_source


@pytest.fixture(scope="module")
def hospitals() -> dict[str, Dataset]:
    """The four hospitals' datasets."""
    return settings.hospital_datasets()


def federated(datasets: Mapping[str, Dataset], seed: int) -> baselines.Parameters:
    """Federated averaging by samples (McMahan et al., 2017), hospital by hospital in one process."""
    arguments = TrainingArguments.parse(settings.training_args(seed))
    plans = {name: baselines.new_plan(seed, member_id=name) for name in datasets}
    parameters = baselines.new_plan(seed).get_parameters()
    for number in range(1, settings.ROUNDS + 1):
        sums = {name: np.zeros(array.shape) for name, array in parameters.items()}
        total = 0
        for name, plan in plans.items():
            plan.build(settings.MODEL_ARGS, arguments, seed=derive_seed(seed, name, number))
            plan.attach(datasets[name])
            plan.set_parameters(parameters)
            count = plan.train().sample_count
            total += count
            for tensor, array in plan.get_parameters().items():
                sums[tensor] += count * (array - parameters[tensor]).astype(np.float64)
        parameters = {name: (parameters[name] + sums[name] / total).astype(np.float32) for name in sums}
    return parameters


def test_the_federated_model_nearly_matches_the_pooled_one_and_beats_single_hospitals(
    hospitals: dict[str, Dataset],
) -> None:
    """The reason to federate, on real data: means over the five seeds."""
    runs = [
        (
            baselines.auc_of(federated(hospitals, seed), hospitals, seed),
            baselines.pooled_auc(hospitals, seed),
            np.mean(list(baselines.local_auc(hospitals, seed).values())),
        )
        for seed in settings.SEEDS
    ]
    together, pooled, alone = np.mean(runs, axis=0)

    assert abs(together - pooled) < 0.02
    assert together > alone + 0.02


def test_every_hospitals_file_passes_its_check() -> None:
    """The demo registers them as a hospital would."""
    plan = LoadingPlan.read(settings.LOADING_PLAN)

    assert {name: check(path, plan).rows for name, path in settings.HOSPITALS.items()} == {
        "harlem": 120,
        "hennepin": 217,
        "kentucky": 180,
        "mississippi": 142,
    }


def test_the_plan_is_one_that_a_hospital_can_review() -> None:
    """Short enough to be read, and free of race and ethnicity."""
    source = plan_source(settings.PLAN)

    assert source.class_name == settings.PLAN_CLASS
    assert len(source.text.splitlines()) < 80
    assert not {"Black", "White", "Nat.Am", "Asian", "Hisp"} & set(LoadingPlan.read(settings.LOADING_PLAN).columns)
