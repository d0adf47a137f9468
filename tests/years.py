"""What many years leave in a node's store: true rows in the store's own tables, written in bulk.

For the benchmark of the GUI, and for the test that holds that no page's work grows with the years.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from appliance.protocol import chain
from appliance.protocol.messages import CARD_TEXT
from appliance.warden.history import MODELS_FOLDER
from appliance.warden.models import AT_MOST
from appliance.warden.store import (
    Store,
    audit,
    datasets,
    egress,
    measures,
    models,
    pauses,
    permissions,
    plan_decisions,
    plans,
    rounds,
)

BEGAN = 1_600_000_000.0
YEARS_S = 5 * 365 * 86_400.0
RESEARCHERS = tuple(f"researcher-{n}" for n in range(12))
WAITING = 3  # experiments with a round that waits
FAILED_EVERY = 25  # rounds of an experiment
NAMES = 100  # of plans; each has several versions
_TEXT = Path(__file__).with_name("benchmarks") / "plan.py"
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Size:
    """How much the years left.

    Attributes:
        rounds: Of all experiments; a tenth of them is one experiment's.
        lines: Of the audit log.
    """

    datasets: int = 200
    plans: int = 500
    experiments: int = 500
    rounds: int = 10_000
    lines: int = 1_000_000


def fill(store: Store, size: Size) -> None:
    """Write all of it, the oldest first, into an empty store."""
    _insert(store, datasets, map(_dataset, range(size.datasets)))
    _insert(store, permissions, (_permission(n, who) for n in range(size.datasets) for who in range(3)))
    _insert(store, plans, map(_plan, range(size.plans)))
    _insert(store, plan_decisions, map(_decision, range(size.plans)))
    _insert(store, rounds, _rounds(size))
    _insert(store, measures, _measures(size))
    _insert(store, pauses, _pauses(size))
    _insert(store, models, map(_model, range(AT_MOST)))
    _write_card(store.path.parent.parent / MODELS_FOLDER / "m7")
    _insert(store, egress, _egress(size))
    _insert(store, audit, _audit(size))


def plan_hash(n: int) -> str:
    """The hash of the n-th plan's text."""
    return hashlib.sha256(_text(n).encode()).hexdigest()


def _insert(store: Store, table: sa.Table, found: Iterator[dict[str, object]]) -> None:
    with store.write() as connection:
        while batch := list(itertools.islice(found, _AT_ONCE)):
            connection.execute(table.insert(), batch)


def _dataset(n: int) -> dict[str, object]:
    columns = [{"name": f"measured value {c}", "type": "number"} for c in range(40)]
    return {
        "id": f"d{n}", "name": f"{('scans', 'laboratory', 'outcomes')[n % 3]} of ward {n}", "kind": "tabular",
        "path": f"ward-{n}/export.csv", "description": f"What ward {n} measured. " * 8,
        "tags": ["opt", f"ward-{n % 20}"],
        "loading_plan": {"columns": columns}, "columns": columns, "rows": 1000 + n, "fingerprint": _hash(f"file {n}"),
        "state": "suspended" if n % 40 == 3 else "changed" if n % 90 == 4 else "active", "added_by": "Dora Data",
        "added_at": BEGAN + n * 86_400,
    }  # fmt: skip


def _model(n: int) -> dict[str, object]:
    return {
        "jti": f"m{n}", "researcher": RESEARCHERS[n % len(RESEARCHERS)], "experiment_id": f"e-{n:05}",
        "name": f"Risk of readmission, version {n}", "size_bytes": 28_900_000, "asked_at": BEGAN + n * 86_400,
        "kept_at": BEGAN + n * 86_400 + 60, "sha256": _hash(f"model {n}"), "parameters": 7_200_000, "rounds": 40,
        "plan_sha256": plan_hash(n),
    }  # fmt: skip


def _write_card(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / CARD_TEXT).write_text("# Risk of readmission\n" + "| north | 0.81 |\n" * 400)


def _permission(n: int, who: int) -> dict[str, object]:
    return {
        "dataset_id": f"d{n}", "researcher": RESEARCHERS[(n + who) % len(RESEARCHERS)],
        "until": None if who else BEGAN + 2 * YEARS_S, "granted_by": "Dora Data", "granted_at": BEGAN + n * 86_400,
    }  # fmt: skip


def _text(n: int) -> str:
    """A plan of some 150 lines, a few of which differ from its version before."""
    parts = (f"{_TEXT.read_text()}\n# part {part}, version {n // NAMES}\n" for part in range(n % 4 + 2))
    return f"# plan {n % NAMES}\n{''.join(parts)}"


def _plan(n: int) -> dict[str, object]:
    state = "pending" if n % 45 == 44 else "rejected" if n % 30 == 29 else "approved"
    at = BEGAN + n * YEARS_S / 1000
    return {
        "sha256": plan_hash(n), "name": f"plan {n % NAMES}", "description": "Predicts an outcome.", "source": _text(n),
        "origin": "researcher", "requested_by": RESEARCHERS[n % len(RESEARCHERS)], "requested_at": at,
        "asked_ranges": [{"name": "epochs", "minimum": 1, "maximum": 9, "allowed": None}], "state": state,
        "reviewer": None if state == "pending" else "Rita Review", "note": "Read it.",
        "decided_at": None if state == "pending" else at + 3600, "until": BEGAN + YEARS_S if n % 5 == 0 else None,
        "ranges": [],
    }  # fmt: skip


def _decision(n: int) -> dict[str, object]:
    plan = _plan(n)
    decision = "rejected" if plan["state"] == "rejected" else "approved"
    at = BEGAN + n * YEARS_S / 1000 + 3600
    return {
        "sha256": plan["sha256"], "staff": "Rita Review", "at": at, "decision": decision, "note": "Read it.",
        "until": plan["until"], "ranges": [],
    }  # fmt: skip


def _timeline(size: Size) -> Iterator[tuple[int, int, int, float]]:
    """Experiment, round (from 1), how many that experiment has, and when, over all rounds in their order."""
    long = size.rounds // 10
    each, more = divmod(size.rounds - long, size.experiments - 1)
    at, step = BEGAN, YEARS_S / size.rounds
    for experiment in range(size.experiments):
        count = long if experiment == 0 else each + (experiment <= more)
        for number in range(1, count + 1):
            at += step
            yield experiment, number, count, at


def _rounds(size: Size) -> Iterator[dict[str, object]]:
    hashes = [plan_hash(n) for n in range(size.plans)]
    for experiment, number, count, at in _timeline(size):
        values = {"auc": 0.5 + number / (count * 2), "loss": 1 / number, "ACCURACY": 0.7}
        metrics = [{"stage": stage, "samples": 200, "values": values} for stage in ("global", "local")]
        reply = json.dumps({"sample_count": 800, "metrics": metrics, "update": None, "timing": {"train_s": 40.0}})
        waits = experiment >= size.experiments - WAITING and number == count
        has_failed = number % FAILED_EVERY == 0 and not waits
        request = {"round": number, "round_limit": count, "training_args": {"epochs": 1}, "padding": "x" * 1500}
        yield {
            "jti": f"{experiment:05}-{number:05}", "researcher": _researcher(experiment),
            "experiment_id": f"e-{experiment:05}", "round": number, "dataset_id": f"d{experiment % size.datasets}",
            "plan_sha256": hashes[experiment % size.plans], "request": json.dumps(request),
            "step": "accepted" if waits else "failed" if has_failed else "replied", "asked_at": at, "accepted_at": at,
            "expires_at": at + 604_800, "ended_at": None if waits else at + 50, "training_args": {"epochs": 1},
            "overrides": [], "timing": {} if waits else {"queued_s": 2.0, "train_s": 40.0, "upload_s": 3.0},
            "result": None if waits or has_failed else {"reply": reply}, "record": "epoch 1 done\n" * 20,
        }  # fmt: skip


def _measures(size: Size) -> Iterator[dict[str, object]]:
    """Of each round that has ended its memory, and the loss inside it."""
    curve = [[update, 1 / update] for update in range(1, 60)]
    for experiment, number, _, _ in _timeline(size):
        yield {"jti": f"{experiment:05}-{number:05}", "memory_bytes": 900_000_000 + number, "loss": curve}


def _pauses(size: Size) -> Iterator[dict[str, object]]:
    """One of an experiment whose round waits for it, and of some that have gone quiet."""
    for experiment in range(9, size.experiments, 10):
        yield {"experiment_id": f"e-{experiment:05}", "staff": "Dora Data", "since": BEGAN + YEARS_S}


def _egress(size: Size) -> Iterator[dict[str, object]]:
    """Of each round an update, two reports of its progress and its answer; now and then an answer to a search."""
    for place, (experiment, number, _, at) in enumerate(_timeline(size)):
        common = {"recipient": _researcher(experiment), "experiment_id": f"e-{experiment:05}", "round": number}
        common |= {"tensors": None, "norm": None, "size_bytes": 900}
        if place % 10 == 0:
            nobody = {"experiment_id": None, "round": None}
            yield common | nobody | {"at": at, "kind": "datasets", "sha256": _hash(f"found {place}")}
        for part in range(2):
            yield common | {"at": at + part, "kind": "scalar", "sha256": _hash(f"scalar {place} {part}")}
        update = {"tensors": 8, "norm": 1.5 + 1 / number, "size_bytes": 40_000}
        yield common | update | {"at": at + 49, "kind": "upload", "sha256": _hash(f"update {place}")}
        yield common | {"at": at + 50, "kind": "train-reply", "sha256": _hash(f"reply {place}")}


def _audit(size: Size) -> Iterator[dict[str, object]]:
    """Rounds and now and then a dataset, an account or a refused message, over all the years."""
    head = chain.GENESIS
    step = YEARS_S / size.lines
    order = [f"e-{experiment:05}" for experiment, *_ in _timeline(size)]
    for n in range(1, size.lines + 1):
        subject = order[n * len(order) // (size.lines + 1)]
        who = _researcher(int(subject[2:]))
        details: dict[str, object] = {"round": n % 40, "to": who, "samples": 800, "update_sha256": "c" * 64}
        event, actor = "round.replied", "node"
        if n % 25 == 0:
            event, actor, subject, details = "account.signed-in", "staff:Rita Review", "Rita Review", {}
        elif n % 40 == 1:
            event, actor, subject = "dataset.checked", "staff:Dora Data", f"d{n % size.datasets}"
            details = {"fingerprint": "a" * 64}
        elif n % 2 == 0:
            event, actor, details = "round.accepted", who, {"round": n % 40, "plan": "b" * 64, "dataset": "d7"}
        line = chain.append(head, n, at=BEGAN + n * step, actor=actor, event=event, subject=subject, details=details)
        head = line.hash
        yield {"n": n, "text": line.text, "hash": line.hash}


def _researcher(experiment: int) -> str:
    return RESEARCHERS[experiment % len(RESEARCHERS)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
