"""The aggregation's benchmark, with a small model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tests
from researcher_kit.aggregators import AGGREGATORS, ServerOptimizer
from tests.benchmarks.aggregation import RESULTS


def test_no_aggregator_needs_more_memory_for_more_nodes(tmp_path: Path) -> None:
    """A researcher's notebook must bear as many hospitals as join."""
    root = Path(tests.__path__[0]).parent
    command = [sys.executable, "-m", "tests.benchmarks.aggregation", "--parameters", "1000000", "--runs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}

    subprocess.run([*command, "--nodes", "3", "12"], cwd=tmp_path, env=environment, check=True, timeout=100)
    results = json.loads((tmp_path / RESULTS).read_text())

    grown = {one["work"]: one["peak_mb"]["12"] / one["peak_mb"]["3"] for one in results["memory"]}
    ours = {kind.__name__ for kind in AGGREGATORS if kind is not ServerOptimizer}
    assert {*grown} == {*ours, "a round's end"}
    assert max(grown.values()) < 1.5, grown  # to keep nine updates more would more than double it
    assert {one["aggregator"] for one in results["speed"]} == ours
