"""Aggregators that hostile nodes cannot move far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from researcher_kit.aggregators import Aggregator, CoordinateMedian, FedAverage, Krum, TrimmedMean, Update
from researcher_kit.errors import AggregationError, ExperimentArgumentError

values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9)


def aggregated(aggregator: Aggregator, numbers: list[float] | np.ndarray) -> np.ndarray:
    """What becomes of a model of noughts when each node adds one of these."""
    updates = [Update(f"node-{i}", 1, {"w": np.atleast_1d(np.float32(v))}) for i, v in enumerate(numbers)]
    return aggregator.aggregate(updates, {"w": np.zeros_like(updates[0]["w"])})["w"]


@given(values)
def test_the_median_is_numpys(numbers: list[float]) -> None:
    """Of any number of nodes."""
    assert aggregated(CoordinateMedian(), numbers)[0] == np.float32(np.median(np.float32(numbers).astype(np.float64)))


@given(values, st.floats(0, 0.49))
def test_the_trimmed_mean_leaves_out_both_ends(numbers: list[float], share: float) -> None:
    """As many at either end as the share says, rounded down."""
    cut = int(round(share * len(numbers), 9))
    middle = np.sort(np.float32(numbers).astype(np.float64))[cut : len(numbers) - cut]

    assert aggregated(TrimmedMean(share), numbers)[0] == pytest.approx(np.float32(middle.mean()), rel=1e-6, abs=1e-30)


def test_three_tenths_of_ten_are_three() -> None:
    """In binary 0.3 * 10 may be a little less."""
    assert aggregated(TrimmedMean(0.3), [*[-1e9] * 3, 1, 1, 1, 1, *[1e9] * 3])[0] == 1


@pytest.mark.parametrize("hostile", [0, 4, 8])
@pytest.mark.parametrize("kind", [CoordinateMedian(), TrimmedMean(0.25), Krum(faulty=2), Krum(faulty=2, keep=3)])
def test_two_hostile_nodes_of_nine_do_not_move_the_model(kind: Aggregator, hostile: int) -> None:
    """Wherever they stand in the list; the mean follows them."""
    rng = np.random.default_rng(1)
    numbers = rng.normal(1.0, 0.01, (9, 50)).astype(np.float32)
    numbers[[hostile, (hostile + 1) % 9]] = [[1e9], [30.0]]

    assert np.abs(aggregated(kind, numbers) - 1.0).max() < 0.05
    assert np.abs(aggregated(FedAverage(), numbers) - 1.0).max() > 1e6


def test_one_far_away_node_does_not_hide_the_distances_between_the_others() -> None:
    """Products of huge numbers would round them away, and a second hostile node could pass for a neighbour."""
    rng = np.random.default_rng(2)
    numbers = rng.normal(0.0, 0.01, (7, 20)).astype(np.float32)
    numbers[0], numbers[1] = 1e12, 5.0
    scores = Krum._squared_distances(
        [Update(str(i), 1, {"w": row}) for i, row in enumerate(numbers)], {"w": numbers[0]}
    )
    exact = np.square(numbers[1:, None].astype(np.float64) - numbers[None, 1:]).sum(-1)

    assert scores[1:, 1:] == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_krum_with_too_few_updates_says_how_many_it_needs() -> None:
    """It could not tell friend from foe."""
    with pytest.raises(AggregationError, match="needs 5 updates in a round; there were 4"):
        aggregated(Krum(faulty=1), [1, 2, 3, 4])


def test_integers_stay_integers() -> None:
    """A counter of batches has a median, too."""
    updates = [Update(str(v), 1, {"n": np.int64(v)}) for v in (3, 4, 9, 10)]
    for kind, expected in ((CoordinateMedian(), 6), (TrimmedMean(0.25), 6), (Krum(faulty=0), 3)):
        found = kind.aggregate(updates, {"n": np.int64(0)[()] + np.zeros((), np.int64)})["n"]
        assert (found.dtype, found.shape, int(found)) == (np.int64, (), expected)


@pytest.mark.parametrize("make", [lambda: TrimmedMean(0.5), lambda: Krum(-1), lambda: Krum(1, 0), lambda: Krum(True)])
def test_an_argument_out_of_its_range_is_refused(make: object) -> None:
    """Half at either end would leave nobody."""
    with pytest.raises(ExperimentArgumentError, match="expected"):
        make()  # type: ignore[operator]
