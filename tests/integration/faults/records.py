"""What must hold of every store and every log once a round is over, whatever happened meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from appliance.embedded.consortium import NETWORK
from appliance.protocol import chain
from appliance.protocol.rounds import RoundStep
from appliance.transport.sqlite import reading_engine
from researcher_kit import Experiment, breakpoints
from researcher_kit.history import RoundRecord
from tests.hospitals import NODES, Hospitals
from tests.integration.network.hosts import wait_until


def rounds_of(folder: Path) -> dict[int, bytes]:
    """The global parameters behind each round of an experiment that keeps all its breakpoints."""
    found = sorted(folder.glob(f"breakpoint_*/{breakpoints.PARAMETERS_FILE}"))
    return {int(path.parent.name.rpartition("_")[2]): path.read_bytes() for path in found}


def require_done_once(
    people: Hospitals, experiment: Experiment | Path, rounds: int = 1, *, told: Collection[int] = ()
) -> None:
    """No round is lost and none is doubled, at the nodes, on the way, and in what was aggregated; all stores are whole.

    Args:
        people: The consortium.
        experiment: It, or its folder.
        rounds: How many it has run.
        told: Those that failed with an error that the researcher was told, and were asked for again.
    """
    if isinstance(experiment, Experiment):
        experiment_id, history = experiment.id, [*experiment.history]
    else:
        state, _ = breakpoints.load(experiment)
        experiment_id, history = state.experiment_id, [*state.history]
    assert [record.round for record in history] == [*range(1, rounds + 1)]
    for record in history:
        assert {reply.node_id for reply in record.replies} == {*NODES}
    for node in NODES:
        _require_node_done_once(people, node, experiment_id, history, set(told))
    require_whole(people)


def _require_node_done_once(
    people: Hospitals, node: str, experiment: str, history: list[RoundRecord], told: set[int]
) -> None:
    expected = [record.round for record in history if record.round not in told]
    rows = people.history(node).rounds(experiment)
    done = [(row["round"], row["step"]) for row in rows if row["round"] not in told]
    assert done == [(number, RoundStep.REPLIED) for number in expected]
    assert told <= {row["round"] for row in rows if row["step"] == RoundStep.REPLIED}
    for event in ("round.accepted", "round.replied"):
        lines = [line["details"]["round"] for line in people.audit(node, event) if line["subject"] == experiment]
        assert [number for number in lines if number not in told] == expected, event
    updates = [line for line in people.history(node).egress() if line["kind"] in ("upload", "enclosed")]
    updates = [line for line in updates if line["experiment_id"] == experiment]
    assert [line["round"] for line in updates if line["round"] not in told] == expected
    completed = Counter(
        line["details"]["sha256"] for line in people.network_audit("upload.completed") if line["actor"] == node
    )
    for line in (line for line in updates if line["kind"] == "upload"):
        # A round that failed elsewhere is stopped here, maybe in the middle of its upload.
        allowed = (0, 1) if line["round"] in told else (1,)
        assert completed[line["sha256"]] in allowed, f"{node}, round {line['round']}"
    wait_until(lambda: not [*(people.home(node) / "spool").iterdir()])  # cleared behind the reply


def require_whole(people: Hospitals) -> None:
    """No store is corrupt, and each log is a chain from its first line to its last."""
    stores = {member: people.home(member) / "store/node.db" for member in NODES}
    stores |= {
        NETWORK: people.home(NETWORK) / "store/network.sqlite3",
        "alice": people.home("alice") / "store/researcher.db",
    }
    for member, path in stores.items():
        assert _read(path, "PRAGMA integrity_check") == [("ok",)], member
    for node in NODES:
        assert chain.verify(people.history(node).audit_lines()).is_whole, node
    lines = _read(stores[NETWORK], "SELECT text, hash FROM audit_auditline ORDER BY n")
    verdict = chain.verify(chain.Line(*line) for line in lines)
    assert verdict.is_whole
    head = _read(stores[NETWORK], "SELECT n, hash FROM audit_audithead")
    assert head[0][0] >= verdict.lines  # lines may follow while we look


def _read(path: Path, query: str) -> list[tuple[Any, ...]]:
    engine = reading_engine(path)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(query)]
    engine.dispose()
    return found
