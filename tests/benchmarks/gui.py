"""How long the GUI's pages take at a hospital of many years.

    python -m tests.benchmarks.gui [--lines N]

Fills a store with 200 datasets, 500 plans, 10 000 rounds and a million lines of audit log, opens each page 40 times and
prints the median and the 95th percentile in milliseconds, and the processor time that a page takes. The warden is a
fake that answers at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from appliance.protocol import chain
from appliance.warden.store import Store, audit, datasets, egress, permissions, plan_decisions, plans, rounds
from node_gui.access import Role
from node_gui.app import create_app
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from tests.unit.node_gui.conftest import FAST, FakeWarden, Gui

DATASETS, PLANS, EXPERIMENTS, ROUNDS = 200, 500, 250, 40
TIMES = 40
PLAN = Path(__file__).with_name("plan.py")
NOW = 1_770_000_000.0


def main() -> None:
    """Fill a store and time the pages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=1_000_000)
    lines = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store = Store(home / "store")
        fill(store, lines)
        warden = FakeWarden()
        warden.answers |= {"policy.show": [], "node.status": warden.answers["node.status"]}
        gui = Gui(create_app(GuiConfig(), warden, home, hasher=FAST), warden, home)
        show(gui)
        gui.app.extensions[EXTENSION].close()
        store.close()


def fill(store: Store, lines: int) -> None:
    """All that the years left."""
    text = PLAN.read_text()
    hashes = [hashlib.sha256(f"{text}# {n}\n".encode()).hexdigest() for n in range(PLANS)]
    with store.write() as connection:
        connection.execute(datasets.insert(), [_dataset(n) for n in range(DATASETS)])
        connection.execute(
            permissions.insert(),
            [
                {"dataset_id": f"d{n}", "researcher": "alice", "until": None, "granted_by": "Dora", "granted_at": NOW}
                for n in range(DATASETS)
            ],
        )
        connection.execute(plans.insert(), [_plan(n, hashes[n], f"{text}# {n}\n") for n in range(PLANS)])
        connection.execute(
            plan_decisions.insert(),
            [
                {
                    "sha256": h,
                    "staff": "Rita",
                    "at": NOW,
                    "decision": "approved",
                    "note": "",
                    "until": None,
                    "ranges": [],
                }
                for h in hashes
            ],
        )
        connection.execute(rounds.insert(), [_round(e, r, hashes) for e in range(EXPERIMENTS) for r in range(ROUNDS)])
        connection.execute(egress.insert(), [_left(e, r) for e in range(EXPERIMENTS) for r in range(ROUNDS)])
        batch = []
        for row in _audit(lines):
            batch.append(row)
            if len(batch) == 10_000:
                connection.execute(audit.insert(), batch)
                batch = []
        if batch:
            connection.execute(audit.insert(), batch)


def show(gui: Gui) -> None:
    """Open each page and print how long it took."""
    browser = gui.signed_in(Role.AUDITOR)
    one = hashlib.sha256(f"{PLAN.read_text()}# 7\n".encode()).hexdigest()
    paths = [
        "/",
        "/plans/",
        "/plans/?search=plan+7",
        f"/plans/{one}",
        f"/plans/{one}/changes",
        "/datasets/",
        "/datasets/d7",
        "/experiments/",
        "/experiments/?page=4",
        "/experiments/e-7",
        "/what-left/",
        "/what-left/?experiment=e-7",
        "/what-left/?what=all&page=40",
        "/audit/",
        "/audit/?search=nothing+like+this",
        "/audit/?subject=e-7",
        "/audit/?since=2020-01-01&until=2030-01-01",
        "/policy/",
        "/members/",
        "/health/",
    ]
    table = Table("page", "median ms", "95th percentile ms", "processor ms")
    for path in paths:
        browser.get(path)
        times = []
        busy = time.process_time()
        for _ in range(TIMES):
            began = time.perf_counter()
            reply = browser.get(path)
            times.append((time.perf_counter() - began) * 1000)
        state = "" if reply.status_code == 200 else f" ({reply.status_code})"
        busy = (time.process_time() - busy) * 1000 / TIMES
        percentile = statistics.quantiles(times, n=20)[-1]
        table.add_row(path[:60] + state, f"{statistics.median(times):.0f}", f"{percentile:.0f}", f"{busy:.0f}")
    Console(width=110).print(table)


def _dataset(n: int) -> dict[str, object]:
    columns = [{"name": f"c{c}", "type": "number"} for c in range(30)]
    return {
        "id": f"d{n}", "name": f"dataset {n}", "kind": "tabular", "path": f"/data/{n}.csv", "description": "x" * 200,
        "tags": ["opt"], "loading_plan": {}, "columns": columns, "rows": 1000, "fingerprint": "a" * 64,
        "state": "active", "added_by": "Dora", "added_at": NOW,
    }  # fmt: skip


def _plan(n: int, sha256: str, source: str) -> dict[str, object]:
    return {
        "sha256": sha256, "name": f"plan {n % 100}", "description": "", "source": source, "origin": "researcher",
        "requested_by": "alice", "requested_at": NOW + n, "asked_ranges": [], "state": "approved", "reviewer": "Rita",
        "note": "", "decided_at": NOW + n, "ranges": [],
    }  # fmt: skip


def _round(experiment: int, number: int, hashes: list[str]) -> dict[str, object]:
    metrics = [{"stage": "local", "samples": 200, "values": {"auc": 0.5 + number / 100}}]
    reply = json.dumps({"sample_count": 800, "metrics": metrics})
    at = NOW + experiment * 5000 + number * 100
    return {
        "jti": f"{experiment}-{number}", "researcher": "alice", "experiment_id": f"e-{experiment}", "round": number + 1,
        "dataset_id": f"d{experiment % DATASETS}", "plan_sha256": hashes[experiment % PLANS],
        "request": json.dumps({"round_limit": ROUNDS, "training_args": {"epochs": 1}, "padding": "x" * 1500}),
        "step": "replied", "accepted_at": at, "ended_at": at + 50, "training_args": {"epochs": 1}, "overrides": [],
        "timing": {"train_s": 40.0}, "result": {"reply": reply}, "record": "x" * 500,
    }  # fmt: skip


def _left(experiment: int, number: int) -> dict[str, object]:
    return {
        "at": NOW + experiment * 5000 + number * 100 + 50, "recipient": "alice", "kind": "upload",
        "experiment_id": f"e-{experiment}", "round": number + 1, "tensors": 8, "norm": 1.5, "size_bytes": 40_000,
        "sha256": "b" * 64,
    }  # fmt: skip


def _audit(lines: int) -> Iterator[dict[str, object]]:
    head = chain.GENESIS
    for n in range(1, lines + 1):
        details = {"round": n % 40, "to": "alice", "samples": 800, "update_sha256": "c" * 64}
        line = chain.append(
            head, n, at=NOW + n, actor="node", event="round.replied", subject=f"e-{n % EXPERIMENTS}", details=details
        )
        head = line.hash
        yield {"n": n, "text": line.text, "hash": line.hash}


if __name__ == "__main__":
    main()
