"""The split and the seeds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from appliance.training import derive_seed, fold_indices, split_indices


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_every_sample_is_on_one_side(n: int, ratio: float, seed: int) -> None:
    """Nobody is lost, nobody is tested on what trained."""
    train, test = split_indices(n, ratio, seed)

    assert sorted([*train, *test]) == list(range(n))
    assert len(test) == int(n * ratio + 0.5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0, 1))
def test_a_patient_is_on_one_side(groups: list[int], ratio: float) -> None:
    """A patient's second scan would give the first away."""
    train, test = split_indices(len(groups), ratio, 0, groups=groups)

    assert not {groups[index] for index in train} & {groups[index] for index in test}


def test_the_split_is_the_same_for_ever() -> None:
    """Known answer: another one means that an upgrade mixes training and test patients."""
    assert split_indices(12, 0.25, 5)[1].tolist() == [3, 4, 8]


@given(st.lists(st.integers(0, 9), max_size=80), st.integers(2, 12), st.integers(0, 2**63 - 1))
def test_each_patient_is_held_out_in_one_fold(groups: list[int], folds: int, seed: int) -> None:
    """Cross-validation tests on everybody, once, and on nobody who was trained on."""
    cuts = [fold_indices(len(groups), folds, fold, seed, groups=groups) for fold in range(folds)]

    assert sorted(index for _, held in cuts for index in held) == list(range(len(groups)))
    for train, held in cuts:
        assert not {groups[index] for index in train} & {groups[index] for index in held}


def test_folds_are_of_one_size_and_stay() -> None:
    """Known answer, as for the split; the first of four folds is the split of a quarter."""
    cuts = [fold_indices(10, 4, fold, 5)[1].tolist() for fold in range(4)]

    assert [len(cut) for cut in cuts] == [3, 2, 3, 2]
    assert fold_indices(12, 4, 0, 5)[1].tolist() == [3, 4, 8]


def test_patients_who_are_all_different_split_as_rows_do() -> None:
    """A patient id in a table of one row a patient changes nothing."""
    np.testing.assert_array_equal(split_indices(30, 0.3, 1)[1], split_indices(30, 0.3, 1, groups=range(30))[1])


def test_another_seed_gives_another_split() -> None:
    """Five seeds are five splits."""
    assert split_indices(100, 0.25, 0)[1].tolist() != split_indices(100, 0.25, 1)[1].tolist()


def test_seeds_differ_by_member_and_round_and_stay() -> None:
    """Two nodes must not draw the same noise; a repeated round must."""
    seeds = {derive_seed(0, member, number) for member in ("north", "south") for number in (1, 2)}

    assert len(seeds) == 4
    assert derive_seed(0, "north", 1) == 3_469_447_664_633_047_670
