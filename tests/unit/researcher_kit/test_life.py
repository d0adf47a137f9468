"""An experiment between its rounds: changed, paused, moved, taken up again, and two at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import Train
from researcher_kit import Experiment, FedAverage, Federation, Quorum, RandomFraction
from researcher_kit.divergence import LossWatch
from researcher_kit.errors import BreakpointError, ExperimentArgumentError, NodeFailedError, QuorumMissedError
from researcher_kit.monitor import LossGrew, Paused, RoundClosed
from tests.simulator import Arrays, Consortium, MemoryWire, SimulatedNode, drift
from tests.unit.researcher_kit.conftest import SETTINGS, same

Make = Callable[..., Experiment]


def test_what_is_set_between_rounds_holds_from_the_next_one(make: Make, consortium: Consortium) -> None:
    """Whoever watches a training wants to change it without losing what it has learnt."""
    asked: list[dict[str, object]] = []

    def train(node: SimulatedNode, request: Train, parameters: Arrays) -> tuple[Arrays, int]:
        asked.append(request.training_args)
        return drift(node, request, parameters)

    for node in consortium.nodes.values():
        node.train = train
    experiment = make()
    experiment.run_once()
    experiment.set_training_args({"epochs": 2, "random_seed": 7})
    experiment.set_aggregator(FedAverage())
    experiment.set_strategy(RandomFraction(0.4))
    experiment.run_once()

    assert [arguments["epochs"] for arguments in asked] == [1, 1, 1, 2, 2]
    assert len(experiment.history[1].replies) == 2


def test_run_goes_beyond_the_limit_only_when_told(make: Make) -> None:
    """Three rounds were agreed upon; a fourth is a decision."""
    experiment = make()
    experiment.run()

    assert experiment.run() == 0
    assert experiment.run(2, increase=True) == 2
    assert (experiment.round_current(), experiment.round_limit()) == (5, 5)


def test_a_pause_ends_the_run_behind_its_round(make: Make) -> None:
    """A round that is under way is of use; its nodes need not do it again."""
    experiment, events = make(), []
    experiment.on_event(lambda event: experiment.pause() if isinstance(event, RoundClosed) else None)
    experiment.on_event(events.append)

    assert experiment.run() == 1
    assert [event.round for event in events if isinstance(event, Paused)] == [1]
    assert experiment.run() == 1
    assert experiment.round_current() == 2


def test_a_breakpoint_goes_on_at_another_machine(make: Make, consortium: Consortium, tmp_path: Path) -> None:
    """A laptop is replaced: keys and breakpoint are all that its owner must carry."""
    calm, moved = make(), make()
    calm.run()
    moved.run(2)
    shutil.copytree(moved.experimentation_path(), tmp_path / "carried")
    shutil.copytree(tmp_path / "alice", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("store", "experiments"))
    with Federation(tmp_path / "elsewhere", wire=MemoryWire(consortium)) as federation:
        there = Experiment.load_breakpoint(tmp_path / "carried", federation=federation, progress=False)
        there.run()

        assert there.experimentation_path() == tmp_path / "carried"
        assert same(there.parameters(), calm.parameters())


def test_a_script_that_is_started_again_goes_on(federation: Federation, tmp_path: Path) -> None:
    """Whatever ends it: the same lines begin an experiment and take it up."""
    arguments = SETTINGS | {"federation": federation, "progress": False}
    with Experiment.resume(tmp_path / "mine", **arguments) as first:
        first.run(2)
    again = Experiment.resume(tmp_path / "mine", **arguments)

    assert (again.id, again.round_current(), again.run()) == (first.id, 2, 1)


def test_a_script_does_not_begin_anew_over_a_breakpoint_that_is_damaged(federation: Federation, tmp_path: Path) -> None:
    """Twenty rounds of ten hospitals must not be thrown away silently."""
    arguments = SETTINGS | {"federation": federation, "progress": False}
    first = Experiment.resume(tmp_path / "mine", **arguments)
    first.run_once()
    (first.breakpoint() / "breakpoint.json").write_text('{"version": 7}')

    with pytest.raises(BreakpointError, match="a breakpoint of version 7; this release reads version 1") as caught:
        Experiment.resume(tmp_path / "mine", **arguments)
    assert "release that saved it" in caught.value.remedy


def test_two_experiments_run_at_once(make: Make) -> None:
    """Two notebooks' cells, one connection: neither hears the other's replies."""
    alone = make()
    alone.run()
    together = [make(), make()]
    threads = [threading.Thread(target=experiment.run) for experiment in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(same(experiment.parameters(), alone.parameters()) for experiment in together)


def test_a_full_disk_costs_no_round(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiment is usable when there is room again, and ends where it would have."""
    calm, troubled = make(), make()
    calm.run()
    troubled.run_once()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("researcher_kit.breakpoints.sync", full)
        with pytest.raises(FedWardError, match="No space left") as caught:
            troubled.run()
    troubled.run()

    assert caught.value.code is Code.DISK_FULL
    assert same(troubled.parameters(), calm.parameters())


def diverging(code: Code) -> Callable[..., tuple[Arrays, int]]:
    """A training that ends as a plan does whose loss is no number any more."""

    def train(_node: SimulatedNode, request: Train, _parameters: Arrays) -> tuple[Arrays, int]:
        if request.training_args["optimizer_args"]["lr"] > 1:
            raise FedWardError("The loss is not finite any more.", code=code)
        return drift(_node, request, _parameters)

    return train


def test_a_divergence_names_node_round_and_remedy(make: Make, consortium: Consortium) -> None:
    """The most frequent mistake of all; the experiment goes on with another rate."""
    consortium.nodes["south"].train = diverging(Code.TRAINING_DIVERGED)
    experiment = make(training_args={"optimizer_args": {"lr": 0.1}})
    experiment.run_once()
    experiment.set_training_args({"optimizer_args": {"lr": 100.0}})

    with pytest.raises(NodeFailedError, match=r"Round 2: South Hospital \(south\): The loss is not finite") as caught:
        experiment.run()
    assert "Lower the learning rate" in caught.value.explain()
    experiment.set_training_args({"optimizer_args": {"lr": 0.1}})
    assert experiment.run() == 2


def test_a_missed_quorum_names_its_round(make: Make, consortium: Consortium) -> None:
    """In the log of a night there are many."""
    for node in consortium.nodes.values():
        node.train = diverging(Code.TRAINING_DIVERGED)
    experiment = make(training_args={"optimizer_args": {"lr": 100.0}}, strategy=Quorum(0.5, deadline_s=60.0))

    with pytest.raises(QuorumMissedError, match=r"^Round 1: 0 of 3 nodes answered"):
        experiment.run()


def test_an_update_that_is_no_number_is_refused_and_its_round_named(make: Make, consortium: Consortium) -> None:
    """A node of another make may not look before it sends."""

    def broken(node: SimulatedNode, request: Train, parameters: Arrays) -> tuple[Arrays, int]:
        update, samples = drift(node, request, parameters)
        return {
            name: np.full_like(array, np.nan) if array.dtype.kind == "f" else array for name, array in update.items()
        }, samples

    consortium.nodes["west"].train = broken

    with pytest.raises(NodeFailedError, match=r"Round 1: West Hospital \(west\).*not finite|Round 1: West") as caught:
        make().run()
    assert caught.value.code is Code.UPDATE_REFUSED


@pytest.mark.parametrize(
    ("losses", "grown_in"),
    [
        ([2.0, 1.0, 1.5, 0.9, 3.0], []),
        ([2.0, 1.0, 40.0, 50.0, 1.0, 60.0], [3, 6]),
        ([-50.0, -80.0, -60.0, 900.0], [4]),
        ([0.7, 9.0, 300.0], [2]),
        ([1e-9, 2e-9], []),
    ],
)
def test_a_loss_that_grows_is_told_once(losses: list[float], grown_in: list[int]) -> None:
    """Early enough to act, and not at each small batch that happens to be hard."""
    watch = LossWatch()
    told = [watch.hear(round_, "north", loss) for round_, loss in enumerate(losses, start=1)]

    assert [each.round for each in told if each] == grown_in


def test_whoever_watches_hears_of_a_loss_that_grows(make: Make, consortium: Consortium) -> None:
    """In the live table, or by an observer that writes a mail."""
    consortium.nodes["north"].loss = lambda round_: 0.5 if round_ < 3 else 70.0
    experiment, told = make(), []
    experiment.on_event(lambda event: told.append(event) if isinstance(event, LossGrew) else None)
    experiment.run()

    assert [(event.round, event.node_id, event.best_round) for event in told] == [(3, "north", 2)]
    assert "lower the learning rate" in str(told[0])


def test_parameters_that_went_with_their_folder_are_said_to_be_gone(make: Make, tmp_path: Path) -> None:
    """A rehearsal's folder goes when it is closed: 'malformed' would set people looking for a fault in the file."""
    experiment = make(experimentation_folder=tmp_path / "temporary")
    experiment.run(1)
    shutil.rmtree(tmp_path / "temporary")

    for ask in (experiment.parameters, experiment.training_plan):
        with pytest.raises(ExperimentArgumentError, match=r"parameters are gone.*temporary local federation") as raised:
            ask()
        assert "before close()" in raised.value.remedy


@pytest.mark.parametrize("prefix", ["aggregator/", "frozen/"])
def test_a_tensor_by_a_name_of_the_parameters_file_is_refused(make: Make, tmp_path: Path, prefix: str) -> None:
    """At the hospitals it would be taken for the aggregator's, or for a layer that nobody trains."""
    plan = f"""from appliance.training import DataManager, TensorTrainingPlan


class Means(TensorTrainingPlan):
    def init_model(self, model_args):
        return {{"{prefix}mean": [0.0]}}

    def training_data(self):
        return DataManager(self.dataset.matrix(["x"]))

    def compute(self, tensors, data, target):
        return tensors
"""
    (tmp_path / "plan.py").write_text(plan)
    experiment = make(training_plan_class=None, training_plan_file=tmp_path / "plan.py", training_args={})

    with pytest.raises(ExperimentArgumentError, match=f"tensor '{prefix}mean'.*begin with '{prefix}'"):
        experiment.check()
