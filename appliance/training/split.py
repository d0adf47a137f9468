"""Which samples are held out for testing, and the seeds of a round.

Both are SHA-256 of what they depend on, so that they are the same in every round, on every machine and with every
version of the libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def split_indices(
    n: int, test_ratio: float, seed: int, *, groups: Sequence[int] | Indices | None = None
) -> tuple[Indices, Indices]:
    """Split samples into training and held-out ones.

    Samples (or patients) are put in the order of their hashes; the first ones are held out, until there are
    ``n * test_ratio`` samples, rounded to the nearest.

    Args:
        n: How many samples there are.
        test_ratio: The share held out, from 0 to 1.
        seed: Another seed gives another split.
        groups: Each sample's patient, of length n: a patient's samples stay together.

    Returns:
        The positions of training and of held-out samples, each ascending; together all of ``0 .. n-1``.
    """
    return _cut(n, 0, int(n * test_ratio + 0.5), seed, groups)


def fold_indices(
    n: int, folds: int, fold: int, seed: int, *, groups: Sequence[int] | Indices | None = None
) -> tuple[Indices, Indices]:
    """Split samples for cross-validation: in the same order of hashes, one of ``folds`` even parts is held out.

    Each sample is held out in exactly one fold, and so is each patient.

    Args:
        n: How many samples there are.
        folds: How many parts, from 2.
        fold: Which one is held out, from 0.
        seed: Another seed gives other parts.
        groups: As for ``split_indices``.

    Returns:
        As ``split_indices``.

    Example:
        >>> sorted(int(held) for fold in range(3) for held in fold_indices(7, 3, fold, seed=1)[1])
        [0, 1, 2, 3, 4, 5, 6]
    """
    first, last = (int(n * part / folds + 0.5) for part in (fold, fold + 1))
    return _cut(n, first, last, seed, groups)


def _cut(n: int, first: int, last: int, seed: int, groups: Sequence[int] | Indices | None) -> tuple[Indices, Indices]:
    """Hold out the groups that begin between two places of the order."""
    labels = np.arange(n, dtype=np.int64) if groups is None else np.asarray(groups, np.int64)
    if len(labels) != n:
        raise ValueError(f"{len(labels)} groups for {n} samples")
    members, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = sorted(range(len(members)), key=lambda position: _digest("split", seed, int(members[position])))
    # How many samples come before each group's turn.
    before = np.cumsum([0, *sizes[order]])[:-1]
    held_out = np.zeros(len(members), np.bool_)
    held_out[np.array(order, np.int64)[(before >= first) & (before < last)]] = True
    is_test = held_out[place]
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def derive_seed(seed: int, member_id: str, round_number: int) -> int:
    """The seed of one member's part in one round, below 2^63."""
    return int.from_bytes(_digest("round", seed, member_id, round_number)[:8]) >> 1


def _digest(*parts: str | int) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
