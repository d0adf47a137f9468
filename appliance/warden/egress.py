"""The last gate: what an update must be before it may leave, and the record of every byte that left."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.sqlite import insert

from appliance.protocol.counts import HISTOGRAMS, Counts, CountsForm, form_of
from appliance.protocol.envelope import Clock, Signed, Signer
from appliance.protocol.errors import TensorFileError, UpdateRefusedError
from appliance.protocol.messages import Metrics, Reached, SealedFile, Train, TrainReply
from appliance.protocol.numbers import bounded, require_names, rounded
from appliance.protocol.tensors import TensorFile, TensorSpec, data_bytes, most_header_bytes, require_finite
from appliance.protocol.topics import parse_topic
from appliance.transport.sqlite import Statement
from appliance.warden.history import EgressFilter, egress_text
from appliance.warden.policy import Policy
from appliance.warden.store import Store, egress, traffic

_RECORD = Statement(egress.insert())
EXPORT_TYPE = "fedward-egress-export+jws"


class EgressGuard:
    """Checks an update against the parameters that it answers; trusts nothing that the runner says of it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def check(self, path: Path, expected: dict[str, TensorSpec], size_bytes: int) -> float:
        """Raise unless the update is exactly what the model's parameters lead to expect.

        Args:
            path: The tensor file that would leave; it must not change any more.
            expected: Names, shapes and types of the global parameters.
            size_bytes: Of the update's file.

        Returns:
            The L2 norm over all floating-point tensors.

        Raises:
            UpdateRefusedError: Names, shapes, types, size or values are not as they must be.
        """
        largest = self._policy.rule("maximum_update_bytes")
        if size_bytes > min(largest.value, data_bytes(expected) + most_header_bytes(expected)):
            raise UpdateRefusedError(
                f"The update has {size_bytes} bytes, more than its tensors need.", rule=str(largest)
            )
        bound = self._policy.rule("maximum_value")
        try:
            update = TensorFile(path, max_header_bytes=most_header_bytes(expected))
            update.require(expected)
            return require_finite(update, maximum=bound.value)
        except TensorFileError as error:
            raise UpdateRefusedError(error.message, rule=str(bound)) from error

    def check_kept(self, size_bytes: int) -> None:
        """Raise UpdateRefusedError unless what shall stay here between rounds is of a size that the node allows."""
        largest = self._policy.rule("maximum_update_bytes")
        if size_bytes > largest.value:
            message = f"The plan would keep {size_bytes} bytes at the node between rounds, more than it allows."
            raise UpdateRefusedError(message, rule=str(largest))

    def check_counts(self, request: Train, reply: TrainReply, rows: int) -> None:
        """Raise unless counts and metrics are ones that this dataset can have produced."""
        samples = reply.sample_count
        if request.train:
            if samples is None or samples > rows:
                raise UpdateRefusedError("The sample count is larger than the dataset.")
            self._policy.require_samples(samples)
        stages = [metrics.stage for metrics in reply.metrics]
        if len(set(stages)) != len(stages):
            raise UpdateRefusedError("There are two tests of one stage.")
        if any(metrics.samples > rows for metrics in reply.metrics):
            raise UpdateRefusedError("A metric counts more records than the dataset has.")


def released(metrics: Metrics, plan: str, policy: Policy) -> Metrics:
    """A test's values and counts as they may leave.

    Counts leave where the node's policy says so, of no fewer records than may be trained on, and without small cells:
    they are merged with their neighbours in histograms of scores and withheld in those of probabilities; of a class
    with too few records nothing is counted.

    Raises:
        UpdateRefusedError: As ``bounded`` does, for the names of counts as well; or counts of another metric's form.
    """
    require_names(metrics.values | metrics.counts, plan)
    if any(each.form is not form_of(name) for name, each in metrics.counts.items()):
        raise UpdateRefusedError("A metric's counts are of another form than that metric's.")
    counts: dict[str, Counts] = {}
    if metrics.samples >= policy.value("minimum_samples"):
        found = {name: _released_counts(each, metrics.samples, policy) for name, each in metrics.counts.items()}
        counts = {name: each for name, each in found.items() if each is not None}
    return metrics.model_copy(update={"values": bounded(metrics.values, plan), "counts": counts})


def numbers_of(tests: Iterable[Metrics]) -> int:
    """How many numbers tests say, values and counts together."""
    return sum(len(test.values) + sum(len(counts.cells) for counts in test.counts.values()) for test in tests)


def _released_counts(counts: Counts, samples: int, policy: Policy) -> Counts | None:
    allowed, minimum = policy.value("pooled_counts"), policy.value("minimum_cell")
    if allowed == "off" or (allowed == "sums" and counts.form in HISTOGRAMS):
        return None
    table = counts.table()
    match counts.form:
        case CountsForm.CLASSES:
            sizes = [row[2] or 0.0 for row in table]
            if _are_small([*sizes, samples - sizes[0]], minimum):
                return None
        case CountsForm.SCORES:
            if _are_small([sum(cell or 0.0 for cell in row) for row in table], minimum):
                return None
            table = [_merged(row, minimum) for row in table]
        case CountsForm.CALIBRATION:
            table = [_withheld(size or 0.0, gap or 0.0, minimum) for size, gap in table]
        case CountsForm.MOMENTS | CountsForm.RATIO:
            table = [[rounded(cell or 0.0) for cell in row] for row in table]
    return counts.model_copy(update={"cells": tuple(cell for row in table for cell in row)})


def _are_small(sizes: Sequence[float], minimum: int) -> bool:
    return any(0 < size < minimum for size in sizes)


def _withheld(size: float, gap: float, minimum: int) -> list[float | None]:
    return [None, None] if _are_small([size], minimum) else [size, rounded(gap)]


def _merged(row: Sequence[float | None], minimum: int) -> list[float | None]:
    """A histogram whose small bins are counted in the next; too few at its end are counted in the last that is not."""
    merged: list[float | None] = []
    held, last = 0.0, 0
    for place, cell in enumerate(row):
        held += cell or 0.0
        if _are_small([held], minimum):
            merged.append(None)
            continue
        last = place if held else last
        merged.append(held)
        held = 0.0
    if held:
        merged[last:] = [None] * (len(row) - last - 1) + [(merged[last] or 0.0) + held]
    return merged


class ProgressGuard:
    """Checks what a round tells while it runs: that it goes forward, within what was asked, with one loss at most.

    Args:
        arguments: The training arguments in force.
        rows: Of the dataset.
    """

    def __init__(self, arguments: Mapping[str, JsonValue], rows: int) -> None:
        updates, epochs = arguments.get("num_updates"), arguments.get("epochs")
        # A batch holds one record at least. Arguments that are no numbers are refused in the runner.
        passes = epochs if isinstance(epochs, int) else 1
        self._most = updates if isinstance(updates, int) else passes * rows
        self._last = Reached(iteration=0, iterations=0)

    def check(self, progress: Reached) -> dict[str, float]:
        """The values that may leave.

        Raises:
            UpdateRefusedError: The runner tells what no round of this request can.
        """
        last, self._last = self._last, progress
        is_possible = (
            last.iteration < progress.iteration <= progress.iterations <= self._most
            and progress.iterations == (last.iterations or progress.iterations)
            and last.epoch <= progress.epoch <= progress.iteration
            and progress.values.keys() <= {"loss"}
        )
        if not is_possible:
            raise UpdateRefusedError("The training process told of progress that this request cannot make.")
        return bounded(progress.values, "")


class EgressLog:
    """Every byte that leaves: when, to whom, what, how large, with which hash.

    What says something about data or work has a line of its own, in the transaction that causes it; progress has it
    within a heartbeat. The traffic as the line carried it, repeats and Receipts included, is counted by day, recipient
    and kind.
    """

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._messages: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._later: list[dict[str, object]] = []

    def message(self, connection: sa.Connection, signed: Signed) -> None:
        """Record a message, with the caller's transaction."""
        _RECORD.run(connection, **self._line(signed))

    def message_later(self, signed: Signed) -> None:
        """Record a message with the next ``flush``: progress comes too often for a transaction of its own."""
        line = self._line(signed)
        with self._lock:
            self._later.append(line)

    def update(
        self, connection: sa.Connection, recipient: str, request: Train, file: SealedFile, **facts: object
    ) -> None:
        """Record an update that is about to leave, by itself or inside its reply, with the caller's transaction."""
        kind = "enclosed" if file.upload_id is None else "upload"
        line = {"at": self._clock(), "recipient": recipient, "kind": kind} | facts
        line |= {"experiment_id": request.experiment_id, "round": request.round}
        line |= {"size_bytes": file.size_bytes, "sha256": file.sha256}
        _RECORD.run(connection, **line)

    def count(self, topic: str, text: str) -> None:
        """Count a message as it goes out on the line."""
        parsed = parse_topic(topic)
        with self._lock:
            self._messages[parsed.to, parsed.kind] += 1
            self._bytes[parsed.to, parsed.kind] += len(text)

    def flush(self, store: Store) -> None:
        """Write down what was only held in memory; what cannot be written is kept for the next time."""
        with self._lock:
            messages, sizes, later = self._messages, self._bytes, self._later
            self._messages, self._bytes, self._later = Counter(), Counter(), []
        try:
            with store.write() as connection:
                for line in later:
                    _RECORD.run(connection, **line)
                self._add_traffic(connection, messages, sizes)
        except BaseException:
            with self._lock:
                self._messages.update(messages)
                self._bytes.update(sizes)
                self._later = later + self._later
            raise

    def statement(self, connection: sa.Connection, signer: Signer, wanted: EgressFilter) -> dict[str, Any]:
        """What the node says in its own signature of the lines that are meant: how many, and the hash of their texts.

        Args:
            wanted: Which lines; those of now, for more may leave while they are read.

        Returns:
            ``signature``: the JWS; ``up_to``: the number of the last line.
        """
        up_to = connection.scalar(sa.select(sa.func.max(egress.c.id))) or 0
        wanted = replace(wanted, up_to=up_to)
        query = sa.select(egress).where(*wanted.conditions()).order_by(egress.c.id)
        digest, lines, size_bytes = hashlib.sha256(), 0, 0
        for row in connection.execution_options(yield_per=1000).execute(query):
            line = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
            digest.update(f"{egress_text(line)}\n".encode())
            lines, size_bytes = lines + 1, size_bytes + line["size_bytes"]
        claims = {
            "node": signer.member_id,
            "at": int(self._clock()),
            "wanted": asdict(wanted),
            "lines": lines,
            "size_bytes": size_bytes,
            "lines_sha256": digest.hexdigest(),
        }
        return {"signature": signer.sign_statement(EXPORT_TYPE, claims), "up_to": up_to}

    def _add_traffic(
        self, connection: sa.Connection, messages: Counter[tuple[str, str]], sizes: Counter[tuple[str, str]]
    ) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime(self._clock()))
        for (recipient, kind), number in messages.items():
            row = insert(traffic).values(
                day=day, recipient=recipient, kind=kind, messages=number, size_bytes=sizes[recipient, kind]
            )
            more = {name: traffic.c[name] + row.excluded[name] for name in ("messages", "size_bytes")}
            connection.execute(row.on_conflict_do_update(index_elements=["day", "recipient", "kind"], set_=more))

    def _line(self, signed: Signed) -> dict[str, object]:
        body = signed.envelope.body
        return {
            "at": self._clock(),
            "recipient": signed.envelope.to,
            "kind": signed.envelope.kind,
            "experiment_id": getattr(body, "experiment_id", None),
            "round": getattr(body, "round", None),
            "size_bytes": len(signed.text),
            "sha256": hashlib.sha256(signed.text.encode()).hexdigest(),
            "numbers": numbers_of(body.metrics) if isinstance(body, TrainReply) else None,
        }
