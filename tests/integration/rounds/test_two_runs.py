"""The same experiment twice."""

from __future__ import annotations

from researcher_kit import Federation
from tests.hospitals import Hospitals, bits


def test_two_runs_with_one_seed_end_bit_equal(hospitals: Hospitals, federation: Federation) -> None:
    """What a researcher publishes, another must be able to repeat to the last bit."""
    first, second = hospitals.experiment(federation), hospitals.experiment(federation)
    first.run()
    second.run()

    assert bits(first) == bits(second)
