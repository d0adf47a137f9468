"""Unattended runs: a federator's process, killed; a network host, started anew; a researcher who has gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol.errors import Code, FedWardError
from researcher_kit import JobState, attach
from researcher_kit.federation import HOME_VARIABLE
from researcher_kit.jobs import Job
from researcher_kit.notebooks import TUTORIALS
from tests.hospitals import NODES, Hospitals, bits, training_args
from tests.integration.network.hosts import wait_until
from tests.notebooks import run_notebook

FEDERATOR = "fed"
ROUNDS = 4
WAIT_S = 240.0

pytestmark = pytest.mark.timeout(400)  # the first of a module waits until everybody is up


@pytest.fixture(scope="module")
def people(hospitals: Hospitals) -> Iterator[Hospitals]:
    """With the federator's service, which ends with the module."""
    (hospitals.home(FEDERATOR) / "federator.toml").write_text("poll_s = 0.2\n")
    hospitals.consortium.launch(FEDERATOR)
    hospitals.consortium.wait_until_up(FEDERATOR)
    yield hospitals
    hospitals.consortium.kill(FEDERATOR)


def submitted(people: Hospitals, **changes: object) -> str:
    """Alice submits an experiment and goes: the job's id is all that she takes along."""
    with closing(people.federation()) as notebook:
        settings: dict[str, object] = {"model_args": {"width": 8, "pause_s": 0.1}, "round_limit": ROUNDS}
        return people.experiment(notebook, **(settings | changes)).submit(FEDERATOR).id


def over(job: Job) -> Job:
    """The same job once it is over."""
    job.wait(timeout_s=WAIT_S, on_round=lambda _: None)
    return job


def test_an_unattended_run_outlives_every_kill_and_ends_bit_equal(people: Hospitals) -> None:
    """The federator dies by SIGKILL, the network host is started anew, and nobody sits at a notebook."""
    north = people.since("north")
    job_id = submitted(people, training_args=training_args(4))
    for number in (1, 2):
        north.wait_for("round.accepted", round=number, mandate=job_id)
        people.consortium.kill(FEDERATOR)
        people.consortium.restart(NETWORK)
        people.consortium.launch(FEDERATOR)

    with closing(people.federation()) as elsewhere:
        job = over(attach(job_id, elsewhere))
        undisturbed = people.experiment(
            elsewhere, model_args={"width": 8, "pause_s": 0.1}, round_limit=ROUNDS, training_args=training_args(4)
        )
        undisturbed.run()

        assert job.status().state is JobState.DONE
        assert bits(job.experiment()) == bits(undisturbed)
        assert [record.round for record in job.history] == [*range(1, ROUNDS + 1)]
    assert len(north.lines("round.accepted")) == 2 * ROUNDS


def test_a_killed_process_of_one_job_is_begun_again(people: Hospitals) -> None:
    """The crash of one experiment is not that of the service, and costs no round."""
    north = people.since("north")
    job_id = submitted(people)
    north.wait_for("round.accepted", round=1, mandate=job_id)
    people.consortium.kill_process(FEDERATOR, "researcher_kit.job_process")

    with closing(people.federation()) as elsewhere:
        assert over(attach(job_id, elsewhere)).status().round == ROUNDS
    assert len(north.lines("round.accepted")) == ROUNDS


def test_a_stop_ends_the_work_and_the_mandate(people: Hospitals) -> None:
    """At the hospitals at once, whatever becomes of the federator; what was reached is the researcher's."""
    north = people.since("north")
    job_id = submitted(people, round_limit=500)
    north.wait_for("round.accepted", round=2, mandate=job_id)

    with closing(people.federation()) as elsewhere:
        job = attach(job_id, elsewhere)
        assert {*job.stop().answers} == {"north", "south"}
        wait_until(lambda: not people.consortium.processes(FEDERATOR).keys() - _services(people))
        assert job.status().state is JobState.STOPPED
        assert job.experiment().round_current() >= 1


def test_a_hospitals_refusal_reaches_the_researcher(people: Hospitals) -> None:
    """With the hospital's own code and rule, as if he had asked in person."""
    job_id = submitted(people, training_args=training_args() | {"test_ratio": 0.99})

    with closing(people.federation()) as elsewhere, pytest.raises(FedWardError, match="Too few") as refused:
        over(attach(job_id, elsewhere))
    assert refused.value.code is Code.TOO_FEW_SAMPLES


def test_the_tutorial_submits_goes_and_finds_its_job_again(
    people: Hospitals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the plan's approval to the evaluation of what was trained meanwhile, as a researcher presses Shift-Enter."""
    monkeypatch.setenv(HOME_VARIABLE, str(people.home("alice")))
    monkeypatch.chdir(tmp_path)

    def staff_approve(_number: int, names: dict[str, Any]) -> None:
        if "experiment" in names and "job" not in names:
            for node in NODES:
                people.staff(node).call("plan.approve", plan=names["experiment"].plan_status().answers[node].sha256)

    def choose(text: str) -> str:
        return text.replace("FEDERATOR = None", f'FEDERATOR = "{FEDERATOR}"')

    names = run_notebook(TUTORIALS / "09-unattended-run.ipynb", change=choose, between=staff_approve)

    assert names["job_id"] == names["job"].id
    assert names["result"].round_current() == names["result"].round_limit() == 4
    assert names["result"].last_evaluation().mean["AUC"] > 0.9


def _services(people: Hospitals) -> set[int]:
    """The federator's processes that belong to no job."""
    processes = people.consortium.processes(FEDERATOR)
    return {pid for pid, command in processes.items() if "job_process" not in command}
