"""What the demo compares the federation with: one model on all records together, and one for each hospital alone.

Only a demo can do this, for here the four hospitals' public records lie on one machine. Every model is of the same
plan, starts from the same parameters, makes as many updates with the same arguments as a node of the federation does
over all its rounds, and is tested on the same held-out patients of all hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.data import Dataset, concatenate
from appliance.demo.settings import MODEL_ARGS, PLAN, PLAN_CLASS, ROUNDS, TEST_RATIO, training_args
from appliance.training import (
    Metric,
    TrainingArguments,
    TrainingPlan,
    derive_seed,
    evaluate,
    load_plan,
    plan_source,
    split_indices,
)

Parameters = dict[str, NDArray[Any]]


def new_plan(seed: int, *, round_number: int = 0, member_id: str = "", **changes: Any) -> TrainingPlan:
    """The demo's plan, built for one member's part in one round."""
    arguments = TrainingArguments.parse(training_args(seed) | changes)
    plan = load_plan(plan_source(PLAN).text, PLAN_CLASS)()
    plan.build(MODEL_ARGS, arguments, seed=derive_seed(seed, member_id, round_number))
    return plan


def auc_of(parameters: Mapping[str, NDArray[Any]], datasets: Mapping[str, Dataset], seed: int) -> float:
    """The AUC over the held-out patients of all hospitals together.

    Raises:
        ValueError: The held-out patients are all of one class.
    """
    plan = new_plan(seed)
    plan.set_parameters(parameters)
    targets, outputs = [], []
    for dataset in datasets.values():
        plan.attach(dataset)
        target, output = plan.predict_held_out()
        targets.append(target)
        outputs.append(output)
    area = evaluate(Metric.AUC, np.concatenate(targets), np.concatenate(outputs))
    if area is None:
        raise ValueError("the held-out patients are all of one class")
    return area


def pooled_auc(datasets: Mapping[str, Dataset], seed: int) -> float:
    """The AUC of one model that is trained on all hospitals' records together."""
    together = concatenate([_for_training(dataset, seed) for dataset in datasets.values()])
    return auc_of(_trained(together, "pooled", seed), datasets, seed)


def local_auc(datasets: Mapping[str, Dataset], seed: int) -> dict[str, float]:
    """By hospital, the AUC of a model that is trained on its records alone."""
    return {
        name: auc_of(_trained(_for_training(dataset, seed), name, seed), datasets, seed)
        for name, dataset in datasets.items()
    }


def _for_training(dataset: Dataset, seed: int) -> Dataset:
    train, _ = split_indices(len(dataset), TEST_RATIO, seed, groups=dataset.groups)
    return dataset.take(train)


def _trained(dataset: Dataset, name: str, seed: int) -> Parameters:
    updates = ROUNDS * training_args(seed)["num_updates"]
    plan = new_plan(seed, round_number=1, member_id=name, num_updates=updates, test_ratio=0.0)
    plan.attach(dataset)
    plan.set_parameters(new_plan(seed).get_parameters())
    plan.train()
    return plan.get_parameters()
