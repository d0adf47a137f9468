"""Tests of the global parameters without training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.protocol.counts import Counts, CountsForm
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import Train
from researcher_kit import EarlyStopping, Experiment, Scaffold
from researcher_kit.errors import ExperimentArgumentError, NodeFailedError
from tests.simulator import Consortium
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]
TESTED = {"epochs": 1, "random_seed": 7, "test_ratio": 0.2}


@pytest.fixture
def asked(consortium: Consortium) -> list[tuple[str, Train, dict]]:
    """What each node was asked, with which parameters; all say how good a model is by the round."""
    seen: list[tuple[str, Train, dict]] = []
    for node in consortium.nodes.values():
        honest = node.train

        def noting(node, train, parameters, honest=honest):
            seen.append((node.member_id, train, parameters))
            return honest(node, train, parameters)

        node.train = noting
        node.scores = lambda round_, west=node.member_id == "west": {"AUC": 0.5 + round_ / 10 - 0.3 * west}
    return seen


def test_the_parameters_are_tested_at_each_node_and_stay_as_they_are(make: Make, asked: list) -> None:
    """And so do history and round."""
    experiment = make(training_args=TESTED)
    experiment.run(2)
    before, history = experiment.parameters(), experiment.history
    del asked[:]
    found = experiment.evaluate()

    assert [(node, train.train) for node, train, _ in sorted(asked, key=lambda one: one[0])] == [
        ("north", False), ("south", False), ("west", False),
    ]  # fmt: skip
    assert all(same(parameters, before) for _, _, parameters in asked)
    assert {node: round(values["AUC"], 6) for node, values in found.metrics.items()} == {
        "north": 0.8, "south": 0.8, "west": 0.5,
    }  # fmt: skip
    assert found.mean["AUC"] == pytest.approx(0.7)
    assert found.samples == {"north": 20, "south": 20, "west": 20}
    assert str(found).startswith("Test of the parameters after round 2")
    assert same(experiment.parameters(), before)
    assert experiment.history == history
    assert experiment.run() == 1


def test_it_may_be_asked_before_the_first_round_and_after_the_last(make: Make, asked: list) -> None:
    """How good is the model that we begin with, and the one that we publish?"""
    experiment = make(training_args=TESTED)
    first = experiment.evaluate()
    experiment.run()
    last = experiment.evaluate()

    assert first.title.endswith("round 0")
    assert last.title.endswith("round 3")
    assert last.mean["AUC"] > first.mean["AUC"]


def test_another_site_can_be_asked(make: Make, asked: list) -> None:
    """One that never trained, with all of its records."""
    experiment = make(training_args=TESTED, nodes=["north", "south"])
    experiment.run()
    del asked[:]
    found = experiment.evaluate(nodes=["west"], test_ratio=1.0)

    assert [(node, train.training_args["test_ratio"]) for node, train, _ in asked] == [("west", 1.0)]
    assert set(found.metrics) == {"west"}
    assert experiment.training_data().keys() == {"north", "south"}


def test_the_best_parameters_can_be_tested(make: Make, asked: list, consortium: Consortium) -> None:
    """Not the last ones, when those are worse."""
    for node in consortium.nodes.values():
        node.scores = lambda round_: {"AUC": [0.5, 0.9, 0.6, 0.6][round_ - 1]}
    experiment = make(
        training_args=TESTED | {"test_on_global_updates": True}, early_stopping=EarlyStopping("AUC", patience=9)
    )
    experiment.run()
    del asked[:]
    found = experiment.evaluate(best=True)

    assert all(same(parameters, experiment.best_parameters()) for _, _, parameters in asked)
    assert found.title.endswith("round 1")


def test_an_aggregators_tensors_do_not_travel_with_a_test(make: Make, asked: list, consortium: Consortium) -> None:
    """Nobody corrects a gradient there."""
    for node in consortium.nodes.values():
        node.learning_rates = 0.4
    experiment = make(training_args={"num_updates": 2, "random_seed": 7, "test_ratio": 0.2}, aggregator=Scaffold())
    experiment.run(1)
    experiment.evaluate()

    assert consortium.nodes["north"].sent == {}
    assert asked[-1][1].aggregator_args == {}


def test_a_node_that_fails_spoils_nobodys_test(make: Make, asked: list, consortium: Consortium) -> None:
    """It is in the table with its reason; when all fail, that is an error."""
    experiment = make(training_args=TESTED)
    experiment.run(1)

    def failing(*_: object) -> None:
        raise FedWardError("no", code=Code.TRAINING_FAILED)

    consortium.nodes["west"].train = failing
    found = experiment.evaluate()
    assert set(found.metrics) == {"north", "south"}
    assert [(lost.node_id, lost.code) for lost in found.failures] == [("west", Code.TRAINING_FAILED)]
    assert "TRAINING_FAILED" in str(found)

    for node in consortium.nodes.values():
        node.train = failing
    with pytest.raises(NodeFailedError):
        experiment.evaluate()
    assert experiment.round_current() == 1


def test_without_anything_held_out_it_is_refused(make: Make) -> None:
    """The nodes would test on nothing, and say nothing."""
    with pytest.raises(ExperimentArgumentError, match="Nothing is held out"):
        make().evaluate()


def test_a_metric_is_pooled_over_the_nodes_where_their_counts_allow_it(make: Make, consortium: Consortium) -> None:
    """A mean of recalls weighs a hospital with one patient as much as one with nineteen."""
    found = {"north": 1.0, "south": 18.0, "west": 4.0}
    for name, node in consortium.nodes.items():
        part, whole = found[name], {"north": 1.0, "south": 19.0, "west": 5.0}[name]
        node.scores = lambda _round, value=part / whole: {"RECALL": value, "lesions": value}
        node.counts = lambda _round, part=part, whole=whole: {
            "RECALL": Counts(form=CountsForm.CLASSES, rows=1, cells=(part, part, whole)),
            "lesions": Counts(form=CountsForm.RATIO, rows=1, cells=(part, whole)),
        }
    experiment = make(training_args=TESTED)
    experiment.run(1)
    pooled, evaluation = experiment.history[-1].pooled(), experiment.evaluate()

    assert {name: each.value for name, each in pooled.items()} == dict.fromkeys(("RECALL", "lesions"), 23 / 25)
    assert (pooled["RECALL"].nodes, pooled["RECALL"].samples) == (3, 60)
    assert evaluation.pooled == pooled
    assert "pooled" in str(evaluation)
    assert "RECALL=0.92" in str(experiment.history)
    assert (
        "RECALL: 0.92, 60 records at 3 nodes"
        in (experiment.export(consortium.folder / "m") / "model_card.md").read_text()
    )
