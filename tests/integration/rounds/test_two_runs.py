"""The same experiment twice."""

from __future__ import annotations

from researcher_kit import Federation
from tests.hospitals import Hospitals


def test_two_runs_with_one_seed_end_bit_equal(hospitals: Hospitals, federation: Federation) -> None:
    """What a researcher publishes, another must be able to repeat to the last bit."""
    first, second = hospitals.experiment(federation), hospitals.experiment(federation)
    first.run()
    second.run()

    ours, theirs = first.parameters(), second.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
