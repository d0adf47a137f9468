"""The last gate: exactly the model's tensors, and a record of all that left."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.protocol.errors import Code, FedWardError, UpdateRefusedError
from appliance.protocol.local.jobs import Progress
from appliance.protocol.messages import Metrics, Pong, Scalar, TrainReply
from appliance.protocol.numbers import ENGINE_NAMES, MAX_VALUES, bounded
from appliance.protocol.tensors import TensorSpec, tensor_bytes
from appliance.training.metrics import Metric
from appliance.warden.egress import EgressGuard, ProgressGuard
from appliance.warden.history import History
from appliance.warden.policy import PolicyRefusedError
from appliance.warden.store import egress, traffic
from tests.unit.warden.conftest import PLAN, Node

EXPECTED = {
    "w": TensorSpec((3, 2), "float32"),
    "b": TensorSpec((2,), "float64"),
    "steps": TensorSpec((), "int64"),
}
HONEST = {
    "w": np.full((3, 2), 0.5, np.float32),
    "b": np.array([0.0, 2.0]),
    "steps": np.array(7, np.int64),
}


@pytest.fixture
def guard(node: Node) -> EgressGuard:
    """A guard under the release's rules."""
    return EgressGuard(node.services.policy)


def check(guard: EgressGuard, tmp_path: Path, content: Mapping[str, np.ndarray] | bytes) -> float:
    """Let the guard look at a file."""
    file = tmp_path / "update"
    raw = content if isinstance(content, bytes) else tensor_bytes(content)
    file.write_bytes(raw)
    return guard.check(file, EXPECTED, len(raw))


def test_the_expected_tensors_pass_and_their_norm_is_told(guard: EgressGuard, tmp_path: Path) -> None:
    """The record says how far the model moved."""
    assert check(guard, tmp_path, HONEST) == pytest.approx(np.sqrt(6 * 0.25 + 4))


def without(name: str) -> dict[str, np.ndarray]:
    """The honest update less one tensor."""
    return {k: v for k, v in HONEST.items() if k != name}


@pytest.mark.parametrize(
    "update",
    [
        without("b"),
        HONEST | {"patients": np.zeros(3, np.float32)},
        without("b") | {"B": HONEST["b"]},
        HONEST | {"w": np.zeros((2, 3), np.float32)},
        HONEST | {"w": np.zeros((3, 2, 1), np.float32)},
        HONEST | {"w": np.zeros((3, 2), np.float64)},
        HONEST | {"steps": np.array([7], np.int64)},
        HONEST | {"steps": np.array(7, np.int32)},
        HONEST | {"w": np.full((3, 2), np.nan, np.float32)},
        HONEST | {"b": np.array([0.0, np.inf])},
        HONEST | {"b": np.array([0.0, -np.inf])},
        HONEST | {"b": np.array([0.0, 1.1e6])},
        HONEST | {"b": np.array([0.0, -1.1e6])},
        {},
    ],
)
def test_anything_but_the_models_own_tensors_is_refused(
    guard: EgressGuard, tmp_path: Path, update: dict[str, np.ndarray]
) -> None:
    """A name, a shape or a number more could carry a record."""
    with pytest.raises(UpdateRefusedError) as refusal:
        check(guard, tmp_path, update)
    assert refusal.value.code is Code.UPDATE_REFUSED
    assert "patients" not in refusal.value.message


def rewritten(header: dict[str, Any] | None = None, *, tail: bytes = b"", blanks: int = 0) -> bytes:
    """The honest file with another header, or with more behind it."""
    raw = tensor_bytes(HONEST)
    size = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + size]) | (header or {})
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 + blanks)
    return len(text).to_bytes(8, "little") + text + raw[8 + size :] + tail


@pytest.mark.parametrize(
    "raw",
    [
        rewritten({"__metadata__": {"note": "Mrs. Example, 1961"}}),
        rewritten(tail=b"Mrs. Example"),
        rewritten(blanks=8),
        rewritten()[:-1],
        b"",
        b"PK\x03\x04 not tensors at all",
        (1 << 60).to_bytes(8, "little") + b"{}",
    ],
    ids=["metadata", "tail", "blanks", "cut short", "empty", "not tensors", "absurd header"],
)
def test_a_file_with_a_byte_more_or_less_than_its_tensors_is_refused(
    guard: EgressGuard, tmp_path: Path, raw: bytes
) -> None:
    """There is room for text in a tensor file, past every look at the tensors."""
    with pytest.raises(UpdateRefusedError) as refusal:
        check(guard, tmp_path, raw)
    assert refusal.value.code is Code.UPDATE_REFUSED
    assert "Example" not in refusal.value.message


def test_an_update_larger_than_the_rule_is_refused_with_the_rule(
    node: Node, guard: EgressGuard, tmp_path: Path
) -> None:
    """The site sets how much may leave at once."""
    node.services.policy.change({"maximum_update_bytes": 50}, lambda _connection: None)
    with pytest.raises(UpdateRefusedError) as refusal:
        check(guard, tmp_path, HONEST)
    assert refusal.value.rule == "maximum_update_bytes = 50 (set by the site)"


def test_an_update_with_a_value_beyond_the_rule_is_refused_with_the_rule(
    node: Node, guard: EgressGuard, tmp_path: Path
) -> None:
    """A tighter bound leaves less room to hide in."""
    node.services.policy.change({"maximum_value": 1.5}, lambda _connection: None)
    with pytest.raises(UpdateRefusedError) as refusal:
        check(guard, tmp_path, HONEST)
    assert refusal.value.rule == "maximum_value = 1.5 (set by the site)"


def reply(samples: int | None, *metrics: int) -> TrainReply:
    """What would leave beside the tensors."""
    return TrainReply(
        experiment_id="e-1",
        round=1,
        dataset_id="d",
        update=None,
        sample_count=samples,
        metrics=tuple(Metrics(stage="local", samples=m, values={"auc": 0.5}) for m in metrics),
    )


@pytest.mark.parametrize(("samples", "metrics"), [(101, ()), (None, ()), (80, (101,))])
def test_a_count_that_this_dataset_cannot_give_is_refused(
    node: Node, guard: EgressGuard, samples: int | None, metrics: tuple[int, ...]
) -> None:
    """A large number is a place to hide something, and a false weight."""
    with pytest.raises(UpdateRefusedError):
        guard.check_counts(node.train("d"), reply(samples, *metrics), 100)


def test_too_few_samples_after_the_split_are_refused_with_the_rule(node: Node, guard: EgressGuard) -> None:
    """The plan may have held out more than it was asked to."""
    with pytest.raises(PolicyRefusedError) as refusal:
        guard.check_counts(node.train("d"), reply(19), 100)
    assert refusal.value.code is Code.TOO_FEW_SAMPLES
    assert "minimum_samples = 20" in (refusal.value.rule or "")
    guard.check_counts(node.train("d"), reply(20, 80), 100)


@pytest.mark.parametrize("name", ["loss", "AUC", "auc"])
def test_a_metric_named_by_our_engine_or_in_the_plans_text_passes(name: str) -> None:
    """Staff read the text; the engine is ours."""
    assert bounded({name: 0.5}, PLAN) == {name: 0.5}


def test_a_metric_named_while_the_plan_runs_is_refused_and_not_repeated() -> None:
    """It could be a patient's name."""
    with pytest.raises(UpdateRefusedError) as refusal:
        bounded({"auc": 0.5, "mrs.example-1961": 1.0}, PLAN)
    assert "example" not in refusal.value.message


@pytest.mark.parametrize("name", ["au", "uc", "c", "lan", "assert auc", "a.*c"])
def test_a_piece_of_the_plans_text_is_no_name(name: str) -> None:
    """Out of its pieces a text spells anything."""
    with pytest.raises(UpdateRefusedError):
        bounded({name: 0.5}, "class Plan:\n    assert {'auc': 1}\n")


def test_numbers_leave_with_six_digits() -> None:
    """As many as anybody compares; the other ten would be room for a date of birth."""
    found = bounded({"auc": 0.8123456789012345, "loss": 1.9610203e17}, PLAN)

    assert found == {"auc": 0.812346, "loss": 1.96102e17}


def test_a_test_has_few_numbers() -> None:
    """One for each record would be a dataset."""
    words = " ".join(f"m{n}" for n in range(MAX_VALUES + 1))
    values = dict.fromkeys(words.split(), 0.5)

    bounded(dict(list(values.items())[:-1]), words)
    with pytest.raises(UpdateRefusedError, match="at most 16"):
        bounded(values, words)


def test_two_tests_of_one_stage_are_refused(node: Node, guard: EgressGuard) -> None:
    """A test more is room for sixteen numbers more."""
    with pytest.raises(UpdateRefusedError, match="one stage"):
        guard.check_counts(node.train("d"), reply(50, 10, 10), 100)


def step(iteration: int, iterations: int, epoch: int = 1, **values: float) -> Progress:
    """What a runner tells."""
    return Progress(job_id="j", iteration=iteration, iterations=iterations, epoch=epoch, values=values)


def test_progress_that_goes_forward_passes() -> None:
    """Loss by loss."""
    guard = ProgressGuard({"epochs": 2}, rows=100)

    assert guard.check(step(1, 200, loss=0.51234567)) == {"loss": 0.512346}
    assert guard.check(step(150, 200, 2)) == {}


@pytest.mark.parametrize(
    "told",
    [
        [step(1, 201)],
        [step(9, 8)],
        [step(0, 8)],
        [step(2, 8), step(1, 8)],
        [step(1, 8), step(1, 8)],
        [step(1, 8), step(2, 9)],
        [step(2, 8, 2), step(3, 8, 1)],
        [step(1, 8, 2)],
        [step(1, 8, accuracy=0.5)],
    ],
    ids=["too many", "beyond", "none", "back", "again", "other end", "epoch back", "epochs", "other value"],
)
def test_progress_that_no_round_makes_is_refused(told: list[Progress]) -> None:
    """Its counts are numbers from the data's side, too."""
    guard = ProgressGuard({"epochs": 2}, rows=100)
    with pytest.raises(UpdateRefusedError):
        for one in told:
            guard.check(one)


def test_a_header_larger_than_the_models_own_is_not_parsed(guard: EgressGuard, tmp_path: Path) -> None:
    """A hostile one of megabytes becomes gigabytes of objects in the process that holds the keys."""
    expected = EXPECTED | {"w": TensorSpec((1 << 20,), "float32")}
    file = tmp_path / "update"
    file.write_bytes((1 << 20).to_bytes(8, "little") + b"[" * (1 << 20))

    with pytest.raises(UpdateRefusedError, match="header has more than"):
        guard.check(file, expected, file.stat().st_size)


def test_the_engines_names_are_those_that_the_engine_uses() -> None:
    """The warden must not import it, and must not refuse its metrics."""
    assert {metric.value for metric in Metric} | {"loss", "custom"} == ENGINE_NAMES


# The record


def test_a_message_is_recorded_with_time_recipient_kind_size_and_hash(node: Node, dataset_id: str) -> None:
    """Every byte that leaves: when, to whom, what, how large, which."""
    signed = node.sign("alice", Pong(sequence=1))
    with node.store.write() as connection:
        node.services.egress.message(connection, signed)
    line = node.table(egress)[0]
    assert (line["recipient"], line["kind"]) == ("north", "pong")
    assert (line["size_bytes"], line["sha256"]) == (
        len(signed.text),
        hashlib.sha256(signed.text.encode()).hexdigest(),
    )
    assert abs(line["at"] - node.clock()) < 60


def test_progress_is_recorded_with_the_next_flush(node: Node) -> None:
    """A loss tells of the data, too."""
    scalar = Scalar(
        experiment_id="e-1", round=2, split="train", iteration=1, iterations=2, epoch=1, values={"loss": 0.5}
    )
    node.services.egress.message_later(node.sign("north", scalar))
    assert node.table(egress) == []
    node.services.egress.flush(node.store)
    assert [(line["kind"], line["experiment_id"], line["round"]) for line in node.table(egress)] == [
        ("scalar", "e-1", 2)
    ]


def test_the_days_traffic_adds_up_over_flushes(node: Node) -> None:
    """Repeats and Receipts have no line of their own; their bytes are counted."""
    log = node.services.egress
    for size in (10, 20):
        log.count("to/alice/from/north/receipt", "x" * size)
        log.flush(node.store)
    log.count("to/mallory/from/north/receipt", "xyz")
    log.flush(node.store)
    found = {(line["recipient"], line["kind"]): (line["messages"], line["size_bytes"]) for line in node.table(traffic)}
    assert found == {("alice", "receipt"): (2, 30), ("mallory", "receipt"): (1, 3)}


def test_another_day_has_another_line(node: Node) -> None:
    """The record says when."""
    node.services.egress.count("to/alice/from/north/receipt", "x")
    node.services.egress.flush(node.store)
    node.clock.ahead_s = 86_400
    node.services.egress.count("to/alice/from/north/receipt", "x")
    node.services.egress.flush(node.store)
    assert len(node.table(traffic)) == 2


def test_what_a_full_disk_refused_is_written_later(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that left must not be forgotten because the disk was full."""
    log = node.services.egress
    log.count("to/alice/from/north/pong", "xyz")
    log.message_later(node.sign("north", Pong(sequence=1)))
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise FedWardError("full", code=Code.DISK_FULL)

        patch.setattr(log, "_add_traffic", full)
        with pytest.raises(FedWardError):
            log.flush(node.store)
    log.count("to/alice/from/north/pong", "xyz")
    log.flush(node.store)
    assert [(line["messages"], line["size_bytes"]) for line in History(node.root).traffic()] == [(2, 6)]
    assert len(History(node.root).egress()) == 1


def test_threads_that_count_lose_nothing(node: Node) -> None:
    """Workers and the desk send at once."""
    log = node.services.egress

    def send() -> None:
        for _ in range(200):
            log.count("to/alice/from/north/scalar", "xx")

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    log.flush(node.store)
    for thread in threads:
        thread.join()
    log.flush(node.store)
    assert [(line["messages"], line["size_bytes"]) for line in node.table(traffic)] == [(1600, 3200)]
