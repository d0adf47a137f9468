"""Early stopping, the best parameters, and training arguments that change from round to round."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.protocol.counts import Counts, CountsForm
from appliance.training import ArgumentInvalidError
from researcher_kit import Cosine, EarlyStopping, Experiment, Exponential, Federation, Steps
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.monitor import StoppedEarly
from tests.simulator import Consortium
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]
AUC = [0.5, 0.7, 0.6, 0.69, 0.8, 0.9]  # of the parameters that each round begins with
TESTED = {"epochs": 1, "random_seed": 7, "test_ratio": 0.2, "test_on_global_updates": True}


@pytest.fixture
def scored(consortium: Consortium) -> Consortium:
    """Hospitals whose tests say these numbers; two of three a little more, one a little less."""
    for node in consortium.nodes.values():
        shift = -0.02 if node.member_id == "west" else 0.01
        node.scores = lambda round_, shift=shift: {"AUC": AUC[round_ - 1] + shift, "MSE": 1 - AUC[round_ - 1]}
    return consortium


def test_it_ends_when_nothing_gets_better_and_keeps_the_best(scored: Consortium, make: Make) -> None:
    """After round 4, two tests have not reached the 0.7 of the parameters after round 1."""
    told: list[object] = []
    one = make(round_limit=1)
    one.run()
    experiment = make(round_limit=6, training_args=TESTED, early_stopping=EarlyStopping("AUC", patience=2))
    experiment.on_event(told.append)

    assert experiment.run() == 4
    best = experiment.best_round()
    assert best is not None
    assert (best.round, best.metric, round(best.value, 6)) == (1, "AUC", 0.7)
    assert same(experiment.best_parameters(), one.parameters())
    assert [event for event in told if isinstance(event, StoppedEarly)] == [StoppedEarly(4, best)]
    assert experiment.run() == 0


FOUND = {"north": [2, 0, 1], "west": [2, 0, 1], "south": [2, 10, 5]}  # of these, in three rounds
POSITIVE = {"north": 2, "west": 2, "south": 16}


@pytest.mark.parametrize(
    ("withheld", "over", "best"),
    [(set(), "pooled", 1), ({1, 2, 3}, "mean", 0), ({1}, "mean", 0), ({2}, "pooled", 2)],
)
def test_it_goes_by_the_pooled_value_where_there_is_one(
    consortium: Consortium, make: Make, withheld: set[int], over: str, best: int
) -> None:
    """By all patients the second model is best, by the hospitals' mean the first: most patients are at south.

    What it goes by is settled by the first test; a round that west keeps its counts of is passed over then.
    """
    for name, node in consortium.nodes.items():

        def scores(round_: int, name: str = name) -> dict[str, float]:
            return {"RECALL": FOUND[name][round_ - 1] / POSITIVE[name]}

        def counts(round_: int, name: str = name) -> dict[str, Counts]:
            if name == "west" and round_ in withheld:
                return {}
            found = float(FOUND[name][round_ - 1])
            return {"RECALL": Counts(form=CountsForm.CLASSES, rows=1, cells=(found, found, float(POSITIVE[name])))}

        node.scores, node.counts = scores, counts
    experiment = make(round_limit=3, training_args=TESTED, early_stopping=EarlyStopping("RECALL", patience=9))
    experiment.run()
    found = experiment.best_round()

    assert found is not None
    assert (found.over, found.round) == (over, best)
    assert f"({over}), after round {best}" in str(found)
    card = (experiment.export(consortium.folder / "best", best=True) / "model_card.md").read_text()
    assert f"RECALL={found.value:.4g} ({over})" in card


def test_patience_bridges_a_dip(scored: Consortium, make: Make) -> None:
    """With three rounds of patience the model comes to 0.9."""
    experiment = make(round_limit=6, training_args=TESTED, early_stopping=EarlyStopping("AUC", patience=3))

    assert experiment.run() == 6
    best = experiment.best_round()
    assert best is not None
    assert best.round == 5


def test_it_is_the_same_after_a_restart(scored: Consortium, make: Make, federation: Federation) -> None:
    """The best parameters are in the breakpoint, and what is over stays over."""
    stopping = EarlyStopping("AUC", patience=2)
    experiment = make(round_limit=6, training_args=TESTED, early_stopping=stopping)
    experiment.run(3)
    resumed = Experiment.load_breakpoint(experiment.breakpoint(), federation=federation)

    assert resumed.run() == 1
    assert resumed.best_round() == experiment.best_round()
    assert same(resumed.best_parameters(), experiment.best_parameters())
    assert repr(resumed.early_stopping()) == repr(stopping)
    resumed.set_early_stopping(None)
    assert resumed.run() == 2


@pytest.mark.parametrize(("change", "end"), [(0.0, 6), (0.15, 3)])
def test_less_is_better_where_the_name_says_so(scored: Consortium, make: Make, change: float, end: int) -> None:
    """MSE falls from 0.5 to 0.3 and rises to 0.4; a minimum change lets small gains not count."""
    stopping = EarlyStopping("MSE", patience=3 if not change else 1, minimum_change=change)
    experiment = make(round_limit=6, training_args=TESTED, early_stopping=stopping)

    assert experiment.run() == end


def test_without_a_test_it_is_refused_at_once(make: Make) -> None:
    """It would never stop, and nobody would know why."""
    experiment = make(early_stopping=EarlyStopping("AUC"))
    with pytest.raises(ExperimentArgumentError, match="needs tests of the global parameters"):
        experiment.run()
    with pytest.raises(ExperimentArgumentError, match="No parameters were tested"):
        experiment.best_parameters()


def test_a_metric_that_the_tests_do_not_say_is_refused_at_once(make: Make) -> None:
    """It would wait for it until the round limit."""
    experiment = make(training_args=TESTED | {"test_metric": "ACCURACY"}, early_stopping=EarlyStopping("AUC"))
    with pytest.raises(ExperimentArgumentError, match="waits for 'AUC', and the tests say ACCURACY"):
        experiment.run()


@pytest.mark.parametrize(
    "wrong", [{"patience": 0}, {"patience": 1.5}, {"minimum_change": -1}, {"mode": "most"}, {"minimum_change": "x"}]
)
def test_an_argument_out_of_its_range_is_refused(wrong: dict[str, object]) -> None:
    """Where it is typed."""
    with pytest.raises(ExperimentArgumentError, match="expected"):
        EarlyStopping("AUC", **wrong)  # type: ignore[arg-type]


def test_nodes_get_the_value_of_the_round(consortium: Consortium, make: Make, federation: Federation) -> None:
    """Also after a restart in between."""
    seen: list[object] = []
    north = consortium.nodes["north"]
    honest = north.train
    north.train = lambda node, train, parameters: (seen.append(train.training_args), honest(node, train, parameters))[1]
    schedules = {"optimizer_args.lr": Exponential(0.1, factor=0.5), "batch_size": Steps({1: 8, 3: 16})}
    experiment = make(training_args={"epochs": 1, "optimizer_args": {"lr": 9, "momentum": 0.5}}, schedules=schedules)
    experiment.run(2)
    resumed = Experiment.load_breakpoint(experiment.breakpoint(), federation=federation)
    resumed.run()

    assert [args["optimizer_args"] for args in seen] == [{"lr": lr, "momentum": 0.5} for lr in (0.1, 0.05, 0.025)]
    assert [args["batch_size"] for args in seen] == [8, 8, 16]
    assert resumed.schedules() == schedules


@pytest.mark.parametrize("schedule", [{"batch_size": Steps({1: 0})}, {"batchsize": Steps({1: 4})}])
def test_a_value_that_no_node_would_take_is_refused_where_it_is_typed(make: Make, schedule: dict[str, Steps]) -> None:
    """Round 1 would fail at every hospital."""
    with pytest.raises(ArgumentInvalidError, match="batch"):
        make(schedules=schedule)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Steps({2: 0.1}),
        lambda: Steps({0: 0.1}),
        lambda: Exponential(0.1, factor=0),
        lambda: Cosine(1.0, rounds=1),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(wrong: Callable[[], object]) -> None:
    """With the name of what is wrong."""
    with pytest.raises(ExperimentArgumentError, match=r"Steps|Exponential|Cosine"):
        wrong()
