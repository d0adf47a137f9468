"""``make bench``: what a round costs beside a bare TCP loop on this machine, interleaved, median of five runs.

    python -m tests.benchmarks [SHAPE…]     W1 if none is named; W3 takes a quarter of an hour and 8 GB

Writes ``bench-results.json``: a list of ``{shape, ours_ms, bare_ms, ratio, overhead_share, memory_mb}``. Ratios are of
one run on one machine; the milliseconds are not to be compared with another machine's.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import structlog
from rich.console import Console
from rich.table import Table

from appliance.embedded.consortium import EmbeddedConsortium
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from researcher_kit import Experiment, Federation
from tests.benchmarks.bare import run_bare

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
    """What a shape came to: milliseconds of a round, and resident memory of the largest process of ours."""

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

    def measure(self, console: Console) -> Measured:
        """Five runs of each side, taking turns so that a busy moment hits both."""
        ours, bare = [], []
        with Federation(self._consortium.home("alice")) as federation:
            for run in range(RUNS):
                bare.append(self._bare_ms())
                ours.append(self._ours_ms(federation))
                console.print(
                    f"{self._shape.name} run {run + 1}: ours {ours[-1]:.1f} ms, bare {bare[-1]:.2f} ms a round"
                )
        mine, floor = statistics.median(ours), statistics.median(bare)
        return Measured(
            shape=self._shape.name,
            ours_ms=round(mine, 2),
            bare_ms=round(floor, 3),
            ratio=round(mine / floor, 2),
            overhead_share=round(1 - floor / mine, 4),
            memory_mb=round(self._memory_mb(), 1),
        )

    def _bare_ms(self) -> float:
        shape = self._shape
        seconds = run_bare(
            self._data, rounds=shape.rounds + 1, layers=list(shape.layers), batch=shape.batch, steps=shape.steps
        )
        return 1000 * statistics.mean(seconds[1:])  # the first starts torch, as ours starts each node's child

    def _ours_ms(self, federation: Federation) -> float:
        shape = self._shape
        experiment = Experiment(
            tags=["bench"],
            training_plan_file=PLAN,
            model_args={"layers": list(shape.layers)},
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
        experiment.run()
        return 1000 * statistics.mean(record.seconds for record in experiment.history[1:])

    def _memory_mb(self) -> float:
        parts = ["network", *(f"node-{n}" for n in range(self._shape.nodes))]
        pids = [pid for part in parts for pid in self._consortium.processes(part)]
        return max(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


def run_shape(shape: Shape, console: Console) -> Measured:
    """Build the consortium of a shape, measure, and end it."""
    nodes = [f"node-{n}" for n in range(shape.nodes)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with EmbeddedConsortium(root / "run", nodes=nodes, researchers=["alice"]) as consortium:
            data = [_prepare(consortium, node, shape, root / f"{node}.npz") for node in nodes]
            return Bench(shape, consortium, data).measure(console)


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
    """Measure the shapes named, print the table and write the file."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    console = Console()
    measured = [run_shape(SHAPES[name], console) for name in sys.argv[1:] or ["W1"]]
    table = Table(title="A round beside a bare TCP loop", title_justify="left")
    for column in ("shape", "ours (ms)", "bare (ms)", "ratio", "overhead", "memory (MB)"):
        table.add_column(column, justify="right")
    for m in measured:
        table.add_row(
            m.shape,
            f"{m.ours_ms:.1f}",
            f"{m.bare_ms:.2f}",
            f"{m.ratio:.1f}",
            f"{m.overhead_share:.0%}",
            f"{m.memory_mb:.0f}",
        )
    console.print(table)
    RESULTS.write_text(json.dumps([asdict(m) for m in measured], indent=2) + "\n")
    console.print(f"Written to {RESULTS}")


if __name__ == "__main__":
    main()
