"""What a soak came to, computed from what lies on the disks: the nodes' stores, the history, both audit chains."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from appliance.embedded.consortium import NETWORK
from appliance.protocol import chain
from appliance.protocol.rounds import FINAL_STEPS, RoundStep
from appliance.warden.history import History
from researcher_kit import breakpoints
from tests.soak.growth import Growth
from tests.soak.soak import RESEARCHER, Soak

Which = tuple[str, int]  # experiment and round
_NETWORK_DB, _NODE_DB, _RESEARCHER_DB = "store/network.sqlite3", "store/node.db", "store/researcher.db"


@dataclass(frozen=True)
class Verdict:
    """The counts, and what is wrong.

    Attributes:
        accepted: Requests that nodes accepted.
        failed: Accepted requests that ended with a clear error, and were run again.
        completed: Rounds in the researcher's history.
        lost: Rounds that are in nobody's history, and accepted requests that never ended.
        doubled: Rounds done twice by a node, counted twice by the researcher, or recorded twice in a log.
        faults: Everything else that is wrong, a sentence each.
    """

    accepted: int
    failed: int
    completed: int
    lost: int
    doubled: int
    growth: tuple[Growth, ...]
    faults: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Nothing lost, nothing doubled, nothing wrong."""
        return not (self.lost or self.doubled or self.faults or any(growth.is_leak for growth in self.growth))


def judge(soak: Soak) -> Verdict:
    """Look at everything that the soak left; its processes have ended."""
    records = {node: _Node(soak, node) for node in soak.nodes}
    completed, lost, doubled = _histories(soak, records)
    failed = sum((node.failed for node in records.values()), Counter[Which]())
    return Verdict(
        accepted=sum(node.accepted.total() for node in records.values()),
        failed=failed.total(),
        completed=completed,
        lost=lost + sum(node.unfinished for node in records.values()),
        doubled=doubled + sum(node.doubled(failed) for node in records.values()),
        growth=tuple(soak.watch.growth()),
        faults=(*_stores(soak), *_chains(soak), *_leftovers(soak)),
    )


def unfinished(home: Path) -> int:
    """How many accepted rounds of a node have not ended."""
    return sum(entry["step"] not in FINAL_STEPS for entry in History(home).rounds())


class _Node:
    """What one node's store says, counted by experiment and round."""

    def __init__(self, soak: Soak, name: str) -> None:
        history = History(soak.consortium.home(name))
        rounds = history.rounds()
        self.accepted = Counter(_which(entry) for entry in rounds)
        self.replied = Counter(_which(entry) for entry in rounds if entry["step"] == RoundStep.REPLIED)
        self.unfinished = sum(entry["step"] not in FINAL_STEPS for entry in rounds)
        self.failed = self.accepted - self.replied
        told = [json.loads(line.text) for line in history.audit_lines()]
        self._told = {
            event: Counter((line["subject"], line["details"]["round"]) for line in told if line["event"] == event)
            for event in ("round.accepted", "round.replied")
        }
        self._left = Counter(_which(line) for line in history.egress() if line["tensors"])

    def doubled(self, failed: Counter[Which]) -> int:
        """Rounds that this node did, told or sent more often than it was asked to, which a failure anywhere excuses."""
        once = Counter(dict.fromkeys(self.accepted, 1))
        excess = (
            self.replied - once - failed,
            self._told["round.accepted"] - self.accepted,
            self._told["round.replied"] - self.replied,
            self._left - self.replied - self.failed,
        )
        return sum(counter.total() for counter in excess)


def _which(entry: dict[str, Any]) -> Which:
    return entry["experiment_id"], entry["round"]


def _histories(soak: Soak, records: dict[str, _Node]) -> tuple[int, int, int]:
    """Rounds completed, lost and doubled, as the researcher's breakpoints have them."""
    completed = lost = doubled = 0
    for index, count in enumerate(soak.counts):
        state, _ = breakpoints.load(soak.folder / str(index))
        rounds = Counter(record.round for record in state.history)
        completed += len(rounds)
        lost += len(set(range(1, count + 1)) - rounds.keys())
        doubled += sum(times - 1 for times in rounds.values())
        for record in state.history:
            givers = Counter(reply.node_id for reply in record.replies)
            doubled += sum(times - 1 for times in givers.values())
            lost += sum(not givers[node] for node in soak.nodes)
            lost += sum(not records[node].replied[state.experiment_id, record.round] for node in givers)
    return completed, lost, doubled


def _stores(soak: Soak) -> Iterator[str]:
    home = soak.consortium.home
    for path in (
        *(home(node) / _NODE_DB for node in soak.nodes),
        home(NETWORK) / _NETWORK_DB,
        home(RESEARCHER) / _RESEARCHER_DB,
    ):
        with closing(sqlite3.connect(path)) as connection:
            said = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if said != "ok":
            yield f"{path}: {said}"


def _chains(soak: Soak) -> Iterator[str]:
    for node in soak.nodes:
        yield from _chain_fault(node, History(soak.consortium.home(node)).audit_lines())
    with closing(sqlite3.connect(soak.consortium.home(NETWORK) / _NETWORK_DB)) as connection:
        rows = connection.execute("SELECT text, hash FROM audit_auditline ORDER BY n").fetchall()
    yield from _chain_fault(NETWORK, (chain.Line(*row) for row in rows))


def _chain_fault(name: str, lines: Iterator[chain.Line]) -> Iterator[str]:
    found = chain.verify(lines)
    if not found.is_whole:
        yield f"The audit log of {name} is altered at line {found.altered_line}: {found.reason}."
    elif not found.lines:
        yield f"The audit log of {name} is empty."


def _leftovers(soak: Soak) -> Iterator[str]:
    """Processes and files that should have gone."""
    root = soak.consortium.root
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter(["cmdline"]):
        if process.pid not in ours and any(str(root) in part for part in process.info["cmdline"] or ()):
            yield f"Process {process.pid} is left: {' '.join(process.info['cmdline'])[:200]}"
    folders = [soak.consortium.home(node) / name for node in soak.nodes for name in ("spool", "scratch")]
    folders += [*soak.folder.glob("*/spool")]
    for folder in folders:
        for path in folder.rglob("*"):
            if not path.is_dir():
                yield f"{path} is left."
    network = soak.consortium.home(NETWORK)
    with closing(sqlite3.connect(network / _NETWORK_DB)) as connection:
        known = {row[0] for row in connection.execute("SELECT id FROM parameters_upload")}
    for name in ("uploads", "parameters"):
        for path in (network / "store" / name).glob("*"):
            if path.name not in known:
                yield f"{path} belongs to no upload."
