"""The same experiment many times, and a table of what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import Train
from appliance.training import ArgumentInvalidError
from researcher_kit import Campaign, FedAdam, FedAverage, Federation, cross_validate, sweep
from researcher_kit.errors import ExperimentArgumentError, ExperimentBusyError, NodeFailedError
from tests.simulator import Arrays, Consortium, SimulatedNode, drift
from tests.unit.researcher_kit.conftest import SETTINGS

ARGUMENTS = SETTINGS["training_args"] | {"test_metric": "AUC"}
Make = Callable[..., Campaign]


class Hospitals:
    """Nodes whose tests say what ``score`` makes of the training arguments."""

    def __init__(self, consortium: Consortium) -> None:
        self.seen: list[dict[str, Any]] = []  # the arguments of each training, at one node
        self.fails: Callable[[dict[str, Any]], Code | None] = lambda _arguments: None
        self.score: Callable[[dict[str, Any]], float] = lambda arguments: arguments.get("fold", 0) / 10
        for node in consortium.nodes.values():
            node.train, node.scores = self._train, self._scores

    def _train(self, node: SimulatedNode, request: Train, parameters: Arrays) -> tuple[Arrays, int]:
        self._last = request.training_args
        if request.train and node.member_id == "north":
            self.seen.append(request.training_args)
        if request.train and (code := self.fails(request.training_args)):
            raise FedWardError("It broke.", code=code)
        return drift(node, request, parameters)

    def _scores(self, _round: int) -> dict[str, float]:
        return {"AUC": self.score(self._last)}


@pytest.fixture
def hospitals(consortium: Consortium) -> Hospitals:
    """Three hospitals with one mind."""
    return Hospitals(consortium)


@pytest.fixture
def make(federation: Federation, tmp_path: Path) -> Make:
    """A campaign that could run, but for what the test changes."""

    def making(kind: Callable[..., Campaign], *positional: object, **changes: object) -> Campaign:
        known = {**SETTINGS, "training_args": ARGUMENTS, "round_limit": 1, "federation": federation, "progress": False}
        return kind(*positional, **(known | {"folder": tmp_path / "campaign"} | changes))

    return making


def test_cross_validation_holds_out_each_part_once(make: Make, hospitals: Hospitals) -> None:
    """What a reader of a paper asks for: a mean over all records, and how far it can be trusted."""
    campaign = make(cross_validate, 3)
    table = str(campaign.run())

    assert [(seen["folds"], seen["fold"]) for seen in hospitals.seen] == [(3, 0), (3, 1), (3, 2)]
    assert "0.1 ± 0.1" in table
    assert campaign.best().mean == pytest.approx(0.1)
    assert campaign.best().deviation == pytest.approx(0.1)


def test_a_sweep_tries_every_combination_and_tells_the_best(make: Make, hospitals: Hospitals) -> None:
    """Of plans with two settings one cannot be found without the other."""
    hospitals.score = lambda arguments: 1 - abs(arguments["optimizer_args"]["lr"] - 0.1) - arguments["fold"] / 100
    grid = {"optimizer_args.lr": [0.01, 0.1], "aggregator": [FedAverage(), FedAdam()]}
    campaign = make(sweep, grid, folds=2)
    rows = campaign.run().rows

    assert [row[:3] for row in rows] == [
        ("0.01", "FedAverage()", "2 of 2"), ("0.01", repr(FedAdam()), "2 of 2"),
        ("0.1", "FedAverage()", "2 of 2"), ("0.1", repr(FedAdam()), "2 of 2"),
    ]  # fmt: skip
    assert [row[-1] for row in rows] == ["", "", "best", ""]
    assert campaign.best().point["optimizer_args.lr"] == "0.1"


def test_less_is_better_where_it_is(make: Make, hospitals: Hospitals) -> None:
    """A sweep over an error must not name the worst."""
    hospitals.score = lambda arguments: arguments["optimizer_args"]["lr"]
    campaign = make(sweep, {"optimizer_args.lr": [0.5, 0.1]}, seeds=[1, 2], folds=2, mode="min")
    campaign.run()

    assert campaign.best().point == {"optimizer_args.lr": "0.1"}
    assert {seen["random_seed"] for seen in hospitals.seen} == {1, 2}


def test_a_campaign_goes_on_where_it_was_cut(make: Make, hospitals: Hospitals) -> None:
    """A hospital that is away in the night costs the morning, not what is done."""
    hospitals.fails = lambda arguments: Code.DATASET_SUSPENDED if arguments["fold"] == 1 else None
    with pytest.raises(NodeFailedError):
        make(cross_validate, 3).run()
    hospitals.fails = lambda _arguments: None
    hospitals.seen.clear()
    later = make(cross_validate, 3)
    later.run()

    assert [seen["fold"] for seen in hospitals.seen] == [1, 2]
    assert later.best().runs == 3


def test_a_run_that_breaks_by_its_own_arguments_is_told_and_passed(make: Make, hospitals: Hospitals) -> None:
    """At some learning rate everything diverges: that is a result."""
    hospitals.fails = lambda arguments: Code.TRAINING_FAILED if arguments["optimizer_args"]["lr"] > 1 else None
    campaign = make(sweep, {"optimizer_args.lr": [10.0, 0.1]}, folds=2)
    campaign.run()

    first, second = campaign.summaries()
    assert (first.mean, first.failed, second.runs) == (None, 2, 2)
    assert "TRAINING_FAILED" in str(campaign.table())


def test_failed_runs_can_be_run_again(make: Make, hospitals: Hospitals) -> None:
    """A machine with more memory may bring them through; what is over stays."""
    hospitals.fails = lambda arguments: Code.RUNNER_LIMIT if arguments["fold"] == 0 else None
    campaign = make(cross_validate, 2)
    campaign.run()
    hospitals.fails = lambda _arguments: None
    hospitals.seen.clear()
    campaign.run(again=True)

    assert [seen["fold"] for seen in hospitals.seen] == [0]
    assert campaign.best().failed == 0


@pytest.mark.parametrize(
    ("kind", "changes", "error", "said"),
    [
        (cross_validate, {"folds": 1}, ExperimentArgumentError, "folds is 1"),
        (cross_validate, {"mode": "best"}, ExperimentArgumentError, "mode is 'best'"),
        (cross_validate, {"seeds": [1, 1]}, ExperimentArgumentError, "seeds is"),
        (cross_validate, {"name": "x"}, ExperimentArgumentError, "gives its runs 'name' itself"),
        (cross_validate, {"tag": ["x"]}, ExperimentArgumentError, "Did you mean 'tags'"),
        (cross_validate, {"tags": None}, ExperimentArgumentError, "not complete"),
        (cross_validate, {"training_args": {"epoch": 1}}, ArgumentInvalidError, "Did you mean 'epochs'"),
        (sweep, {"grid": {"epochs": []}}, ExperimentArgumentError, "expected a list of some"),
        (sweep, {"grid": {"epochs": [1, 1]}}, ExperimentArgumentError, "a value twice"),
        (sweep, {"grid": {"epochs": [1, 0]}}, ArgumentInvalidError, "'epochs' is 0"),
        (sweep, {"grid": {"epochs.lr": [1]}}, ExperimentArgumentError, "cannot be set: 'epochs' is 1"),
        (sweep, {"grid": {"model_args.inputs": [3, "x"]}}, TypeError, "must be tuple of ints"),
        (sweep, {"grid": {"epochs": [1]}, "folds": None}, ExperimentArgumentError, "Nothing is held out"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_run(
    make: Make, hospitals: Hospitals, kind: Callable[..., Campaign], changes: dict[str, Any], error: type, said: str
) -> None:
    """Not after the first night, at the run that has them."""
    with pytest.raises(error, match=said):
        make(kind, **({"folds": 2} | changes)).run()
    assert hospitals.seen == []


def test_a_folder_holds_one_campaign(make: Make, hospitals: Hospitals) -> None:
    """Results of other arguments must not be taken for those of these."""
    make(cross_validate, 2).run()
    trained = len(hospitals.seen)

    with pytest.raises(ExperimentArgumentError, match="holds another campaign"):
        make(cross_validate, 2, training_args=ARGUMENTS | {"epochs": 2}).run()
    assert len(hospitals.seen) == trained


def test_a_campaign_does_not_run_twice_at_once(make: Make, hospitals: Hospitals) -> None:
    """Two notebooks would overwrite each other's breakpoints."""
    refused: list[FedWardError] = []

    def run_another(_arguments: dict[str, Any]) -> Code | None:
        if not refused:
            with pytest.raises(ExperimentBusyError) as caught:
                make(cross_validate, 2).run()
            refused.append(caught.value)
        return None

    hospitals.fails = run_another
    make(cross_validate, 2).run()

    assert "runs already" in refused[0].message


def test_a_runs_experiment_can_be_looked_at(make: Make, hospitals: Hospitals) -> None:
    """For its curves and its export."""
    campaign = make(cross_validate, 2)
    campaign.run()

    assert campaign.experiment(2).round_current() == 1
    assert campaign.experiment(campaign.runs[0]).training_args()["fold"] == 0
    with pytest.raises(ExperimentArgumentError, match="no run 3"):
        campaign.experiment(3)


def test_a_campaign_is_drawn(make: Make, hospitals: Hospitals) -> None:
    """A number along the axis becomes a curve, anything else a row for each point."""
    curve, rows = (
        make(sweep, grid, folds=2, folder=Path(make(cross_validate).folder.parent, name))
        for name, grid in (("curve", {"optimizer_args.lr": [0.1, 0.01]}), ("rows", {"strategy": [None, None][:1]}))
    )
    for campaign in (curve, rows):
        campaign.run()

    assert curve.plot().axes[0].get_xlabel() == "optimizer_args.lr"
    assert rows.plot().axes[0].get_xlabel() == "AUC"


def test_what_is_not_there_is_said(make: Make, hospitals: Hospitals) -> None:
    """A metric that no test returns, or none yet."""
    campaign = make(cross_validate, 2)
    with pytest.raises(ExperimentArgumentError, match="No run is over"):
        campaign.best()
    campaign.run()

    with pytest.raises(ExperimentArgumentError, match="Did you mean 'AUC'"):
        campaign.best("AUCC")


def test_a_metric_that_no_test_returns_is_noticed_after_the_first_run(make: Make, hospitals: Hospitals) -> None:
    """Not when all are paid for; what the first one came to stays, and the campaign goes on with the right name."""
    campaign = make(sweep, {"epochs": [1, 2]}, folds=2, metric="AUCC")
    with pytest.raises(ExperimentArgumentError, match="Did you mean 'AUC'"):
        campaign.run()
    assert len(hospitals.seen) == 1
    assert [row[-1] for row in campaign.results().rows] == ["", ""]

    campaign.metric = "AUC"
    campaign.run()
    assert len(hospitals.seen) == 4
