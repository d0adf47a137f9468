"""Curves for TensorBoard, read back with its own reader."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from appliance.protocol.counts import Counts, CountsForm
from researcher_kit import Experiment
from researcher_kit.monitor import Progress, RoundStarted
from researcher_kit.tensorboard import STEPS_PER_ROUND, TensorBoard
from tests.simulator import Consortium

Make = Callable[..., Experiment]


@pytest.fixture
def scored(consortium: Consortium) -> Iterator[Consortium]:
    """Every node says how good the parameters are, better in each round."""
    for node in consortium.nodes.values():
        node.scores = lambda round_: {"RECALL": 0.5 + round_ / 20}
        node.counts = lambda round_: {
            "RECALL": Counts(form=CountsForm.CLASSES, rows=1, cells=(10.0 + round_, 20.0, 20.0))
        }
    yield consortium


def scalars(folder: Path, run: str, tag: str) -> dict[int, float]:
    """What TensorBoard shows of a run: values by step, each as often as the file has it."""
    found = EventAccumulator(str(folder / run)).Reload().Scalars(tag)
    assert len({event.step for event in found}) == len(found), "a step is there twice"
    return {event.step: round(event.value, 4) for event in found}


def test_each_node_has_a_run_for_each_test_and_one_for_its_training(make: Make, scored: Consortium) -> None:
    """As Fed-BioMed's users look at their experiments, and the metric over all nodes beside."""
    experiment = make(tensorboard=True)
    experiment.run(2)
    folder = experiment.tensorboard_results_path
    runs = {str(path.parent.relative_to(folder)) for path in folder.rglob("events*")}

    nodes = {f"{node}/{run}" for node in scored.nodes for run in ("training", "global")}
    assert runs == nodes | {"_pooled/global", "_experiment"}
    assert scalars(folder, "north/global", "RECALL") == {1: 0.55, 2: 0.6}
    assert scalars(folder, "_pooled/global", "RECALL") == {1: 0.55, 2: 0.6}
    assert scalars(folder, "north/training", "loss")[2 * STEPS_PER_ROUND] == 0.4
    assert scalars(folder, "_experiment", "nodes/with") == {1: 3, 2: 3}


def test_a_resumed_experiment_doubles_no_step(make: Make, scored: Consortium) -> None:
    """Rounds that were run once more take the place of those that stood there."""
    experiment = make(tensorboard=True, save_breakpoints=True)
    experiment.run(3)
    folder = experiment.tensorboard_results_path
    early = Experiment.load_breakpoint(
        experiment.experimentation_path() / "breakpoint_0001", federation=experiment.federation, progress=False
    )
    scored.nodes["north"].scores = lambda round_: {"RECALL": 0.9}
    early.run(1)

    assert scalars(folder, "north/global", "RECALL") == {1: 0.55, 2: 0.9}
    assert set(scalars(folder, "_experiment", "seconds/round")) == {1, 2}
    assert max(scalars(folder, "north/training", "loss")) == 2 * STEPS_PER_ROUND


def test_a_file_that_a_crash_cut_short_is_mended(make: Make, scored: Consortium) -> None:
    """TensorBoard stops reading at half a record, and would never see what follows."""
    experiment = make(tensorboard=True)
    experiment.run(1)
    (file,) = (experiment.tensorboard_results_path / "north/global").iterdir()
    file.write_bytes(file.read_bytes() + b"\x40\x00\x00")
    experiment.run(1)

    assert set(scalars(experiment.tensorboard_results_path, "north/global", "RECALL")) == {1, 2}


def test_a_round_of_a_million_updates_writes_a_thousand_points(tmp_path: Path) -> None:
    """A file is bounded by its rounds, whatever a node sends."""
    board = TensorBoard(tmp_path)
    board(RoundStarted(2, 9, {"north": "North Hospital"}, is_resumed=False))
    for iteration in range(1, 1_000_001, 50):
        board(Progress(2, "north", "train", 1, iteration, 1_000_000, {"loss": 1.0}))

    points = board._points["north"]
    assert (min(points), max(points), len(points)) == (STEPS_PER_ROUND + 1, 2 * STEPS_PER_ROUND - 1, 999)


def test_a_test_without_training_leaves_no_point(make: Make, scored: Consortium) -> None:
    """It belongs to no round, and may be asked for ten times."""
    experiment = make(tensorboard=True, training_args={"epochs": 1, "test_ratio": 0.2})
    experiment.run(1)
    before = {path: path.read_bytes() for path in experiment.tensorboard_results_path.rglob("events*")}
    experiment.evaluate()

    assert {path: path.read_bytes() for path in experiment.tensorboard_results_path.rglob("events*")} == before


def test_a_disk_that_takes_nothing_costs_no_round(make: Make, scored: Consortium, tmp_path: Path) -> None:
    """Curves are for looking at; the model is what the hospitals worked for."""
    (tmp_path / "file").write_text("in the way")
    experiment = make(tensorboard=tmp_path / "file")

    assert experiment.run(2) == 2


def test_two_experiments_may_share_a_folder(make: Make, scored: Consortium, tmp_path: Path) -> None:
    """One page compares them."""
    found = [make(tensorboard=tmp_path / "runs") for _ in range(2)]
    for experiment in found:
        experiment.run(1)

    assert {path.name for path in (tmp_path / "runs").iterdir()} == {experiment.id for experiment in found}


def test_what_draws_is_imported_only_where_it_is_wanted() -> None:
    """Two seconds at each start, for everybody."""
    code = (
        "import researcher_kit, sys; print([n for n in ('tensorboard', 'matplotlib', 'IPython') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out.strip() == "[]"
