"""Rounds as nodes and researcher make them: updates of real plans, written as a runner writes them, then aggregated."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.data import Dataset
from appliance.protocol.local.sealed import sealed_memfd
from appliance.protocol.tensors import TensorFile, tensor_bytes
from appliance.runner.update import write_update
from appliance.training import TrainingArguments, TrainingPlan
from researcher_kit.aggregators import Aggregator, FedAverage, Setting, Update


def federated(
    plan: type[TrainingPlan],
    datasets: Sequence[Dataset],
    *,
    rounds: int = 1,
    model_args: Mapping[str, Any] | None = None,
    aggregator: Aggregator | None = None,
    **arguments: Any,
) -> Any:
    """The plan as the researcher has it after some rounds over these hospitals' datasets."""
    parsed = TrainingArguments.parse(arguments)
    mine, merger = _built(plan, parsed, model_args), aggregator or FedAverage()
    parameters = mine.get_parameters()
    kept: dict[int, Any] = {}
    nodes = [_built(plan, parsed, model_args) for _ in datasets]
    for number in range(1, rounds + 1):
        merger.prepare(Setting(tuple(map(str, range(len(nodes)))), mine.trained_names(), parsed))
        measured = parameters.get("standardisation/is_known")  # as an experiment does
        now = merger if measured is None or measured.any() else FedAverage()
        updates = []
        for place, (node, dataset) in enumerate(zip(nodes, datasets, strict=True)):
            asked = {"aggregator_args": now.create_aggregator_args(), "round_": number}
            node.build(model_args or {}, parsed, seed=number, are_parameters_to_follow=True, **asked)
            node.attach(dataset)
            received = _file(parameters)
            node.set_parameters(received)
            node.set_kept_tensors(kept.get(place, {}), dict(now.node_tensors()))
            outcome = node.train()
            fd = write_update(node.get_returned_parameters(), received)
            tensors = dict(TensorFile(f"/proc/self/fd/{fd}"))
            os.close(fd)
            kept[place] = node.get_kept_tensors()
            updates.append(Update(str(place), outcome.sample_count, tensors, outcome.learning_rates))
        parameters = dict(now.aggregate(updates, parameters))
    mine.set_parameters(parameters)
    return mine


def _built(plan: type[TrainingPlan], arguments: TrainingArguments, model_args: Mapping[str, Any] | None) -> Any:
    made = plan()
    made.build(model_args or {}, arguments, seed=arguments.random_seed or 0)
    return made


def _file(parameters: Mapping[str, Any]) -> TensorFile:
    fd = sealed_memfd("parameters", tensor_bytes(parameters))
    try:
        return TensorFile(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
