"""Aggregators that remember, in whole experiments: restarts, crashes, and tensors for nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from researcher_kit import Experiment, FedAdam, Federation, Scaffold
from researcher_kit import breakpoints as breakpoints_module
from researcher_kit.errors import BreakpointError, ExperimentArgumentError
from tests.simulator import Consortium
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]
COUNTED = {"num_updates": 4, "random_seed": 7}


@pytest.fixture(autouse=True)
def measured(consortium: Consortium) -> None:
    """Nodes that say how long their steps were."""
    for node in consortium.nodes.values():
        node.learning_rates = 0.4


@pytest.mark.parametrize("aggregator", [Scaffold, FedAdam])
def test_it_goes_on_bit_by_bit_from_a_breakpoint(
    aggregator: type, make: Make, federation: Federation, consortium: Consortium
) -> None:
    """Its tensors are in it."""
    whole = make(aggregator=aggregator(server_lr=0.5), training_args=COUNTED)
    whole.run()
    halved = make(aggregator=aggregator(server_lr=0.5), training_args=COUNTED)
    halved.run(2)
    resumed = Experiment.load_breakpoint(halved.breakpoint(), federation=federation)
    resumed.run()

    assert same(resumed.parameters(), whole.parameters())
    assert repr(resumed.aggregator()) == repr(whole.aggregator())


@pytest.mark.parametrize("at", ["researcher_kit.breakpoints.save", "researcher_kit.spool.write_tensors"])
def test_a_round_that_a_full_disk_cut_short_counts_once(
    at: str, make: Make, monkeypatch: pytest.MonkeyPatch, consortium: Consortium
) -> None:
    """Momentum that is added twice would be another experiment."""
    whole = make(aggregator=FedAdam(), training_args=COUNTED)
    whole.run()
    experiment = make(aggregator=FedAdam(), training_args=COUNTED)
    experiment.run(1)

    def full(*_: object, **__: object) -> None:
        raise FedWardError("full", code=Code.DISK_FULL)

    with monkeypatch.context() as patch:
        patch.setattr(at, full)
        with pytest.raises(FedWardError, match="full"):
            experiment.run()
    experiment.run()

    assert same(experiment.parameters(), whole.parameters())


def test_a_crash_behind_the_aggregation_loses_no_memory(
    make: Make, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next parameters lie in the spool; so does what the aggregator remembers of making them."""
    whole = make(aggregator=FedAdam(), training_args=COUNTED)
    whole.run()
    experiment = make(aggregator=FedAdam(), training_args=COUNTED)
    experiment.run(1)
    saved = breakpoints_module.folder_of(experiment.experimentation_path(), 1)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("researcher_kit.breakpoints.save", crash)
        with pytest.raises(KeyboardInterrupt):
            experiment.run()
    resumed = Experiment.load_breakpoint(saved, federation=federation)
    resumed.run()

    assert same(resumed.parameters(), whole.parameters())


def test_nodes_get_the_variate_and_the_model_stays_as_it_is(make: Make, consortium: Consortium) -> None:
    """From the second round on; none of it is in the global parameters."""
    experiment = make(aggregator=Scaffold(), training_args=COUNTED)
    experiment.run(1)
    assert consortium.nodes["north"].sent == {}
    experiment.run()

    names = set(experiment.parameters())
    floats = {name for name, array in experiment.parameters().items() if array.dtype.kind == "f"}
    trained = {name for name in floats if "running" not in name}
    assert set(consortium.nodes["north"].sent) == {f"aggregator/{name}" for name in trained}
    assert not any(name.startswith("aggregator") for name in names)


def test_an_altered_memory_is_refused(make: Make, federation: Federation) -> None:
    """Like altered parameters."""
    experiment = make(aggregator=Scaffold(), training_args=COUNTED)
    experiment.run(1)
    folder = experiment.breakpoint()
    path: Path = folder / breakpoints_module.AGGREGATOR_FILE
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\1\0")

    with pytest.raises(BreakpointError, match=r"aggregator\.safetensors: altered"):
        Experiment.load_breakpoint(folder, federation=federation)


def test_scaffold_says_before_the_first_request_what_it_needs(make: Make, consortium: Consortium) -> None:
    """Not after an hour of training."""
    with pytest.raises(ExperimentArgumentError, match="counts updates"):
        make(aggregator=Scaffold()).run()
    assert consortium.nodes["north"].trained == []
