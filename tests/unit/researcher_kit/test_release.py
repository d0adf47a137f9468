"""A finished model on its way to the hospitals."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from appliance.protocol.messages import CARD_FILE, CARD_TEXT, MODEL_FILE
from researcher_kit import Experiment, LocalFederation
from researcher_kit.errors import ExperimentArgumentError
from tests.simulator import Consortium

Make = Callable[..., Experiment]


def test_every_node_that_trained_gets_the_model_and_its_card(
    make: Make, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes as an export has, and no file of code; the uploads are gone once all have them."""
    monkeypatch.setattr("researcher_kit.release.MAX_ENCLOSED_BYTES", 0)
    experiment = make(name="Bleeding risk")
    experiment.run()
    before = set(consortium.store.uploads)
    table = experiment.release()

    kept = [node.kept for node in consortium.nodes.values()]
    assert [set(files) for files in kept] == [{MODEL_FILE, CARD_FILE, CARD_TEXT}] * 3
    card = json.loads(kept[0][CARD_FILE])
    assert {answer.model_sha256 for answer in table.answers.values()} == {card["files_sha256"][MODEL_FILE]}
    assert "state_dict.pt" not in card["files_sha256"]
    assert b"Bleeding risk" in kept[2][CARD_TEXT]
    assert "kept" in str(table)
    assert consortium.store.uploads.keys() == before
    assert not list(experiment.experimentation_path().glob(".release-*"))


def test_a_small_model_needs_no_upload(make: Make, consortium: Consortium) -> None:
    """It travels inside its message."""
    experiment = make()
    experiment.run()
    before = consortium.store.uploaded["alice"]
    experiment.release("small", nodes=["south"])
    assert consortium.store.uploaded["alice"] == before
    assert consortium.nodes["south"].kept
    assert not consortium.nodes["north"].kept


def test_a_hospital_that_takes_no_model_says_so_in_the_table(make: Make, consortium: Consortium) -> None:
    """The others have it all the same."""
    consortium.nodes["west"].takes_no_models = True
    consortium.nodes["south"].is_silent = False
    experiment = make()
    experiment.run()
    table = experiment.release("risk")
    assert sorted(table.answers) == ["north", "south"]
    assert "This node takes no models." in str(table)


def test_a_node_that_is_away_is_told_of_in_the_table(make: Make, consortium: Consortium) -> None:
    """It has the message when it comes back, so it is no failure."""
    experiment = make()
    experiment.run()
    consortium.nodes["west"].is_silent = True
    table = experiment.release("risk", timeout_s=0.5)
    assert "west" in table.silent
    assert "It has a week to fetch the model." in str(table).replace("\n", " ")


def test_nothing_is_released_before_a_round_or_to_nobody(make: Make) -> None:
    """A model with its first random numbers would look like a finished one."""
    experiment = make()
    with pytest.raises(ExperimentArgumentError, match="no trained model"):
        experiment.release("risk")
    experiment.run()
    with pytest.raises(ExperimentArgumentError, match="nodes is empty"):
        experiment.release("risk", nodes=[])
    with pytest.raises(ExperimentArgumentError, match="129 characters"):
        experiment.release("x" * 129)


def test_a_rehearsal_has_nobody_to_send_a_model_to(make: Make) -> None:
    """Said at once: its nodes have no staff, and would never answer."""
    experiment = make()
    experiment.run()
    experiment._federation = object.__new__(LocalFederation)
    with pytest.raises(ExperimentArgumentError, match="no hospitals"):
        experiment.release("risk")
