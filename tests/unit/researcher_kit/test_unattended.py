"""Unattended runs: submitted, run by a federator from the breakpoint alone, and found again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from declearn.optimizer import Optimizer
from torch import nn

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.keys import unb64url
from appliance.protocol.mandate import open_mandate
from appliance.protocol.messages import PlanStatus, Train
from researcher_kit import (
    DataManager,
    Experiment,
    Exponential,
    FedAverage,
    Job,
    JobState,
    ServerOptimizer,
    TorchTrainingPlan,
    attach,
)
from researcher_kit.aggregators import Aggregator
from researcher_kit.errors import BreakpointError, ExperimentArgumentError
from researcher_kit.handover import Report, read, send, sign
from researcher_kit.job_process import JobRun
from tests.simulator import Arrays, Consortium, SimulatedNode, drift
from tests.unit.researcher_kit.conftest import same
from tests.unit.researcher_kit.own_average import OwnAverage

Make = Callable[..., Experiment]
Run = Callable[[Job], None]


@pytest.fixture
def run(consortium: Consortium) -> Run:
    """The federator takes the next job and runs it to its end, in this process."""

    def take(job: Job) -> None:
        consortium.store.of("fed").jobs_claim()
        folder = consortium.folder / "fed/jobs" / job.id
        folder.mkdir(parents=True, exist_ok=True)
        with closing(consortium.federation("fed", store=folder / "federator.db")) as federation:
            JobRun(federation, folder, heartbeat_s=3600).run()

    return take


class OtherPlan(TorchTrainingPlan):
    """A plan that nobody submitted."""

    def init_dependencies(self):
        """What the plan imports."""
        return ["from torch import nn"]

    def init_model(self, model_args):
        """One layer."""
        return nn.Linear(model_args["inputs"], 1)

    def training_data(self):
        """Nobody trains here."""
        return DataManager([0.0], [0.0])

    def training_step(self, data, target):
        """Likewise."""
        return self.model()(data).sum()


def requests(consortium: Consortium) -> list[Train]:
    """What the hospitals were asked for by now, once each."""
    envelopes = (text for topic, text in consortium.broker.texts if topic.endswith("/train"))
    return [Train.model_validate_json(json.dumps(_claims(text)["body"])) for text in dict.fromkeys(envelopes)]


def _claims(text: str) -> dict[str, Any]:
    return dict(json.loads(unb64url(text.split(".")[1])))


@pytest.mark.parametrize("aggregator", [FedAverage, lambda: ServerOptimizer(Optimizer(lrate=0.5, modules=["adam"]))])
def test_an_unattended_run_ends_as_one_in_person(make: Make, run: Run, aggregator: Callable[[], Aggregator]) -> None:
    """The same engine: who pulls the strings changes no bit, also where one of declearn's optimizers steps."""
    attended, unattended = make(aggregator=aggregator()), make(aggregator=aggregator())
    unattended._seed = attended._seed
    attended.run()
    job = unattended.submit()
    run(job)

    assert job.status().state is JobState.DONE
    assert same(job.experiment().parameters(), attended.parameters())
    assert [record.round for record in job.history] == [1, 2, 3]


def test_a_federator_without_declearn_ends_the_job_and_says_so(
    make: Make, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older image; the researcher reads whose it is to mend."""
    job = make(aggregator=ServerOptimizer(Optimizer(lrate=0.5))).submit()
    with monkeypatch.context() as older:
        older.setitem(sys.modules, "declearn.optimizer", None)
        run(job)

    assert job.status().state is JobState.FAILED
    with pytest.raises(FedWardError, match="not installed where the experiment runs"):
        job.wait(timeout_s=1)


def test_submitting_returns_before_a_round_is_run(make: Make, consortium: Consortium) -> None:
    """The laptop may close: all that is needed lies in the queue."""
    job = make().submit()

    assert (job.status().state, job.status().round) == (JobState.QUEUED, 0)
    assert requests(consortium) == []
    assert job.history == ()


def test_the_federator_executes_no_plan(make: Make, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no place for foreign code: it has the keys of many experiments."""
    job = make().submit()

    def refuse(*_: object) -> None:
        raise AssertionError("a plan was loaded")

    monkeypatch.setattr("researcher_kit.experiment.load_plan", refuse)
    run(job)
    assert job.status().state is JobState.DONE


def test_the_federator_asks_the_nodes_for_nothing_but_rounds(make: Make, run: Run, consortium: Consortium) -> None:
    """Each with the mandate, which names exactly what is asked."""
    job = make().submit()
    before = consortium.broker.passed[PlanStatus.kind]
    run(job)

    asked = requests(consortium)
    assert len(asked) == 9
    assert consortium.broker.passed[PlanStatus.kind] == before
    _, mandate = open_mandate(str(asked[0].mandate), consortium.register)
    assert (mandate.requests, mandate.datasets.keys()) == (3, {"north", "south", "west"})


def test_a_schedule_is_in_the_mandate_as_a_range(make: Make, consortium: Consortium) -> None:
    """As wide as the rounds that are left need it, and no wider."""
    job = make(schedules={"optimizer_args.lr": Exponential(0.1, 0.5)}).submit()
    _, mandate = open_mandate(consortium.store.jobs[job.id]["mandate"], consortium.register)

    (range_,) = mandate.ranges
    assert (range_.name, range_.minimum, range_.maximum) == ("optimizer_args.lr", 0.025, 0.1)


def test_a_run_goes_on_where_a_crash_left_it(
    make: Make, run: Run, monkeypatch: pytest.MonkeyPatch, consortium: Consortium
) -> None:
    """In a new process, with what lies in the job's folder, and without asking for a round twice."""
    job = make().submit()

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("researcher_kit.job_process.replace_file", crash)
        with pytest.raises(KeyboardInterrupt):
            run(job)
    run(job)

    assert job.status().state is JobState.DONE
    assert len(requests(consortium)) == 9


def test_a_failure_is_told_with_its_own_code(make: Make, run: Run, consortium: Consortium) -> None:
    """As the round would have raised it here; what was reached is there."""

    def refuse(node: SimulatedNode, train: Train, parameters: Arrays) -> tuple[Arrays, int]:
        if train.round == 2:
            raise FedWardError("The plan failed.", code=Code.TRAINING_FAILED)
        return drift(node, train, parameters)

    consortium.nodes["north"].train = refuse
    job = make().submit()
    run(job)

    with pytest.raises(FedWardError, match=r"North Hospital.*The plan failed") as failed:
        job.wait(on_round=lambda _: None)
    assert failed.value.code is Code.TRAINING_FAILED
    assert (job.status().state, job.experiment().round_current()) == (JobState.FAILED, 1)


def test_what_is_left_can_be_submitted_again(make: Make, run: Run, consortium: Consortium) -> None:
    """Or run here: a job's experiment is one like any other."""
    first = make(round_limit=1).submit()
    run(first)
    experiment = first.experiment()
    experiment.set_round_limit(2)
    second = experiment.submit()
    run(second)

    assert second.experiment().run(1, increase=True) == 1
    assert [record.round for record in second.history] == [1, 2]


def test_a_job_is_found_again_from_another_machine(make: Make, run: Run, consortium: Consortium) -> None:
    """By its id, with the researcher's keys and nothing else of the first machine."""
    job_id = make().submit().id
    with closing(consortium.federation()) as elsewhere:
        job = attach(job_id, elsewhere)
        run(job)
        told: list[int] = []
        status = job.wait(on_round=lambda event: told.append(event.record.round))

        assert (status.state, told) == (JobState.DONE, [1, 2, 3])
        assert job_id in str(elsewhere.jobs())


def test_a_stop_voids_the_mandate_and_ends_the_work(make: Make, consortium: Consortium, run: Run) -> None:
    """The hospitals hear it from the researcher, whatever the federator does."""
    job = make().submit()
    stopped = job.stop()
    run(job)

    assert {*stopped.answers} == {"north", "south", "west"}
    assert job.status().state is JobState.STOPPED
    assert requests(consortium) == []


def test_a_custom_aggregator_needs_an_image_that_has_it(make: Make, run: Run, consortium: Consortium) -> None:
    """Named in the federator's settings; without it the job fails by name."""
    job = make(aggregator=OwnAverage()).submit()
    run(job)
    with pytest.raises(FedWardError, match="OwnAverage"):
        job.wait()

    settings = 'aggregators = ["tests.unit.researcher_kit.own_average:OwnAverage"]\n'
    (consortium.folder / "fed/federator.toml").write_text(settings)
    again = make(aggregator=OwnAverage()).submit()
    run(again)
    assert again.status().state is JobState.DONE


@pytest.mark.parametrize(
    ("changes", "arguments", "wrong"),
    [
        ({}, {"federator": "nobody"}, "no federator 'nobody'"),
        ({}, {"days": 91}, "90 at most"),
        ({"round_limit": None}, {}, "round limit"),
    ],
)
def test_what_cannot_be_submitted_is_said_at_once(
    make: Make, changes: dict[str, Any], arguments: dict[str, Any], wrong: str, consortium: Consortium
) -> None:
    """Before anything leaves."""
    with pytest.raises(ExperimentArgumentError, match=wrong):
        make(**changes).submit(**arguments)
    assert consortium.store.jobs == {}


# A network host, or a federator, that lies


def test_a_report_of_another_author_is_not_believed(make: Make, run: Run, consortium: Consortium) -> None:
    """The network host could else put any model in the result's place."""
    job = make().submit()
    run(job)
    with closing(consortium.federation("alice")) as forger:
        row = consortium.store.jobs[job.id]
        report = read(Report, row["progress"], consortium.register, author="fed", job_id=job.id)
        row["progress"] = sign(report, forger.signer)

    with pytest.raises(FedWardError, match="wrote this about") as refused:
        job.experiment()
    assert refused.value.code is Code.NETWORK_REFUSED


def test_another_jobs_submission_is_not_begun(make: Make, run: Run, consortium: Consortium) -> None:
    """A swap in the queue would train one experiment under another's name."""
    one, other = make().submit(), make().submit()
    consortium.store.jobs[one.id]["spec"] = consortium.store.jobs[other.id]["spec"]
    run(one)

    with pytest.raises(FedWardError, match=f"about job {other.id}"):
        one.wait()


def test_another_plan_than_the_mandates_is_never_loaded(
    make: Make, run: Run, consortium: Consortium, tmp_path: Path
) -> None:
    """A result's plan may be run at the researcher's: a federator that swaps it would run its code there."""
    job, other = make().submit(), make(training_plan_class=OtherPlan)
    run(job)
    alice = consortium.register.require("alice")
    with closing(consortium.federation("fed")) as liar:
        files = send(other.breakpoint(), liar.files, alice, job_id=job.id, experiment_id=other.id, scratch=tmp_path)
        report = Report(job_id=job.id, files=files, round=3, written_at=0.0)
        consortium.store.jobs[job.id]["progress"] = sign(report, liar.signer)

    with pytest.raises(BreakpointError, match="another training plan"):
        job.experiment()
