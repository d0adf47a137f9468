"""What aggregation costs: speed beside a numpy add, and the researcher's memory from three nodes to a hundred.

    python -m tests.benchmarks.aggregation [--parameters N] [--runs N] [--nodes N…]

Speed is in GB of updates each second of processor time, which other work on the machine hardly changes. The updates of
ten nodes lie as files in the page cache, as they do behind their download; each run of an aggregator has a run of
``np.add`` over the same bytes beside it, in memory, in single precision: the least that a sum of them can cost.
Memory is the peak resident size of a process that does a round's end as ``researcher_kit.round`` does: it downloads
and opens every sealed update, four at a time, aggregates and writes.

Writes ``bench-aggregation-results.json``. Ratios are of one run on one machine; its GB/s are not another's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from rich.console import Console
from rich.table import Table

from appliance.protocol.messages import SealedFile
from appliance.protocol.sealing import Sealed, seal
from appliance.protocol.tensors import TensorFile, write_tensors
from appliance.training.arguments import TrainingArguments
from researcher_kit.aggregators import AGGREGATORS, Aggregator, FedAverage, Krum, ServerOptimizer, Setting, Update
from researcher_kit.round import DOWNLOADS_AT_ONCE
from researcher_kit.spool import Spool
from tests.memory import HighWater

RESULTS = Path("bench-aggregation-results.json")
PARAMETERS = 10_000_000
NODES = (3, 10, 30, 100)
SPEED_NODES = 10
RUNS = 5
MB = 1e6


@dataclass(frozen=True)
class Speed:
    """GB of updates each second of processor time: an aggregator's, ``np.add``'s in the same runs, and their ratio."""

    aggregator: str
    gb_s: float
    add_gb_s: float
    ratio: float


@dataclass(frozen=True)
class Memory:
    """The peak above what the process had before, in MB, by number of nodes."""

    work: str
    peak_mb: dict[int, float]

    @property
    def growth(self) -> float:
        """How the most nodes' peak stands to the fewest's."""
        return self.peak_mb[max(self.peak_mb)] / self.peak_mb[min(self.peak_mb)]


class Updates:
    """A model and its nodes' updates, as files in a folder; all nodes return the same, which no aggregator looks at."""

    def __init__(self, folder: Path, parameters: int) -> None:
        self.folder = folder
        self._files = SealedOnDisk(folder / "update.sealed")
        random = np.random.default_rng(0)
        widths = _widths(parameters)
        model = {name: random.normal(size=shape).astype(np.float32) for name, shape in widths.items()}
        self.bytes = sum(array.nbytes for array in model.values())
        write_tensors(model, folder / "model.safetensors")
        write_tensors({name: 0.01 * array for name, array in model.items()}, folder / "update.safetensors")
        with (folder / "update.safetensors").open("rb") as plain, self._files.path.open("wb") as out:
            self._sealed: Sealed = seal(plain, out)

    def model(self) -> TensorFile:
        """The global parameters."""
        return TensorFile(self.folder / "model.safetensors")

    def of(self, nodes: int) -> list[Update]:
        """Each node's update, as a file of its own name."""
        names = [f"node-{number:03}" for number in range(nodes)]
        for name in names:
            path = self.folder / f"{name}.safetensors"
            if not path.exists():
                os.link(self.folder / "update.safetensors", path)
        return [_update(name, TensorFile(self.folder / f"{name}.safetensors")) for name in names]

    def close_round(self, aggregator: Aggregator, nodes: int) -> None:
        """Fetch, open, check, aggregate and write, as a round does once its nodes have answered."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place, ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            spool, model = Spool(Path(place)), self.model()

            def fetch(name: str) -> Update:
                sealed = self._sealed
                said = SealedFile(upload_id=name, sha256=sealed.sha256, size_bytes=sealed.size_bytes, content_key="AA")
                key, stop = sealed.content_key, threading.Event()
                return _update(name, spool.fetch_update(name, said, key, self._files, model.specs, stop))

            updates = [*pool.map(fetch, [f"node-{number:03}" for number in range(nodes)])]
            spool.write_aggregated(aggregator.aggregate(updates, model), aggregator, is_synced=False)


class SealedOnDisk:
    """Stands for the network host: every download is the same sealed file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def download(self, sealed: SealedFile, *, stop: threading.Event | None = None) -> BinaryIO:
        """The file, to be read once."""
        return self.path.open("rb", buffering=0)


def aggregators() -> Iterator[Aggregator]:
    """One of each kind of ours, as an experiment prepares it; what declearn's optimizers cost is declearn's."""
    for kind in AGGREGATORS:
        if kind is ServerOptimizer:
            continue
        aggregator = Krum(faulty=0) if kind is Krum else kind()  # one that is content with three nodes
        aggregator.prepare(Setting(training_args=TrainingArguments(num_updates=10)))
        yield aggregator


def measure_speed(updates: Updates, runs: int) -> list[Speed]:
    """Every aggregator in turn, an add beside each of its runs: a busy moment hits both."""
    found, model, inputs = [], updates.model(), updates.of(SPEED_NODES)
    in_memory = np.concatenate([array.reshape(-1) for array in inputs[0].tensors.values()])
    total = np.zeros_like(in_memory)
    size = updates.bytes * SPEED_NODES

    def add() -> None:
        for _ in range(SPEED_NODES):
            np.add(total, in_memory, out=total)

    for aggregator in aggregators():
        aggregator.aggregate(inputs, model)  # what it remembers of a first round is there in the ones measured
        ours, bare = [], []
        for _ in range(runs):
            bare.append(size / _seconds(add) / 1e9)
            ours.append(size / _seconds(lambda chosen=aggregator: chosen.aggregate(inputs, model)) / 1e9)
        mine, floor = statistics.median(ours), statistics.median(bare)
        found.append(Speed(type(aggregator).__name__, round(mine, 2), round(floor, 2), round(mine / floor, 3)))
    return found


def measure_memory(updates: Updates, nodes: Sequence[int]) -> list[Memory]:
    """A round's end with ``FedAverage``, then each aggregator by itself: a process of its own for every measurement."""
    found = [Memory("a round's end", {n: _peak_mb(lambda n=n: updates.close_round(FedAverage(), n)) for n in nodes})]
    for aggregator in aggregators():
        peaks = {n: _peak_mb(lambda n=n, of=aggregator: of.aggregate(updates.of(n), updates.model())) for n in nodes}
        found.append(Memory(type(aggregator).__name__, peaks))
    return found


def _peak_mb(work: Callable[[], object]) -> float:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what the parent freed and kept would hide what is taken anew
        high = HighWater()
        work()
        sender.send(high.rise())

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        return round(receiver.recv() / MB, 1)
    except EOFError:
        raise RuntimeError("the measured work failed; its error stands above") from None
    finally:
        process.join()


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _update(name: str, tensors: TensorFile) -> Update:
    return Update(name, 100, tensors, learning_rates=0.1)


def _widths(parameters: int) -> dict[str, tuple[int, ...]]:
    """Layers that come to about so many numbers: one large matrix, as most models have, and smaller ones."""
    side = int((parameters / 1.3) ** 0.5)
    return {"first": (side, side), "second": (side, side * 3 // 10), "bias": (side,)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.aggregation")
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="of the model")
    parser.add_argument("--runs", type=int, default=RUNS, help="of which the median counts")
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, help="to measure memory with, from 3")
    given = parser.parse_args(arguments)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        updates = Updates(Path(folder), given.parameters)
        speeds = measure_speed(updates, given.runs)
        console.print(_speed_table(speeds, updates.bytes))
        memories = measure_memory(updates, given.nodes)
        console.print(_memory_table(memories, updates.bytes))
    console.print(f"The machine's load was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    results = {"speed": [asdict(one) for one in speeds], "memory": [asdict(one) for one in memories]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"Written to {RESULTS}")


def _speed_table(speeds: Sequence[Speed], size: int) -> Table:
    title = f"Aggregation of {SPEED_NODES} updates of {size / MB:.0f} MB"
    table = Table(title=title, title_justify="left")
    for column in ("aggregator", "GB/s", "np.add GB/s", "of np.add"):
        table.add_column(column, justify="left" if column == "aggregator" else "right")
    for one in speeds:
        table.add_row(one.aggregator, f"{one.gb_s:.2f}", f"{one.add_gb_s:.2f}", f"{one.ratio:.0%}")
    return table


def _memory_table(memories: Sequence[Memory], size: int) -> Table:
    title = f"The researcher's peak memory above idle, in MB; a model has {size / MB:.0f}"
    table = Table(title=title, title_justify="left")
    table.add_column("work")
    counts = [*memories[0].peak_mb]
    for column in (*(f"{count} nodes" for count in counts), "last to first"):
        table.add_column(column, justify="right")
    for one in memories:
        table.add_row(one.work, *(f"{one.peak_mb[count]:.0f}" for count in counts), f"{one.growth:.2f}")
    return table


if __name__ == "__main__":
    main()
