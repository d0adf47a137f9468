"""A rehearsal and a simulation against the real thing."""

from __future__ import annotations

from researcher_kit import Federation, LocalFederation
from tests.hospitals import NODES, Hospitals, bits, training_args


def test_local_nodes_end_bit_equal_to_hospitals(hospitals: Hospitals, federation: Federation) -> None:
    """What was seen in a rehearsal or a simulation must be what the consortium gives for the same data."""
    arguments = training_args() | {"test_ratio": 0.25, "test_metric": "ACCURACY", "test_on_global_updates": True}
    real = hospitals.experiment(federation, training_args=arguments)
    real.run()
    with LocalFederation({node: hospitals.data(node) / "cells.csv" for node in NODES}) as local:
        rehearsed = hospitals.experiment(local, training_args=arguments)
        rehearsed.run()

        assert bits(rehearsed) == bits(real)
    assert [record.metrics() for record in rehearsed.history] == [record.metrics() for record in real.history]
