"""FedAdam, FedYogi and FedAdagrad against their paper's own lines."""

from __future__ import annotations

import numpy as np
import pytest

from researcher_kit.aggregators import Aggregator, FedAdagrad, FedAdam, FedYogi, Setting, Update
from researcher_kit.errors import ExperimentArgumentError

RNG = np.random.default_rng(0)
ROUNDS = RNG.standard_normal((5, 7)).astype(np.float32)  # one mean update for each round


def by_the_paper(kind: str, beta_1: float, beta_2: float, tau: float, server_lr: float) -> np.ndarray:
    """Algorithm 2 of Reddi et al., word by word, in float64."""
    x, m, v = np.zeros(7), np.zeros(7), np.full(7, tau**2)
    for change in ROUNDS.astype(np.float64):
        m = beta_1 * m + (1 - beta_1) * change
        square = change**2
        v = {
            "adagrad": v + square,
            "yogi": v - (1 - beta_2) * square * np.sign(v - square),
            "adam": beta_2 * v + (1 - beta_2) * square,
        }[kind]
        x = x + server_lr * m / (np.sqrt(v) + tau)
    return x


def run(aggregator: Aggregator, rounds: np.ndarray = ROUNDS, start: np.ndarray | None = None) -> np.ndarray:
    """The parameters after these rounds, in each of which two nodes have the given mean."""
    x = np.zeros(7, np.float32) if start is None else start
    for change in rounds:
        updates = [Update("a", 1, {"w": change + 1}), Update("b", 3, {"w": change - np.float32(1 / 3)})]
        x = aggregator.aggregate(updates, {"w": x})["w"]
    return x


@pytest.mark.parametrize(
    ("aggregator", "kind", "betas"),
    [
        (FedAdam(server_lr=0.1), "adam", (0.9, 0.99)),
        (FedYogi(server_lr=0.1), "yogi", (0.9, 0.99)),
        (FedAdagrad(server_lr=0.1), "adagrad", (0.0, 0.0)),
    ],
)
def test_the_parameters_are_the_papers(aggregator: Aggregator, kind: str, betas: tuple[float, float]) -> None:
    """Five rounds, to the precision of the model's own numbers."""
    assert run(aggregator) == pytest.approx(by_the_paper(kind, *betas, 0.001, 0.1), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", [FedAdam, FedYogi, FedAdagrad])
def test_it_goes_on_from_a_breakpoint_to_the_bit(kind: type[Aggregator]) -> None:
    """Its moments are in the breakpoint, and its arguments too."""
    whole = kind(server_lr=0.05)  # type: ignore[call-arg]
    expected = run(whole)
    first = kind(server_lr=0.05)  # type: ignore[call-arg]
    middle = run(first, ROUNDS[:2])
    second = kind()
    second.restore(first.state(), first.state_tensors())

    assert np.array_equal(run(second, ROUNDS[2:], middle), expected)


def test_buffers_are_averaged() -> None:
    """A running variance that momentum moves becomes negative, and the model gives NaN."""
    aggregator = FedAdam(server_lr=10.0)
    aggregator.prepare(Setting(trained=frozenset({"w"})))
    updates = [Update("a", 1, {"w": np.float32([1]), "var": np.float32([-0.5]), "n": np.int64([4])})]

    found = aggregator.aggregate(updates, {"w": np.float32([0]), "var": np.float32([1]), "n": np.int64([0])})

    assert (found["var"][0], found["n"][0]) == (0.5, 4)
    assert found["w"][0] > 5
    assert set(aggregator.state_tensors()) == {"direction/w", "squares/w"}


@pytest.mark.parametrize(
    ("argument", "value"),
    [("server_lr", 0), ("server_lr", "fast"), ("beta_1", 1.0), ("beta_2", -0.1), ("tau", 0.0), ("tau", float("nan"))],
)
def test_an_argument_out_of_its_range_is_refused(argument: str, value: object) -> None:
    """Before a round is asked for."""
    with pytest.raises(ExperimentArgumentError, match=f"{argument} is"):
        FedAdam(**{argument: value})  # type: ignore[arg-type]
