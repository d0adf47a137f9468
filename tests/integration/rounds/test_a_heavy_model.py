"""A model larger than what the parts between researcher and training may take up of memory."""

from __future__ import annotations

from appliance.embedded.consortium import NETWORK
from researcher_kit import Federation
from tests.hospitals import NODES, Hospitals, training_args
from tests.memory import HighWater

WIDTH = 850_000  # 28 million parameters: 112 MB
MOST = 64 << 20


def test_a_large_model_passes_through_small_processes(hospitals: Hospitals, federation: Federation) -> None:
    """Warden and network host live on machines that do other things too, whatever a researcher trains."""
    processes = {
        f"{part} {pid}": HighWater(pid)
        for part in (NETWORK, *NODES)
        for pid, command in hospitals.consortium.processes(part).items()
        if part == NETWORK or "appliance.warden" in command
    }
    experiment = hospitals.experiment(
        federation, model_args={"width": WIDTH}, training_args=training_args(1), round_limit=1
    )

    experiment.run()

    (record,) = experiment.history
    assert [reply.update_bytes > 112_000_000 for reply in record.replies] == [True, True]
    assert {name: high.rise() >> 20 for name, high in processes.items() if high.rise() > MOST} == {}
