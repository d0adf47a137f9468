"""Transfer learning: layers that no round trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.protocol.tensors import write_tensors
from researcher_kit import Experiment, Federation, Scaffold
from researcher_kit.errors import ExperimentArgumentError, NodeFailedError
from tests.simulator import Consortium
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]
PLAN = """from appliance.training import DataManager, TorchTrainingPlan
import torch


class Transfer(TorchTrainingPlan):
    def init_model(self, model_args):
        base = torch.nn.Linear(3, 8).requires_grad_(False)
        return torch.nn.Sequential(base, torch.nn.Linear(8, 1))

    def training_data(self):
        return DataManager(self.dataset.matrix(["x"]), self.dataset.matrix(["y"]))

    def training_step(self, data, target):
        return torch.nn.functional.mse_loss(self.model()(data), target)
"""


@pytest.fixture
def transfer(make: Make, tmp_path: Path) -> Make:
    """An experiment whose model has a frozen base."""
    (tmp_path / "plan.py").write_text(PLAN)
    return lambda **changes: make(training_plan_class=None, training_plan_file=tmp_path / "plan.py", **changes)


def test_only_what_is_trained_comes_back(transfer: Make, consortium: Consortium) -> None:
    """The nodes get the whole model; their updates hold the head alone."""
    transfer(round_limit=2).run()

    assert set(consortium.nodes["north"].sent) == {"frozen/0.weight", "frozen/0.bias"}


def test_the_global_model_stays_whole(transfer: Make) -> None:
    """It is exported, evaluated and gone on with as any other; the frozen layers are the very same bits."""
    before, after = transfer(), transfer(round_limit=3)
    after.run()

    first, last = before.parameters(), after.parameters()
    assert last.keys() == first.keys()
    assert same({n: first[n] for n in first if n[0] == "0"}, {n: last[n] for n in last if n[0] == "0"})
    assert np.abs(last["1.weight"] - first["1.weight"]).max() > 0


def layers(consortium: Consortium, node: str = "north") -> list[tuple[str | None, str]]:
    """The upload and the hash of the frozen layers that a node was given, by request."""
    return [(file.upload_id, file.sha256) for file in consortium.nodes[node].layers]


def test_frozen_layers_are_uploaded_once(transfer: Make, consortium: Consortium) -> None:
    """Of a large base with a small head, a round costs the head."""
    experiment = transfer(round_limit=3)
    experiment.run()
    first, *later = (record.parameters_bytes for record in experiment.history)

    assert len(set(layers(consortium))) == 1
    assert consortium.store.uploaded["alice"] == 4
    assert {first - each for each in later} == {consortium.nodes["north"].layers[0].size_bytes}


def test_small_frozen_layers_travel_with_the_parameters(transfer: Make, consortium: Consortium, encloses: None) -> None:
    """A file of its own would be one transfer more, not one less."""
    transfer(round_limit=2).run()

    assert not layers(consortium)
    assert set(consortium.nodes["north"].sent) == {"frozen/0.weight", "frozen/0.bias"}


def test_an_older_node_gets_the_whole_model(
    transfer: Make, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hospitals upgrade when they can, not when a researcher does."""
    monkeypatch.setattr("appliance.protocol.envelope.VERSION", "1.6")
    transfer(round_limit=1).run()

    assert not layers(consortium)
    assert set(consortium.nodes["north"].sent) == {"frozen/0.weight", "frozen/0.bias"}


def test_a_node_that_joins_can_fetch_them(transfer: Make, consortium: Consortium) -> None:
    """And to those that have them they are the same file, by its hash."""
    experiment = transfer(nodes=["north", "south"], round_limit=2, training_args={"test_ratio": 0.5})
    consortium.nodes["west"].scores = lambda _: {"loss": 0.5}
    experiment.run(1)
    experiment.evaluate(nodes=["west"])
    experiment.run()
    (first, sha256), (last, again) = layers(consortium)

    assert layers(consortium, "west") == [(last, sha256)]
    assert (again, last != first) == (sha256, True)
    assert first not in consortium.store.uploads


def test_layers_that_a_node_does_not_find_are_uploaded_again(transfer: Make, consortium: Consortium) -> None:
    """The network host keeps a file for so long; an experiment may sleep for longer."""
    experiment = transfer(round_limit=2)
    experiment.run(1)
    del consortium.store.uploads[str(layers(consortium)[0][0])]
    with pytest.raises(NodeFailedError, match="There is no upload"):
        experiment.run()
    experiment.run()

    assert len({sha256 for _, sha256 in layers(consortium)}) == 1
    assert len({upload_id for upload_id, _ in layers(consortium)}) == 2


def test_layers_that_are_about_to_expire_are_uploaded_again(
    transfer: Make, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that needs them would else come too late."""
    experiment = transfer(round_limit=2)
    experiment.run(1)
    monkeypatch.setattr("researcher_kit.frozen.RENEW_S", 0.0)
    experiment.run()

    assert len(set(layers(consortium))) == 2


def test_an_experiment_that_moved_uploads_them_anew(
    transfer: Make, federation: Federation, consortium: Consortium, tmp_path: Path
) -> None:
    """What was uploaded before, another machine's store does not know."""
    experiment = transfer(round_limit=2)
    experiment.run(1)
    saved = experiment.breakpoint()
    federation.close()
    with consortium.federation(store=tmp_path / "elsewhere.db") as elsewhere:
        Experiment.load_breakpoint(saved, federation=elsewhere).run()

    assert len({sha256 for _, sha256 in layers(consortium)}) == 2


def test_a_plan_that_thaws_its_base_trains_it(transfer: Make, consortium: Consortium, tmp_path: Path) -> None:
    """To freeze at first and to thaw later is how many fine-tune."""
    experiment = transfer(round_limit=2)
    experiment.run(1)
    (tmp_path / "thawed.py").write_text(PLAN.replace(".requires_grad_(False)", ""))
    experiment.set_training_plan_file(tmp_path / "thawed.py")
    experiment.run()

    assert len(layers(consortium)) == 1
    assert consortium.nodes["north"].sent == {}


def test_an_aggregator_sees_only_what_is_trained(transfer: Make, consortium: Consortium) -> None:
    """Nor does it keep anything for the rest."""
    for node in consortium.nodes.values():
        node.learning_rates = 0.4
    experiment = transfer(aggregator=Scaffold(), training_args={"num_updates": 2, "random_seed": 7})
    experiment.run()

    assert set(experiment._aggregator.node_tensors()) == {"1.weight", "1.bias"}


def test_a_breakpoint_knows_what_is_frozen(transfer: Make, federation: Federation, consortium: Consortium) -> None:
    """Else the next round would ask for updates of all tensors."""
    experiment = transfer(round_limit=2)
    experiment.run(1)
    Experiment.load_breakpoint(experiment.breakpoint(), federation=federation).run()

    assert set(consortium.nodes["north"].sent) == {"frozen/0.weight", "frozen/0.bias"}


def test_it_begins_with_a_model_that_was_trained_elsewhere(transfer: Make, tmp_path: Path) -> None:
    """Hospitals fetch nothing from the internet: the base comes from the researcher."""
    write_tensors({"0.weight": np.full((8, 3), 4, np.float32)}, tmp_path / "base.safetensors")
    experiment = transfer(round_limit=1)
    experiment.start_from(tmp_path / "base.safetensors")
    experiment.run()

    assert (experiment.parameters()["0.weight"] == 4).all()


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"0.wieght": np.zeros((8, 3))}, "no tensor '0.wieght'.*0.weight"), ({"0.bias": np.zeros(3)}, r"is \(3,\)")],
)
def test_other_tensors_than_the_models_are_refused(transfer: Make, given: dict[str, np.ndarray], reason: str) -> None:
    """Where they are typed: a base that silently stays random is not found for weeks."""
    with pytest.raises(ExperimentArgumentError, match=reason):
        transfer().start_from(given)


def test_a_trained_model_is_not_overwritten(transfer: Make) -> None:
    """By a cell of the notebook that is run again."""
    experiment = transfer()
    experiment.run(1)

    with pytest.raises(ExperimentArgumentError, match="trained for 1 rounds"):
        experiment.start_from({})
