"""A model's files, and the card that says where it comes from."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.tensors import TensorFile
from researcher_kit import EarlyStopping, Experiment, Federation, Quorum
from researcher_kit.breakpoints import file_sha256
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.monitor import NodeFailed
from tests.simulator import Consortium
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]
TESTED = {"epochs": 1, "random_seed": 7, "test_ratio": 0.2, "test_on_global_updates": True}


def test_the_model_can_be_opened_without_fedward(make: Make, tmp_path: Path) -> None:
    """By safetensors, and by torch.load with weights_only."""
    experiment = make()
    experiment.run()
    folder = experiment.export(tmp_path / "model")
    parameters = experiment.parameters()

    assert same(dict(TensorFile(folder / "model.safetensors")), parameters)
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    assert same({name: tensor.numpy() for name, tensor in state.items()}, parameters)
    experiment.training_plan().model().load_state_dict(state)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors", "model_card.json", "model_card.md", "state_dict.pt", "training_plan.py",
    ]  # fmt: skip


def test_the_card_says_what_was_trained_where_and_how(make: Make, consortium: Consortium, tmp_path: Path) -> None:
    """For whoever has to answer for the model, years later."""
    for node in consortium.nodes.values():
        node.scores = lambda round_: {"AUC": 0.5 + round_ / 10}
    experiment = make(name="Bleeding | after a year", training_args=TESTED)
    experiment.run()
    folder = experiment.export(tmp_path / "model")
    card = json.loads((folder / "model_card.json").read_text())
    text = (folder / "model_card.md").read_text()

    assert card["rounds"] == card["parameters_after_round"] == 3
    assert set(card["datasets"]) == {"north", "south", "west"}
    assert card["datasets"]["north"]["fingerprint"] == consortium.nodes["north"].datasets[0].fingerprint
    assert card["metrics"]["global"]["west"] == {"AUC": 0.8}
    assert card["training_args"]["random_seed"] == 7
    assert "torch" in card["versions"]
    for name, sha256 in card["files_sha256"].items():
        assert file_sha256(folder / name) == sha256
    assert text.startswith("# Bleeding \\| after a year\n")
    assert f"| west | {card['institutions']['west']} |" in text
    assert "| west | 0.8 |" in text
    assert (folder / "training_plan.py").read_text() == experiment.training_plan_text()


def test_the_card_tells_of_hospitals_that_were_missing(make: Make, consortium: Consortium, tmp_path: Path) -> None:
    """A model that never saw a hospital should not be said to have."""
    has_failed = threading.Event()
    training = consortium.nodes["north"].train

    def failing(*_: object) -> None:
        raise FedWardError("no", code=Code.TRAINING_FAILED)

    def afterwards(*arguments: Any) -> Any:
        assert has_failed.wait(20)  # a quorum that was met before would call west late
        return training(*arguments)

    consortium.nodes["west"].train = failing
    consortium.nodes["north"].train = afterwards

    experiment = make(strategy=Quorum(0.6, deadline_s=20), round_limit=1)
    experiment.on_event(lambda event: has_failed.set() if isinstance(event, NodeFailed) else None)
    experiment.run()
    text = (experiment.export(tmp_path / "model") / "model_card.md").read_text()

    assert "- round 1: west (TRAINING_FAILED)" in text


def test_the_best_parameters_can_be_exported(make: Make, consortium: Consortium, tmp_path: Path) -> None:
    """And the card says after which round they were the global ones."""
    for node in consortium.nodes.values():
        node.scores = lambda round_: {"AUC": [0.5, 0.9, 0.6][round_ - 1]}
    experiment = make(training_args=TESTED, early_stopping=EarlyStopping("AUC", patience=9))
    experiment.run()
    folder = experiment.export(tmp_path / "best", best=True)

    assert same(dict(TensorFile(folder / "model.safetensors")), experiment.best_parameters())
    assert json.loads((folder / "model_card.json").read_text())["parameters_after_round"] == 1


def test_a_breakpoints_experiment_can_be_exported(make: Make, federation: Federation, tmp_path: Path) -> None:
    """Fingerprints of the data are in it."""
    experiment = make(round_limit=1)
    experiment.run()
    resumed = Experiment.load_breakpoint(experiment.breakpoint(), federation=federation)
    cards = [json.loads((one.export(tmp_path / str(i)) / "model_card.json").read_text()) for i, one in
             enumerate((experiment, resumed))]  # fmt: skip

    assert cards[0] == cards[1]


def test_nothing_is_overwritten_and_nothing_half_done_stays(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with last month's model is left as it is; a full disk leaves none."""
    experiment = make(round_limit=1)
    experiment.run()
    (tmp_path / "model").mkdir()
    with pytest.raises(ExperimentArgumentError, match="is there already"):
        experiment.export(tmp_path / "model")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("researcher_kit.export.write_tensors", full)
    with pytest.raises(FedWardError, match="No space left") as caught:
        experiment.export(tmp_path / "other")
    assert caught.value.code is Code.DISK_FULL
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []


def test_a_model_of_noughts_is_a_model(make: Make, tmp_path: Path) -> None:
    """Before the first round, the parameters are those that the model starts with."""
    folder = make().export(tmp_path / "model")

    assert json.loads((folder / "model_card.json").read_text())["rounds"] == 0
    assert all(np.isfinite(array).all() for array in TensorFile(folder / "model.safetensors").values())
