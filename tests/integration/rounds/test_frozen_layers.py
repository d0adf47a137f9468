"""Transfer learning in real nodes: what travels of a large model of which a small part is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from researcher_kit import Federation
from researcher_kit.frozen import FrozenLayers
from tests.hospitals import Hospitals, bits, training_args

PLAN = Path(__file__).with_name("transfer.py")


def test_frozen_layers_travel_once_and_the_model_is_the_same(
    hospitals: Hospitals, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, also at a hospital that restarts between rounds."""
    for node in ("north", "south"):
        hospitals.staff(node).call("plan.add", name="transfer", source=PLAN.read_text())
    whole, apart = (
        hospitals.experiment(
            federation,
            training_plan_class=None,
            training_plan_file=PLAN,
            model_args={"width": 8},
            training_args=training_args() | {"num_updates": 2},
            round_limit=3,
        )
        for _ in range(2)
    )
    with monkeypatch.context() as patched:
        patched.setattr(FrozenLayers, "are_understood", lambda _self, _nodes: False)
        whole.run()
    apart.run(2)
    hospitals.consortium.kill("north")
    hospitals.consortium.restart("north")
    apart.run()

    assert bits(apart) == bits(whole)
    (kept,) = (hospitals.home("north") / "kept").glob(f"alice/{apart.id}/*/*.sealed")
    sent = [record.parameters_bytes for record in apart.history]
    assert sent[0] - kept.stat().st_size == sent[1] == sent[2] < 1000
    assert all(record.parameters_bytes > kept.stat().st_size for record in whole.history)
