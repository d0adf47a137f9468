"""Curves for TensorBoard: a run for each node and test, written when a round closes.

tensorboard/
  north/training     the loss inside rounds; a step is a thousandth of a round, so that nodes of any size share one axis
  north/global       tests of the parameters that a round began with; a step is a round
  north/local        tests of that node's own model after training
  _pooled/global     the same over all nodes' samples, where counts allow it (``_pooled/local`` likewise)
  _experiment        seconds, bytes and nodes of each round

One file a run: a round that is repeated, or one after an earlier breakpoint, takes the place of what stood there.
Nothing here needs TensorFlow: the files are written with the package ``tensorboard``'s own encoding.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from researcher_kit.monitor import Event, Progress, RoundClosed, RoundStarted

if TYPE_CHECKING:
    from researcher_kit.history import RoundRecord

STEPS_PER_ROUND = 1000
_FILE = "events.out.tfevents.0.fedward"
_HEADER, _CHECKSUM = struct.Struct("<QI"), 4
_MAX_RECORD = 1 << 20

Points = dict[int, tuple[float, Mapping[str, float]]]  # by step: when, and the scalars by name


class TensorBoard:
    """An observer that writes a folder for TensorBoard; ``Experiment(tensorboard=True)`` has one.

    In a notebook of your own machine: ``%load_ext tensorboard``, then ``%tensorboard --logdir
    {experiment.tensorboard_results_path}``; in the researcher kit: ``/tensorboard/`` at the notebooks' own address.

    Args:
        folder: Where to; it is made when the first round closes.

    Raises:
        OSError: As an observer, when the disk takes no more; the experiment logs that and goes on.

    Example:
        >>> experiment.on_event(TensorBoard(Path("runs")))  # doctest: +SKIP
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._round: int | None = None  # the one that runs
        self._written = -1  # the last round that this object wrote
        self._points: dict[str, Points] = {}

    def __call__(self, event: Event) -> None:
        """Take up an event."""
        match event:
            case RoundStarted():
                self._round, self._points = None if event.is_test else event.round, {}
            case Progress() if event.round == self._round and event.iterations:
                share = max(1, STEPS_PER_ROUND * event.iteration // event.iterations)
                step = (event.round - 1) * STEPS_PER_ROUND + share
                self._points.setdefault(event.node_id, {})[step] = (time.time(), event.values)
            case RoundClosed():
                self._write(event.record)

    def _write(self, record: RoundRecord) -> None:
        number, at = record.round, record.started_at + record.seconds
        if number != self._written + 1:
            self._forget(number)
        for node, points in sorted(self._points.items()):
            self._append(f"{node}/training", dict(sorted(points.items())))
        for stage in ("global", "local"):
            for node, values in record.metrics(stage).items():
                self._append(f"{node}/{stage}", {number: (at, values)})
            if pooled := record.pooled(stage):
                self._append(f"_pooled/{stage}", {number: (at, {name: each.value for name, each in pooled.items()})})
        self._append("_experiment", {number: (at, _facts(record))})
        self._written, self._points = number, {}

    def _append(self, run: str, points: Points) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Entry  # noqa: PLC0415 - a second, for who wants it
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 - as above
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415 - as above

        path = self.folder / run / _FILE
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab") as file:
            writer = RecordWriter(file)
            if not file.tell():
                writer.write(Entry(file_version="brain.Event:2").SerializeToString())
            for step, (at, values) in points.items():
                scalars = [Summary.Value(tag=name, simple_value=value) for name, value in sorted(values.items())]
                writer.write(Entry(wall_time=at, step=step, summary=Summary(value=scalars)).SerializeToString())

    def _forget(self, number: int) -> None:
        """Cut each file off before this round: what stands there is of a round that is repeated."""
        for path in self.folder.glob(f"**/{_FILE}"):
            is_inside = path.parent.name == "training"
            first = (number - 1) * STEPS_PER_ROUND + 1 if is_inside else number
            with path.open("r+b") as file:
                kept = 0
                for entry, end in _entries(file):
                    if entry.step >= first:
                        break
                    kept = end
                file.truncate(kept)


def _facts(record: RoundRecord) -> dict[str, float]:
    timing = record.timing
    return {
        "seconds/round": record.seconds,
        "seconds/waiting": timing.waiting_s,
        "seconds/transfer": timing.transfer_s,
        "seconds/training": timing.training_s,
        "seconds/aggregation": timing.aggregation_s,
        "bytes/to each node": record.parameters_bytes,
        "bytes/from all nodes": sum(reply.update_bytes for reply in record.replies),
        "nodes/with": len(record.replies),
        "nodes/without": len(record.failures),
    }


def _entries(file: Any) -> Iterator[tuple[Any, int]]:
    """The events of a file, each with the place of its end, up to one that is not whole."""
    from tensorboard.compat.proto.event_pb2 import Event as Entry  # noqa: PLC0415 - see ``_append``

    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        size, _checksum = _HEADER.unpack(header)
        if size > _MAX_RECORD or len(content := file.read(size + _CHECKSUM)) < size + _CHECKSUM:
            return
        yield Entry.FromString(content[:size]), file.tell()
