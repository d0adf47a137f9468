"""SCAFFOLD at the researcher, against its paper's own lines; the node's part is in tests/unit/training."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.training import TrainingArguments
from researcher_kit.aggregators import Scaffold, Setting, Update
from researcher_kit.errors import AggregationError, ExperimentArgumentError

NODES = ("a", "b", "c", "d")
STEPS = 0.5  # K times the learning rate


def prepared(server_lr: float = 1.0) -> Scaffold:
    """An aggregator of an experiment with four nodes."""
    scaffold = Scaffold(server_lr)
    scaffold.prepare(Setting(NODES, frozenset({"w"}), TrainingArguments(num_updates=5)))
    return scaffold


def updates(changes: dict[str, np.ndarray]) -> list[Update]:
    """A round's updates; numbers of samples differ, and must not matter."""
    return [
        Update(node, 10 * i + 1, {"w": change}, learning_rates=STEPS)
        for i, (node, change) in enumerate(changes.items())
    ]


def test_model_and_variate_are_the_papers_with_some_of_the_nodes() -> None:
    """Lines 10, 12, 16 and 17 of Algorithm 1, with each node's own variate, in float64."""
    rng = np.random.default_rng(0)
    scaffold = prepared(server_lr=0.8)
    x, c = np.zeros(3, np.float32), np.zeros(3)
    own = {node: np.zeros(3) for node in NODES}
    reference = x.astype(np.float64)
    for chosen in (NODES, ("a", "c"), ("b",), ("a", "b", "d")):
        changes = {node: rng.standard_normal(3).astype(np.float32) for node in chosen}
        x = scaffold.aggregate(updates(changes), {"w": x})["w"]
        steps = {node: own[node] - c - change / STEPS for node, change in changes.items()}
        reference = reference + 0.8 * np.mean(list(changes.values()), axis=0)
        c = c + len(chosen) / len(NODES) * np.mean([steps[node] - own[node] for node in chosen], axis=0)
        own |= steps

        assert x == pytest.approx(reference, rel=1e-5)
        assert scaffold.node_tensors()["w"] == pytest.approx(c, rel=1e-4, abs=1e-6)


def test_buffers_are_averaged_and_have_no_variate() -> None:
    """Batch norm's statistics have no gradient."""
    scaffold = prepared()
    sent = [Update("a", 1, {"w": np.float32([1]), "mean": np.float32([2])}, learning_rates=STEPS)]

    found = scaffold.aggregate(sent, {"w": np.float32([0]), "mean": np.float32([5])})

    assert found["mean"][0] == 7
    assert set(scaffold.node_tensors()) == {"w"}


def test_its_variate_is_in_the_breakpoint() -> None:
    """Else the first round after a restart would drift again."""
    first, second = prepared(0.5), Scaffold()
    first.aggregate(updates({"a": np.float32([1, 2, 3])}), {"w": np.zeros(3, np.float32)})
    second.restore(first.state(), first.state_tensors())

    assert second.server_lr == 0.5
    assert np.array_equal(second.node_tensors()["w"], first.node_tensors()["w"])


@pytest.mark.parametrize("arguments", [{}, {"epochs": 1}, {"epochs": 2, "num_updates": 5}])
def test_epochs_are_refused_before_a_round_is_asked_for(arguments: dict[str, int]) -> None:
    """Sites of different size would take steps of different length."""
    with pytest.raises(ExperimentArgumentError, match="counts updates") as caught:
        Scaffold().prepare(Setting(training_args=TrainingArguments(**arguments)))
    assert "num_updates" in caught.value.remedy


@pytest.mark.parametrize("rates", [(0.5, 0.6), (0.5, None), (0.0, 0.0)])
def test_steps_of_different_length_are_an_error_that_names_the_nodes(rates: tuple[float | None, ...]) -> None:
    """A node of an older release does not say them."""
    sent = [Update(node, 1, {"w": np.float32([1])}, rate) for node, rate in zip("ab", rates, strict=True)]
    with pytest.raises(AggregationError, match=r"a: 0\.\d, b: "):
        prepared().aggregate(sent, {"w": np.float32([0])})
