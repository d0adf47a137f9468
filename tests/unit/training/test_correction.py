"""FedProx, SCAFFOLD and ADMM at a node, each against its paper's own lines over several rounds and nodes.

The loss of a node is |w - t|² / 2, t being its target: gradients are known, and so is where the consensus lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from appliance.data import ColumnPlan, Dataset
from appliance.training import ArgumentInvalidError, DataManager, TorchTrainingPlan, TrainingArguments

TARGETS = {"north": np.array([1.0, 4.0]), "south": np.array([3.0, -2.0]), "west": np.array([8.0, 1.0])}
LR, UPDATES = 0.1, 4


class _Pull(TorchTrainingPlan):
    """A model that is its own parameters, drawn to the node's target."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        model = torch.nn.Module()
        model.w = torch.nn.Parameter(torch.zeros(2))
        return model

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["a", "b"]), self.dataset.matrix(["a"]), batch_size=8)

    def training_step(self, data: Any, target: Any) -> Any:
        return (self.model().w - data).square().sum(dim=1).mean() / 2


class _Momentum(_Pull):
    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return torch.optim.SGD(self.model().parameters(), lr=0.1, momentum=0.9)


class _Adam(_Pull):
    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return torch.optim.Adam(self.model().parameters(), lr=0.1)


class _TwoRates(_Pull):
    def init_model(self, model_args: dict[str, Any]) -> Any:
        model = super().init_model(model_args)
        model.b = torch.nn.Parameter(torch.zeros(2))
        return model

    def training_step(self, data: Any, target: Any) -> Any:
        return super().training_step(data, target) + self.model().b.square().sum()

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return torch.optim.SGD([{"params": [self.model().w], "lr": 0.1}, {"params": [self.model().b], "lr": 0.2}])


class Node:
    """One node of an experiment, as the runner drives its plan round by round."""

    def __init__(self, name: str, kind: type[TorchTrainingPlan] = _Pull) -> None:
        values = {"a": np.full(8, TARGETS[name][0]), "b": np.full(8, TARGETS[name][1])}
        columns = {column: ColumnPlan(source=column) for column in values}
        self.plan = kind()
        self.plan.attach(Dataset(columns, values, np.arange(2, 10), None))
        self.kept: dict[str, np.ndarray] = {}

    def round(
        self,
        parameters: np.ndarray,
        aggregator_args: dict[str, Any],
        sent: dict[str, np.ndarray] | None = None,
        **more: Any,
    ) -> tuple[np.ndarray, float | None]:
        """The update, and the sum of the learning rates."""
        arguments = TrainingArguments(num_updates=UPDATES, optimizer_args={"lr": LR}, **more)
        self.plan.build({}, arguments, seed=1, aggregator_args=aggregator_args)
        received = self.plan.get_parameters() | {"w": np.float32(parameters)}
        self.plan.set_parameters(received)
        self.plan.set_kept_tensors(self.kept, sent or {})
        outcome = self.plan.train()
        update = self.plan.get_returned_parameters()["w"] - np.float32(parameters)
        self.kept = self.plan.get_kept_tensors()
        return update, outcome.learning_rates


def descended(w: np.ndarray, target: np.ndarray, extra: Any = lambda _: 0.0) -> np.ndarray:
    """Where ``UPDATES`` steps of gradient descent end."""
    for _ in range(UPDATES):
        w = w - LR * (w - target + extra(w))
    return w


def test_fedprox_pulls_back_to_the_received_parameters() -> None:
    """Its gradient is mu * (w - z)."""
    z = np.array([5.0, 5.0])
    update, _ = Node("north").round(z, {}, fedprox_mu=0.7)

    assert z + update == pytest.approx(descended(z, TARGETS["north"], lambda w: 0.7 * (w - z)), rel=1e-5)


def test_scaffold_follows_the_paper_over_rounds() -> None:
    """Lines 7 to 12 of Algorithm 1 with option 2, at three nodes."""
    nodes = {name: Node(name) for name in TARGETS}
    x, c = np.zeros(2), np.zeros(2)
    own = {name: np.zeros(2) for name in TARGETS}
    for number in range(4):
        sent = {"w": np.float32(c)} if number else {}
        found = {name: node.round(x, {"correction": "scaffold"}, sent) for name, node in nodes.items()}
        expected = {name: descended(x, TARGETS[name], lambda _, drift=c - own[name]: drift) for name in TARGETS}
        for name, (update, rates) in found.items():
            assert x + update == pytest.approx(expected[name], rel=1e-5)
            assert rates == pytest.approx(UPDATES * LR)
        new = {name: own[name] - c + (x - expected[name]) / (UPDATES * LR) for name in TARGETS}
        for name, node in nodes.items():
            assert node.kept["correction/w"] == pytest.approx(new[name], rel=1e-4, abs=1e-5)
        c = c + np.mean([new[name] - own[name] for name in TARGETS], axis=0)
        x, own = np.mean(list(expected.values()), axis=0), new


def test_admm_comes_to_the_consensus() -> None:
    """The mean of the targets minimises the sum of the losses; the nodes' own models differ from it no more."""
    nodes = {name: Node(name) for name in TARGETS}
    z = np.zeros(2)
    for _ in range(60):
        updates = [node.round(z, {"correction": "admm", "rho": 1.0})[0] for node in nodes.values()]
        z = z + np.mean(updates, axis=0)

    assert z == pytest.approx(np.mean(list(TARGETS.values()), axis=0), abs=1e-2)


def test_a_local_test_sees_the_nodes_own_model_and_not_what_it_returns() -> None:
    """Under ADMM the two differ by the price."""
    node = Node("north")
    node.round(np.zeros(2), {"correction": "admm", "rho": 1.0})
    node.plan.build({}, TrainingArguments(num_updates=1, optimizer_args={"lr": LR}), seed=1,
                    aggregator_args={"correction": "admm", "rho": 1.0})  # fmt: skip
    node.plan.set_parameters({"w": np.float32([9, 9])})
    node.plan.set_kept_tensors(node.kept, {})
    node.plan.train()
    own = node.plan.get_parameters()["w"].copy()

    assert node.plan.get_returned_parameters()["w"] != pytest.approx(own)


@pytest.mark.parametrize(
    ("kind", "word"), [(_Momentum, "without momentum"), (_Adam, "without momentum"), (_TwoRates, "one learning rate")]
)
def test_scaffold_refuses_an_optimizer_whose_steps_it_cannot_measure(kind: type[TorchTrainingPlan], word: str) -> None:
    """Its variate would be wrong, and nobody would see it."""
    with pytest.raises(ArgumentInvalidError, match=word):
        Node("north", kind).round(np.zeros(2), {"correction": "scaffold"})


@pytest.mark.parametrize("asked", [{"correction": "none"}, {"correction": "admm"}, {"correction": "admm", "rho": -1}])
def test_a_correction_that_this_release_does_not_know_is_refused(asked: dict[str, Any]) -> None:
    """To train without it would be another experiment."""
    with pytest.raises(ArgumentInvalidError, match="does not know"):
        Node("north").round(np.zeros(2), asked)
