"""``make bench``: what a round costs beside a bare TCP loop on this machine, interleaved, median of five runs.

    python -m tests.benchmarks [--runs N] [--stages] [SHAPE…]     W1, W2 and W3 if none is named

W3 takes minutes and 8 GB. ``--stages`` shows where each shape's time went, with the floors of this machine beside it.

Writes ``bench-results.json``: a list of ``{shape, ours_ms, bare_ms, ratio, overhead_share, memory_mb}``. A round lasts
from the breakpoint of the one before to its own. ``memory_mb`` is the peak resident memory of the largest process of
the network host and the nodes. Ratios are of one run on one machine; the milliseconds are not to be compared with
another machine's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog
import torch
from rich.console import Console
from rich.table import Table

from appliance.embedded.consortium import EmbeddedConsortium
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import RoundClosed
from tests.benchmarks.bare import run_bare
from tests.benchmarks.memory import Peak, Pids
from tests.benchmarks.stages import Stages
from tests.memory import resident

RUNS = 5
PLAN = Path(__file__).with_name("plan.py")
RESULTS = Path("bench-results.json")


@dataclass(frozen=True)
class Shape:
    """A workload.

    Attributes:
        layers: Widths of the fully connected layers, input first.
        rows: Of each node's dataset.
    """

    name: str
    layers: tuple[int, ...]
    nodes: int
    rows: int
    rounds: int
    steps: int
    batch: int

    @property
    def model_bytes(self) -> int:
        """Of the parameters, as float32."""
        return 4 * sum(before * after + after for before, after in itertools.pairwise(self.layers))


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("W1", (30, 2), nodes=3, rows=200, rounds=20, steps=1, batch=64),
        Shape("W2", (784, 2800, 2800, 10), nodes=3, rows=2000, rounds=3, steps=10, batch=64),  # 10 M parameters
        Shape("W3", (784, 9610, 9610, 10), nodes=2, rows=200, rounds=2, steps=1, batch=32),  # 100 M
    )
}


@dataclass(frozen=True)
class Measured:
    """What a shape came to: milliseconds of a round, and resident memory of the largest process."""

    shape: str
    ours_ms: float
    bare_ms: float
    ratio: float
    overhead_share: float
    memory_mb: float


class Bench:
    """One consortium, kept for all runs of a shape: what is measured is rounds, not the start of processes."""

    def __init__(self, shape: Shape, consortium: EmbeddedConsortium, data: Sequence[Path]) -> None:
        self._shape = shape
        self._consortium = consortium
        self._data = [*data]
        self.stages = Stages(shape.nodes)

    def measure(self, runs: int, console: Console) -> Measured:
        """Runs of each side, taking turns so that a busy moment hits both; memory is watched in one before them."""
        ours, bare = [], []
        with Federation(self._consortium.home("alice")) as federation:
            # A small model first, so that idle means: with every library loaded.
            self._ours_ms(federation, [self._shape.layers[0], self._shape.layers[-1]], Stages(self._shape.nodes))
            peak = Peak(self._pids)
            with peak.watching():
                self._ours_ms(federation, self._shape.layers, Stages(self._shape.nodes))
            self.above_idle = peak.above_idle
            for run in range(runs):
                bare.append(self._bare_ms())
                ours.append(self._ours_ms(federation, self._shape.layers, self.stages))
                said = f"ours {ours[-1]:.1f} ms, bare {bare[-1]:.2f} ms a round"
                console.print(f"{self._shape.name} run {run + 1} of {runs}: {said}")
        mine, floor = statistics.median(ours), statistics.median(bare)
        theirs = [pid for kind, pids in self._pids().items() if kind != "researcher" for pid in pids]
        return Measured(
            shape=self._shape.name,
            ours_ms=round(mine, 2),
            bare_ms=round(floor, 3),
            ratio=round(mine / floor, 2),
            overhead_share=round(1 - floor / mine, 4),
            memory_mb=round(max(resident(pid, peak=True) for pid in theirs) / 2**20, 1),
        )

    def _bare_ms(self) -> float:
        shape = self._shape
        seconds = run_bare(
            self._data, rounds=shape.rounds + 1, layers=list(shape.layers), batch=shape.batch, steps=shape.steps
        )
        return 1000 * statistics.mean(seconds[1:])  # the first starts torch, as ours starts each node's child

    def _ours_ms(self, federation: Federation, layers: Sequence[int], stages: Stages) -> float:
        shape = self._shape
        experiment = Experiment(
            tags=["bench"],
            training_plan_file=PLAN,
            model_args={"layers": list(layers)},
            training_args={
                "num_updates": shape.steps,
                "batch_size": shape.batch,
                "optimizer_args": {"lr": 0.01},
                "random_seed": 1,
            },
            round_limit=shape.rounds + 1,
            federation=federation,
            progress=False,
        )
        closed: list[float] = []

        @experiment.on_event
        def hear(event: object) -> None:
            if isinstance(event, RoundClosed):
                closed.append(time.perf_counter())
            stages.hear(event)

        experiment.run()
        return 1000 * (closed[-1] - closed[0]) / shape.rounds

    def _pids(self) -> Pids:
        """One node stands for all: they do the same."""
        node = self._consortium.processes("node-0")
        return {
            "researcher": [os.getpid()],
            "node": [*node],
            "warden": [pid for pid, command in node.items() if "appliance.warden" in command],
            "network host": [*self._consortium.processes("network")],
        }


def run_shape(shape: Shape, runs: int, console: Console, *, shows_stages: bool) -> tuple[Measured, dict[str, int]]:
    """Build the consortium of a shape, measure, and end it; returns the memory above idle by kind as well."""
    nodes = [f"node-{n}" for n in range(shape.nodes)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with EmbeddedConsortium(root / "run", nodes=nodes, researchers=["alice"]) as consortium:
            data = [_prepare(consortium, node, shape, root / f"{node}.npz") for node in nodes]
            bench = Bench(shape, consortium, data)
            measured = bench.measure(runs, console)
            if shows_stages:
                console.print(bench.stages.table(shape.name, shape.model_bytes, consortium, measured.bare_ms))
            return measured, bench.above_idle


def _prepare(consortium: EmbeddedConsortium, node: str, shape: Shape, arrays: Path) -> Path:
    """The same random rows for both sides; the node's plan is approved."""
    random = np.random.default_rng(int(node.rpartition("-")[2]))
    x = random.normal(size=(shape.rows, shape.layers[0])).astype(np.float32)
    y = random.integers(0, shape.layers[-1], shape.rows)
    np.savez(arrays, x=x, y=y)
    data = consortium.home(node) / "data"
    data.mkdir(exist_ok=True)
    header = ",".join([f"x{n}" for n in range(shape.layers[0])] + ["y"])
    np.savetxt(data / "bench.csv", np.column_stack([x, y]), delimiter=",", header=header, comments="", fmt="%.6f")
    staff = GovernanceClient(consortium.home(node) / SOCKET_NAME, staff="bench", via="cli")
    staff.call("plan.add", name="bench", source=PLAN.read_text())
    spec = {"name": "bench", "path": "bench.csv", "tags": ["bench"], "researchers": ["alice"]}
    staff.call("dataset.add", spec=spec)
    return arrays


def main() -> None:
    """Measure the shapes named, print the tables and write the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all if none is named")
    parser.add_argument("--runs", type=int, default=RUNS, help="of which the median counts")
    parser.add_argument("--stages", action="store_true", help="show where the time went")
    given = parser.parse_args()
    shapes = [SHAPES[name] for name in given.shapes or SHAPES]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    torch.zeros(1)  # loaded before memory is measured, as in a researcher's notebook
    console = Console()
    found = [run_shape(shape, given.runs, console, shows_stages=given.stages) for shape in shapes]
    console.print(_ratios([measured for measured, _ in found]))
    console.print(_memory(shapes, [above_idle for _, above_idle in found]))
    RESULTS.write_text(json.dumps([asdict(measured) for measured, _ in found], indent=2) + "\n")
    console.print(f"Written to {RESULTS}")


def _ratios(measured: Sequence[Measured]) -> Table:
    table = Table(title="A round beside a bare TCP loop", title_justify="left")
    for column in ("shape", "ours (ms)", "bare (ms)", "ratio", "overhead", "memory (MB)"):
        table.add_column(column, justify="right")
    for m in measured:
        share, memory = f"{m.overhead_share:.0%}", f"{m.memory_mb:.0f}"
        table.add_row(m.shape, f"{m.ours_ms:.1f}", f"{m.bare_ms:.2f}", f"{m.ratio:.2f}", share, memory)
    return table


def _memory(shapes: Sequence[Shape], above_idle: Sequence[dict[str, int]]) -> Table:
    """For a model that is small beside a process, its multiples say nothing."""
    table = Table(title="Peak memory above idle: MB, and models where one has 10 MB", title_justify="left")
    for column in ("shape", *above_idle[0]):
        table.add_column(column, justify="right")
    for shape, kinds in zip(shapes, above_idle, strict=True):
        models = {kind: f" ({held / shape.model_bytes:.2f})" for kind, held in kinds.items()}
        is_heavy = shape.model_bytes > 10 << 20
        cells = [f"{held / 2**20:.0f}" + (models[kind] if is_heavy else "") for kind, held in kinds.items()]
        table.add_row(shape.name, *cells)
    return table


if __name__ == "__main__":
    main()
