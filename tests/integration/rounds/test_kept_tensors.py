"""What a node keeps of an experiment between its rounds, in real nodes."""

from __future__ import annotations

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.tensors import TensorFile
from researcher_kit import Federation, Scaffold
from researcher_kit.errors import NodeFailedError
from tests.hospitals import NODES, Hospitals, bits, training_args


def test_scaffold_ends_bit_equal_when_a_hospital_restarts_between_rounds(
    hospitals: Hospitals, federation: Federation
) -> None:
    """Its control variate lies on the node's disk, and goes on from there."""
    undisturbed, disturbed = (hospitals.experiment(federation, aggregator=Scaffold(), round_limit=3) for _ in range(2))
    undisturbed.run()
    disturbed.run(2)
    hospitals.consortium.kill("north")
    hospitals.consortium.restart("north")
    disturbed.run()

    assert bits(disturbed) == bits(undisturbed)
    for node in NODES:
        (kept,) = (hospitals.home(node) / "kept").glob(f"alice/{undisturbed.id}/*/3.safetensors")
        file = TensorFile(kept)
        assert set(file) == {f"correction/{name}" for name in undisturbed.parameters()}
        assert any(file[name].any() for name in file)
        assert kept.parent.stat().st_mode & 0o077 == 0


def test_scaffold_is_another_training_than_plain_averaging(hospitals: Hospitals, federation: Federation) -> None:
    """From the second round on, gradients are corrected: else the nodes would have ignored the aggregator."""
    averaged = hospitals.experiment(federation, aggregator=Scaffold(), round_limit=2)
    averaged.run(1)
    first = bits(averaged)
    averaged.run()
    plain = hospitals.experiment(federation, round_limit=2)
    plain.run()

    assert first != bits(averaged) != bits(plain)


def test_an_aggregator_that_asks_for_what_no_node_knows_is_refused(
    hospitals: Hospitals, federation: Federation
) -> None:
    """By the hospital, with a word that says so."""

    class Odd(Scaffold):
        def create_aggregator_args(self):  # type: ignore[no-untyped-def]
            return {"correction": "magic"}

    experiment = hospitals.experiment(federation, aggregator=Odd(), training_args=training_args(), round_limit=1)
    with pytest.raises(NodeFailedError) as caught:
        experiment.run()
    assert {failure.code for failure in caught.value.failures} == {Code.ARGUMENT_INVALID}
