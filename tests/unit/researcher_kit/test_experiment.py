"""An experiment, from its settings to its last round."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import ErrorReply, Metrics, PlanState, Train, TrainReply
from appliance.training import ArgumentInvalidError
from researcher_kit import AllNodes, Experiment, FedAverage, Federation, Quorum
from researcher_kit.errors import (
    AggregationError,
    DatasetChoiceError,
    ExperimentArgumentError,
    ExperimentBusyError,
    NoDatasetError,
    NodeFailedError,
    PlanNotApprovedError,
    QuorumMissedError,
    RoundStoppedError,
)
from researcher_kit.history import History, NodeRecord, RoundRecord, RoundTiming
from researcher_kit.monitor import (
    Event,
    Interrupted,
    NodeFailed,
    NodeGaveUp,
    NodeReceived,
    NodeReplied,
    Progress,
    RoundClosed,
    RoundStarted,
)
from tests.simulator import Arrays, Consortium, SimulatedNode, dataset, drift
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]


def failing(code: Code, message: str = "It broke.", rule: str | None = None):
    """A training that fails."""

    def train(_node: SimulatedNode, _train: Train, _parameters: Arrays):
        raise FedWardError(message, code=code, rule=rule)

    return train


def changing(change: Callable[[Arrays], None]):
    """A training whose update is changed by a lying node."""

    def train(node: SimulatedNode, request: Train, parameters: Arrays):
        update, samples = drift(node, request, parameters)
        change(update)
        return update, samples

    return train


def expected_after(start: Arrays, consortium: Consortium, rounds: int) -> Arrays:
    """Federated averaging by the book, in float64 and in member order."""
    parameters = start
    for number in range(1, rounds + 1):
        request = Train.model_construct(round=number)
        updates = [drift(consortium.nodes[node], request, parameters) for node in sorted(consortium.nodes)]
        total = sum(samples for _, samples in updates)
        after = {}
        for name, base in parameters.items():
            mean = sum(np.multiply(u[name], n, dtype=np.float64) for u, n in updates) / total
            after[name] = (mean + base if base.dtype.kind == "f" else np.rint(mean)).astype(base.dtype)
        parameters = after
    return parameters


# A whole experiment


def test_three_nodes_and_three_rounds_end_where_federated_averaging_says(make: Make, consortium: Consortium) -> None:
    """The main job: what comes out is the weighted mean of what the nodes sent, round by round."""
    experiment = make()
    start = experiment.parameters()

    assert experiment.run() == 3
    assert same(experiment.parameters(), expected_after(start, consortium, 3))


def test_the_history_says_who_answered_with_what(make: Make) -> None:
    """The researcher reads sample counts, times and bytes from here."""
    experiment = make()
    experiment.run()

    record = experiment.history[-1]
    assert [reply.node_id for reply in record.replies] == ["north", "south", "west"]
    assert record.round == 3
    assert record.samples == sum(40 + 7 * len(node) for node in ("north", "south", "west"))
    assert record.parameters_bytes > 0
    timing = record.timing
    assert timing.waiting_s + timing.transfer_s + timing.training_s + timing.aggregation_s == pytest.approx(
        record.seconds, abs=0.02
    )


def test_the_history_is_a_table_to_whoever_looks_at_it(make: Make, consortium: Consortium) -> None:
    """What a notebook shows of its last line should need no code to be read."""
    consortium.nodes["west"].train = failing(Code.RUNNER_UNAVAILABLE)
    experiment = make(strategy=Quorum(fraction=0.6, deadline_s=30), round_limit=2)
    failed = {number: threading.Event() for number in (1, 2)}

    @experiment.on_event
    def _(event: Event) -> None:
        if isinstance(event, NodeFailed):
            failed[event.round].set()

    def second(node: SimulatedNode, request: Train, parameters: Arrays):
        assert failed[request.round].wait(30)  # else the round may close before it is known why west is missing
        return drift(node, request, parameters)

    consortium.nodes["south"].train = second
    experiment.run()

    history = experiment.history
    head, first, second = (line.split() for line in str(history).splitlines() if line.split()[0] in ("┃", "│"))
    assert head[1:8:2] == ["round", "nodes", "without", "samples"]
    assert [first[1], second[1]] == ["1", "2"]
    assert (second[3:5], second[6:8]) == (["north,", "south"], ["west", "(RUNNER_UNAVAILABLE)"])
    assert second[9] == str(history[-1].samples)
    assert history._repr_html_().count("<tr>") == 3


def test_a_metric_of_all_nodes_is_weighted_by_what_each_tested() -> None:
    """Ten records must not weigh as much as ten thousand."""
    times = RoundTiming(waiting_s=0, transfer_s=0, training_s=0, aggregation_s=0)
    replies = tuple(
        NodeRecord(
            node_id=node, institution=node, dataset_id="d", sample_count=1, update_bytes=1, download_s=0,
            metrics=(Metrics(stage="global", samples=samples, values={"auc": auc}),),
        )
        for node, samples, auc in (("north", 30, 0.5), ("south", 10, 0.9))
    )  # fmt: skip
    record = RoundRecord(round=1, started_at=0, seconds=1, timing=times, replies=replies, parameters_bytes=1)

    assert record.mean_metrics() == {"auc": pytest.approx(0.6)}
    assert record.mean_metrics("local") == {}
    assert "auc=0.6" in str(History([record]))


def test_the_parameters_are_uploaded_once_a_round(make: Make, consortium: Consortium) -> None:
    """With thirty nodes, the researcher's line carries the model once and not thirty times."""
    make().run()

    assert consortium.store.uploaded["alice"] == 3


def test_two_runs_with_one_seed_end_bit_equal(make: Make) -> None:
    """A result that cannot be had again is no result."""
    one, other = make(), make()
    one.run()
    other.run()

    assert same(one.parameters(), other.parameters())


@pytest.mark.parametrize("order", [*itertools.permutations(["north", "south", "west"])])
def test_the_order_of_arrival_does_not_change_a_bit(make: Make, consortium: Consortium, order: tuple[str, ...]) -> None:
    """Sums of floats depend on their order, so the order must be ours and not the network's."""
    experiment = make(round_limit=1)
    start = experiment.parameters()
    consortium.broker.deliver_replies_in([*order])
    experiment.run()

    assert same(experiment.parameters(), expected_after(start, consortium, 1))


def test_the_trained_plan_has_the_global_parameters(make: Make) -> None:
    """``training_plan()`` is what the researcher predicts with."""
    experiment = make()
    experiment.run()

    assert same(experiment.training_plan().get_parameters(), experiment.parameters())


def test_rounds_go_on_from_run_to_run(make: Make) -> None:
    """run_once in a notebook cell is the same as one long run."""
    one, other = make(), make()
    one.run()
    for _ in range(3):
        other.run_once()

    assert same(one.parameters(), other.parameters())


def test_a_custom_aggregator_gets_the_updates_in_member_order(make: Make) -> None:
    """The seam for the researcher's own ideas: a list in, tensors out."""
    seen = []

    class Median(FedAverage):
        def aggregate(self, updates, parameters):
            seen.append([update.node_id for update in updates])
            return {
                name: (parameters[name] + np.median([update[name] for update in updates], axis=0)).astype(
                    parameters[name].dtype
                )
                for name in parameters
            }

    make(aggregator=Median(), round_limit=1).run()

    assert seen == [["north", "south", "west"]]


def test_an_aggregator_that_returns_another_model_is_refused(make: Make) -> None:
    """Nodes would refuse it later, with an error that names the wrong culprit."""

    class Broken(FedAverage):
        def aggregate(self, updates, parameters):
            return {name: parameters[name].astype(np.float64) for name in parameters}

    with pytest.raises(AggregationError, match=r"^Broken\.aggregate\(\) returned another model: .*float64"):
        make(aggregator=Broken()).run()


def test_a_message_that_the_broker_loses_is_sent_again(make: Make, consortium: Consortium) -> None:
    """The broker is assumed to forget; the round must not notice."""
    consortium.broker.drop("train", 1)

    assert make(round_limit=1).run() == 1
    assert all(len(node.trained) == 1 for node in consortium.nodes.values())


def test_a_round_survives_a_broker_that_is_killed(make: Make, consortium: Consortium) -> None:
    """All is sent again when the line stands again, and done once."""
    gate = threading.Event()

    def waiting(node: SimulatedNode, train: Train, parameters: Arrays):
        gate.wait(10)
        return drift(node, train, parameters)

    consortium.nodes["west"].train = waiting
    experiment = make(round_limit=1)

    @experiment.on_event
    def kill(event: object) -> None:
        if isinstance(event, Progress) and event.node_id == "west":
            with consortium.broker.down():
                gate.set()

    assert experiment.run() == 1
    assert all(len(node.trained) == 1 for node in consortium.nodes.values())


def test_a_reply_that_comes_twice_counts_once(make: Make, consortium: Consortium) -> None:
    """A node that restarts may answer again, in a new envelope: its samples must not weigh double."""
    consortium.nodes["north"].replies = 3
    experiment = make(round_limit=1)
    start = experiment.parameters()
    experiment.run()

    assert same(experiment.parameters(), expected_after(start, consortium, 1))


def test_a_member_cannot_answer_for_another(make: Make, consortium: Consortium) -> None:
    """The reply's signature must be that of the node that was asked."""
    mallory = consortium.nodes["west"]
    taken: dict[str, str] = {}

    def forging(node: SimulatedNode, train: Train, parameters: Arrays):
        update, samples = drift(node, train, parameters)
        taken[node.member_id] = node.trained[-1]
        lie = mallory._upload("alice", train, {name: array * 0 for name, array in update.items()})
        place = {"experiment_id": train.experiment_id, "round": 1, "dataset_id": train.dataset_id}
        mallory.send("alice", TrainReply(**place, update=lie, sample_count=9999), in_reply_to=node.trained[-1])
        return update, samples

    consortium.nodes["north"].train = forging
    experiment = make(round_limit=1)
    start = experiment.parameters()
    experiment.run()

    assert taken
    assert same(experiment.parameters(), expected_after(start, consortium, 1))


# Failures


def test_all_nodes_names_the_culprit(make: Make, consortium: Consortium) -> None:
    """The researcher must know whom to call, and about which line of the plan."""
    south = consortium.nodes["south"]
    south.train, south.plan_line = failing(Code.TRAINING_FAILED, "ValueError at line 9 of the plan."), 9

    with pytest.raises(NodeFailedError) as caught:
        make().run()

    assert caught.value.code is Code.TRAINING_FAILED
    assert "South Hospital (south)" in caught.value.message
    assert "line 9 of the training plan: " in caught.value.message


def test_a_refusal_names_its_rule_and_the_remedy(make: Make, consortium: Consortium) -> None:
    """Every refusal says which rule decided and what the reader can do."""
    consortium.nodes["north"].train = failing(Code.TOO_FEW_SAMPLES, "30 samples.", rule="minimum_samples = 50 (site)")

    with pytest.raises(NodeFailedError) as caught:
        make().run()

    assert caught.value.rule == "minimum_samples = 50 (site)"
    assert "test_ratio" in caught.value.explain()


def test_a_failed_round_can_be_run_again(make: Make, consortium: Consortium) -> None:
    """After the hospital has mended its side, the same experiment goes on, with new requests."""
    experiment = make()
    consortium.nodes["south"].train = failing(Code.RUNNER_UNAVAILABLE)
    with pytest.raises(NodeFailedError):
        experiment.run()
    consortium.nodes["south"].train = drift

    assert experiment.run() == 3


def test_a_quorum_goes_on_without_the_silent_node(make: Make, consortium: Consortium) -> None:
    """One hospital's night shift must not stop the others."""
    consortium.nodes["west"].train = failing(Code.RUNNER_UNAVAILABLE)
    experiment = make(strategy=Quorum(fraction=0.6, deadline_s=30))
    experiment.run()

    assert [reply.node_id for reply in experiment.history[-1].replies] == ["north", "south"]
    assert [failure.node_id for failure in experiment.history[-1].failures] == ["west"]


def test_a_missed_quorum_lists_each_reason(make: Make, consortium: Consortium) -> None:
    """Two hospitals, two different phone calls."""
    consortium.nodes["north"].train = failing(Code.DATASET_SUSPENDED, "Suspended.")
    consortium.nodes["west"].train = failing(Code.TOO_FEW_SAMPLES, "Too few.")

    with pytest.raises(QuorumMissedError) as caught:
        make(strategy=Quorum(fraction=0.6, deadline_s=30)).run()

    assert {failure.code for failure in caught.value.failures} >= {Code.DATASET_SUSPENDED, Code.TOO_FEW_SAMPLES}
    assert "North Hospital (north): Suspended." in caught.value.message


def test_a_deadline_ends_the_wait(make: Make, consortium: Consortium) -> None:
    """A hospital that is off must not hold the researcher for ever."""
    experiment = make()
    experiment.run_once()
    experiment.set_strategy(Quorum(fraction=1, deadline_s=0.3))
    consortium.nodes["west"].is_silent = True

    with pytest.raises(QuorumMissedError) as caught:
        experiment.run_once()

    assert ("west", Code.ROUND_TIMEOUT) in [(failure.node_id, failure.code) for failure in caught.value.failures]


def test_a_late_answer_is_taken_and_counts_for_nothing(make: Make, consortium: Consortium) -> None:
    """Otherwise the late hospital would send it again for a week."""
    gate, is_back = threading.Event(), threading.Event()

    def late(node: SimulatedNode, train: Train, parameters: Arrays):
        gate.wait(10)
        return drift(node, train, parameters)

    consortium.nodes["west"].train = late
    experiment = make(strategy=Quorum(fraction=0.6, deadline_s=30), round_limit=1)
    experiment.run()
    after = experiment.parameters()
    west, settle = consortium.nodes["west"], consortium.nodes["west"]._mailbox._settle

    def settled(sender: str, jti: str) -> None:
        settle(sender, jti)
        if west.waiting == 0:
            is_back.set()

    west._mailbox._settle = settled
    gate.set()

    assert is_back.wait(10)
    assert same(experiment.parameters(), after)


def test_the_report_says_what_became_of_a_node_that_was_late(make: Make, consortium: Consortium) -> None:
    """It gave the round up; a node that answered has nothing to give up."""
    experiment, events = make(strategy=Quorum(fraction=0.6, deadline_s=30)), []
    experiment.on_event(events.append)
    experiment.run(1)
    consortium.nodes["west"].is_silent = True
    experiment.run(1)

    def tell(node: SimulatedNode, train: Train, parameters: Arrays):
        error = ErrorReply(
            experiment_id=train.experiment_id, round=2, code=Code.ROUND_SUPERSEDED, message="It was given up."
        )
        node.send("alice", error, in_reply_to="0" * 32)
        return drift(node, train, parameters)

    consortium.nodes["west"].is_silent = False
    consortium.nodes["west"].train = consortium.nodes["south"].train = tell
    experiment.set_strategy(AllNodes())
    experiment.run()

    (lost,) = experiment.history[1].failures
    assert (lost.node_id, lost.code, lost.message) == ("west", Code.ROUND_SUPERSEDED, "It was given up.")
    assert "late" in str(experiment.history[1].report())
    assert {event.node_id for event in events if isinstance(event, NodeGaveUp)} == {"west"}
    assert experiment.history[2].failures == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda update: update.update({"0.weight": np.zeros((2, 2), np.float32)}), "0.weight"),
        (lambda update: update.pop("0.bias"), "0.bias"),
        (lambda update: update.update({"more": np.zeros(1, np.float32)}), "1 tensors that the model does not have"),
        (lambda update: update["0.bias"].__setitem__(0, np.nan), "not finite"),
        (lambda update: update["0.bias"].__setitem__(0, np.inf), "not finite"),
        (lambda update: update["0.bias"].__setitem__(0, 1e30), "beyond"),
    ],
    ids=["shape", "missing", "extra", "nan", "infinite", "huge"],
)
def test_an_update_that_is_none_is_refused_and_its_node_named(
    make: Make, consortium: Consortium, change: Callable[[Arrays], None], reason: str
) -> None:
    """One lying member must not break everybody's model."""
    consortium.nodes["north"].train = changing(change)

    with pytest.raises(NodeFailedError, match=reason) as caught:
        make().run()

    assert caught.value.code is Code.UPDATE_REFUSED
    assert "North Hospital (north)" in caught.value.message


def test_a_lying_node_costs_a_quorum_only_itself(make: Make, consortium: Consortium) -> None:
    """Its update is left out, the others' model is trained."""
    consortium.nodes["north"].train = changing(lambda update: update.pop("0.bias"))
    experiment = make(strategy=Quorum(fraction=0.6, deadline_s=30), round_limit=1)
    experiment.run()

    assert [reply.node_id for reply in experiment.history[0].replies] == ["south", "west"]


# Datasets and plans


def test_two_datasets_that_fit_must_be_chosen_from(make: Make, consortium: Consortium) -> None:
    """A guess would train on data that nobody meant."""
    consortium.nodes["south"].datasets.append(dataset("south", "second"))

    with pytest.raises(DatasetChoiceError, match="south-second") as caught:
        make().run()

    assert "set_datasets" in caught.value.remedy


def test_a_chosen_dataset_is_the_one_trained_on(make: Make, consortium: Consortium) -> None:
    """The choice is the researcher's."""
    consortium.nodes["south"].datasets.append(dataset("south", "second"))
    experiment = make(datasets={"south": "south-second"}, round_limit=1)
    experiment.run()

    assert experiment.training_data()["south"] == "south-second"


def test_no_dataset_at_all_is_an_error(make: Make) -> None:
    """Training on nothing would end with the parameters it began with."""
    with pytest.raises(NoDatasetError, match="nosuch"):
        make(tags=["nosuch"]).run()


def test_a_node_asked_for_by_name_must_have_data(make: Make, consortium: Consortium) -> None:
    """Who names a hospital wants it in, not silently left out."""
    consortium.nodes["south"].datasets.clear()

    with pytest.raises(NoDatasetError, match="south"):
        make(nodes=["north", "south"]).run()


def test_nodes_narrow_the_experiment(make: Make, consortium: Consortium) -> None:
    """Hospitals that are not named hear nothing of it."""
    make(nodes=["north"], round_limit=1).run()

    assert not consortium.nodes["south"].trained


def test_a_plan_that_waits_for_review_is_not_run(make: Make, consortium: Consortium) -> None:
    """The error is what the researcher forwards to the hospital."""
    consortium.nodes["south"].standing = PlanState.PENDING

    with pytest.raises(PlanNotApprovedError, match=r"South Hospital \(south\): the staff have not reviewed it"):
        make().run()

    assert not any(node.trained for node in consortium.nodes.values())


def test_a_rejection_shows_the_reviewers_note(make: Make, consortium: Consortium) -> None:
    """The note says what to change."""
    south = consortium.nodes["south"]
    south.standing, south.note = PlanState.REJECTED, "It reads the address column."

    with pytest.raises(PlanNotApprovedError, match="It reads the address column"):
        make().run()


def test_a_plan_that_nobody_knows_is_sent_for_review(make: Make, consortium: Consortium) -> None:
    """The first run may be the first that the hospitals hear of the plan."""
    experiment = make(round_limit=1)
    experiment.run()

    assert [*consortium.nodes["north"].plans.values()] == [experiment.training_plan_text()]


def test_approval_is_asked_for_with_ranges(make: Make, consortium: Consortium) -> None:
    """Staff approve a plan for values that they have seen, not for any."""
    table = make().request_approval("Why.", [{"name": "optimizer_args.lr", "minimum": 0.01, "maximum": 0.1}])

    assert {standing.state for standing in table.answers.values()} == {PlanState.APPROVED}
    assert len(consortium.nodes["north"].plans) == 1


def test_the_status_of_a_plan_is_a_table(make: Make, consortium: Consortium) -> None:
    """One look tells which hospital is still to be called."""
    experiment = make()
    consortium.nodes["west"].standing = PlanState.PENDING
    experiment.request_approval("Why.")

    assert "West Hospital" in str(experiment.plan_status())
    assert experiment.plan_status()["west"].state is PlanState.PENDING


def test_a_wrong_range_is_refused_here(make: Make) -> None:
    """Before thirty hospitals see it."""
    with pytest.raises(ExperimentArgumentError, match="above the maximum"):
        make().request_approval("Why.", [{"name": "epochs", "minimum": 5, "maximum": 1}])


# Settings


def test_info_says_what_is_missing() -> None:
    """A newcomer's first look at an empty experiment."""
    info = Experiment(tags=["demo"]).info()

    assert len(info.missing) == 2
    assert "training plan" in info.title
    assert "demo" in str(info)
    assert "<table>" in info._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing"),
        ({"test_ratio": 0.25}, "25% of each dataset"),
        ({"folds": 5, "fold": 0}, "20% of each dataset"),
        ({"test_metric": "ACCURACY"}, "nothing, so nothing is tested: set test_ratio, or folds and fold"),
    ],
)
def test_what_is_tested_on_is_said_before_it_is_missed(arguments: dict[str, object], words: str) -> None:
    """A test without held-out samples gives no number, and no error either."""
    info = Experiment(training_args=arguments).info()
    assert dict(info.rows)["held out for tests"] == words


def test_info_of_a_whole_experiment_misses_nothing(make: Make) -> None:
    """Ready to run means ready to run."""
    assert make().info().missing == ()


def test_info_escapes_what_goes_into_a_notebook(make: Make) -> None:
    """Names come from others; a notebook runs what is in its HTML."""
    assert "<script>" not in make(name="<script>alert(1)</script>").info()._repr_html_()


def test_an_experiment_that_is_not_complete_does_not_run() -> None:
    """The error says what to set."""
    with pytest.raises(ExperimentArgumentError, match="set_training_plan_class"):
        Experiment(tags=["demo"], round_limit=1).run()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"tgas": ["demo"]}, "Did you mean 'tags'"),
        ({"tags": []}, "tags is"),
        ({"tags": 3}, "tags is 3"),
        ({"nodes": "north"}, "nodes is 'north'"),
        ({"datasets": ["x"]}, "datasets is"),
        ({"round_limit": 0}, "round_limit is 0"),
        ({"round_limit": "3"}, "round_limit is '3'"),
        ({"model_args": {"x": object()}}, "model_args.x"),
        ({"model_args": {"x": float("nan")}}, "not finite"),
        ({"model_args": {"x": "y" * 300_000}}, "bytes at most"),
        ({"aggregator": "mean"}, "FedAverage()"),
        ({"strategy": AllNodes}, "AllNodes()"),
        ({"training_plan_class": dict}, "TorchTrainingPlan"),
        ({"training_plan_file": "/nowhere.py"}, "existing file"),
        ({"save_breakpoints": 1}, "True or False"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments: dict[str, object], reason: str) -> None:
    """The researcher mends it in seconds instead of reading a traceback."""
    with pytest.raises(ExperimentArgumentError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        Experiment(**arguments)


def test_a_wrong_training_argument_is_named() -> None:
    """Here, and not at the hospitals an hour later."""
    with pytest.raises(ArgumentInvalidError, match="epochs"):
        Experiment(training_args={"epoch": 3})


def test_training_arguments_can_be_set_one_by_one(make: Make) -> None:
    """Fed-BioMed's setters keep working."""
    experiment = make()
    experiment.set_test_ratio(0.25)
    experiment.set_test_metric("ACCURACY")

    assert experiment.training_args() == {
        "epochs": 1,
        "random_seed": 7,
        "test_ratio": 0.25,
        "test_metric": "ACCURACY",
        "test_metric_args": {},
    }


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_a_wrong_number_of_rounds_is_refused(make: Make, bad: object) -> None:
    """Zero rounds are a mistake, not a run."""
    with pytest.raises(ExperimentArgumentError, match="rounds is"):
        make().run(bad)


def test_the_round_limit_is_kept_unless_increased(make: Make) -> None:
    """A cell that is run twice by accident must not train twice as long."""
    experiment = make(round_limit=1)
    experiment.run()

    assert experiment.run() == 0
    with pytest.raises(ExperimentArgumentError, match="round limit of 1"):
        experiment.run_once()
    assert experiment.run_once(increase=True) == 1
    assert experiment.round_limit() == 2


def test_another_model_cannot_take_over_the_parameters(make: Make) -> None:
    """The nodes would all refuse; here the reason is plain."""
    experiment = make(round_limit=2)
    experiment.run_once()
    experiment.set_model_args({"inputs": 5})

    with pytest.raises(ExperimentArgumentError, match="other tensors"):
        experiment.run_once()


# Watching and stopping


def test_observers_hear_what_happens(make: Make) -> None:
    """The live table and every dashboard rest on these events."""
    events: list[object] = []
    experiment = make(round_limit=1)
    experiment.on_event(events.append)
    experiment.run()

    kinds = [type(event) for event in events]
    assert kinds.count(NodeReplied) == kinds.count(NodeReceived) == 3
    assert kinds.count(Progress) == 6  # of each node the first as it comes, the last with its reply
    assert kinds.index(RoundStarted) < kinds.index(NodeReplied) < kinds.index(RoundClosed)


def test_an_observer_that_fails_does_not_end_the_round(make: Make) -> None:
    """A broken plot must not cost an hour of training."""
    experiment = make(round_limit=1)
    experiment.on_event(lambda event: 1 / 0)

    assert experiment.run() == 1


def test_stop_ends_the_round_here_and_the_work_there(make: Make, consortium: Consortium) -> None:
    """A researcher who sees nonsense wants it to end now, everywhere."""
    gate = threading.Event()

    def long(node: SimulatedNode, train: Train, parameters: Arrays):
        gate.wait(10)
        return drift(node, train, parameters)

    consortium.nodes["west"].train = long
    experiment = make()
    stopping = threading.Thread(target=experiment.stop)

    @experiment.on_event
    def stop(event: object) -> None:
        if isinstance(event, Progress) and event.node_id == "west":
            stopping.start()

    with pytest.raises(RoundStoppedError):
        experiment.run()
    gate.set()
    stopping.join()

    assert all(node.stopped == [experiment.id] for node in consortium.nodes.values())


def test_ctrl_c_leaves_a_breakpoint_and_says_so(make: Make, federation: Federation) -> None:
    """Nobody should lose rounds to an impatient finger."""
    experiment = make()
    seen: list[Interrupted] = []

    @experiment.on_event
    def press(event: object) -> None:
        if isinstance(event, Interrupted):
            seen.append(event)
        if isinstance(event, NodeReplied) and event.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        experiment.run()
    resumed = Experiment.load_breakpoint(seen[0].folder, federation=federation)

    assert "load_breakpoint" in caught.value.__notes__[0]
    assert resumed.run() == 2
    assert same(resumed.parameters(), _uninterrupted(make))


def test_an_experiment_runs_once_at_a_time(make: Make, federation: Federation) -> None:
    """Two notebooks on one experiment would mix their rounds."""
    experiment = make(round_limit=2)
    refused: list[ExperimentBusyError] = []

    @experiment.on_event
    def again(event: object) -> None:
        if isinstance(event, RoundStarted) and event.round == 2:
            other = Experiment.load_breakpoint(experiment.experimentation_path(), federation=federation)
            with pytest.raises(ExperimentBusyError) as caught:
                other.run()
            refused.append(caught.value)

    experiment.run()

    assert len(refused) == 1


def _uninterrupted(make: Make) -> Arrays:
    experiment = make()
    experiment.run()
    return experiment.parameters()


def test_a_breakpoint_that_cannot_be_saved_leaves_the_round_to_be_taken_up_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next round would begin with the parameters of the last but one, and nobody would notice."""
    calm, troubled = make(round_limit=2), make(round_limit=2)
    calm.run()
    troubled.parameters()  # the first breakpoint

    def full(*_: object, **__: object) -> None:
        raise FedWardError("full", code=Code.DISK_FULL)

    with monkeypatch.context() as patch:
        patch.setattr("researcher_kit.breakpoints.save", full)
        with pytest.raises(FedWardError) as refusal:
            troubled.run()
    assert (refusal.value.code, troubled.round_current()) == (Code.DISK_FULL, 0)
    troubled.run()

    ours, theirs = troubled.parameters(), calm.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_what_a_crash_left_of_a_saved_round_is_cleared(make: Make, federation: Federation) -> None:
    """The breakpoint was on the disk, and the spool not yet cleared: its files would lie there for ever."""
    experiment = make(round_limit=1)
    experiment.run()
    left = experiment.experimentation_path() / "spool/round_0001/north.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    Experiment.load_breakpoint(experiment.experimentation_path(), federation=federation)

    assert not left.exists()
