"""The federator's queue."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from rest_framework.test import APIClient

from appliance.network.audit import selectors as audit
from appliance.network.jobs.models import Job
from appliance.network.parameters.models import Upload
from appliance.protocol.envelope import Signer
from appliance.protocol.mandate import Mandate

ADDRESS = "/api/v1/jobs"
DAY_S = 86_400


@pytest.fixture
def fed(host: Any, world: Any) -> APIClient:
    """The federator."""
    return world.client("fed")


@pytest.fixture
def job() -> dict[str, Any]:
    """What alice submits."""
    return {"id": str(uuid.uuid4()), "federator": "fed", "spec": {"rounds": 3, "name": "é"}, "mandate": "signed"}


def submit(client: APIClient, job: dict[str, Any]) -> Any:
    """POST the job."""
    return client.post(ADDRESS, job, format="json")


def end(client: APIClient, job: dict[str, Any], how: str, outcome: Any = "well") -> Any:
    """finish, fail or cancel."""
    return client.post(f"{ADDRESS}/{job['id']}/{how}", {"outcome": outcome}, format="json")


def test_a_submitted_job_waits(alice: APIClient, job: dict[str, Any]) -> None:
    """With exactly what the researcher wrote."""
    answer = submit(alice, job)

    assert answer.status_code == 201
    assert (answer.json()["state"], answer.json()["spec"]) == ("queued", job["spec"])


def test_the_same_job_again_is_the_same_job(alice: APIClient, job: dict[str, Any]) -> None:
    """A repeated call must not train twice."""
    submit(alice, job)

    assert submit(alice, job).status_code == 200
    assert Job.objects.count() == 1


def test_another_job_needs_another_id(alice: APIClient, mallory: APIClient, job: dict[str, Any]) -> None:
    """Neither changed by its owner nor taken by another."""
    submit(alice, job)

    assert submit(alice, {**job, "mandate": "other"}).status_code == 409
    assert submit(mallory, job).status_code == 409


@pytest.mark.parametrize(
    "change", [{"spec": "x" * 300_000}, {"mandate": ""}, {"id": "1"}, {"spec": "\x00"}, {"federator": "north"}]
)
def test_a_faulty_job_is_refused(change: dict[str, Any], alice: APIClient, job: dict[str, Any]) -> None:
    """By its field, and never with a 500."""
    answer = submit(alice, {**job, **change})

    assert answer.status_code == 400
    assert next(iter(change)) in answer.json()["message"]


def test_what_a_job_begins_with_is_kept_until_its_mandate_ends(
    alice: APIClient, world: Any, new_letter: Any, job: dict[str, Any]
) -> None:
    """It may wait for its turn for longer than uploads are kept; other files are kept no longer for it."""
    now = int(time.time())
    letters = {
        name: new_letter(recipients=recipient, purpose=purpose, experiment=experiment)
        for name, recipient, purpose, experiment in (
            ("its own", "fed", "breakpoint", "e1"),
            ("another experiment's", "fed", "breakpoint", "e2"),
            ("another federator's", "rival", "breakpoint", "e1"),
            ("an update", "fed", "update", "e1"),
        )
    }
    for letter in letters.values():
        letter.announce(alice, letter.content)
    mandate = Mandate(
        id=job["id"], federator="fed", federator_key="k" * 43, experiment_id="e1", plan_sha256="0" * 64, plan_class="P",
        datasets={"north": "d-1"}, first_round=1, last_round=3, issued_at=now, expires_at=now + 30 * DAY_S,
    )  # fmt: skip
    submit(alice, {**job, "mandate": mandate.sign(Signer("alice", world.keys["alice"], time.time))})
    ends = {name: Upload.objects.get(id=letter.id).expires_at.timestamp() for name, letter in letters.items()}

    assert {name: round((at - now) / DAY_S) for name, at in ends.items()} == dict.fromkeys(letters, 7) | {"its own": 30}


def test_only_researchers_submit(north: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """A node or federator has no mandate to give."""
    assert submit(north, job).status_code == 403
    assert submit(fed, job).status_code == 403


def test_a_federator_takes_the_oldest(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """And gets the mandate with it."""
    submit(alice, job)
    submit(alice, {**job, "id": str(uuid.uuid4())})

    answer = fed.post(f"{ADDRESS}/claim")

    assert (answer.json()["id"], answer.json()["mandate"]) == (job["id"], "signed")
    assert answer.json()["claimed_by"] == "fed"


def test_a_job_is_claimed_once(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """An empty queue is an answer, no error."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")

    assert fed.post(f"{ADDRESS}/claim").status_code == 204


def test_a_job_is_for_the_federator_that_was_chosen(
    alice: APIClient, fed: APIClient, world: Any, job: dict[str, Any]
) -> None:
    """The mandate names it, so that no other could do anything with it."""
    submit(alice, job)

    assert world.client("rival").post(f"{ADDRESS}/claim").status_code == 204
    assert fed.post(f"{ADDRESS}/claim").json()["federator"] == "fed"


def test_the_researcher_reads_how_far_it_is(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """The newest word counts, also of a job that is done: its result may have to be sent again."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")
    for word in ("round 1", "round 2"):
        assert end(fed, job, "progress", word).status_code == 400
        assert fed.post(f"{ADDRESS}/{job['id']}/progress", {"progress": word}, format="json").status_code == 200
    end(fed, job, "finish")

    assert fed.post(f"{ADDRESS}/{job['id']}/progress", {"progress": "again"}, format="json").status_code == 200
    assert alice.get(f"{ADDRESS}/{job['id']}").json()["progress"] == "again"


def test_a_federator_hears_of_a_change_of_mind(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """It is told when it reports, and stops."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")
    end(alice, job, "cancel")

    answer = fed.post(f"{ADDRESS}/{job['id']}/progress", {"progress": "round 1"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "JOB_STATE")


@pytest.mark.parametrize(("state", "count"), [("queued", 1), ("claimed", 0), ("", 1)])
def test_jobs_are_listed_by_their_state(state: str, count: int, alice: APIClient, job: dict[str, Any]) -> None:
    """A federator that starts again looks for what it was at."""
    submit(alice, job)

    found = alice.get(ADDRESS, {"state": state} if state else {})
    assert len(found.json()) == count


def test_only_federators_claim(alice: APIClient, north: APIClient) -> None:
    """A mandate is for nobody else's eyes."""
    assert alice.post(f"{ADDRESS}/claim").status_code == 403
    assert north.post(f"{ADDRESS}/claim").status_code == 403


@pytest.mark.parametrize(("how", "state"), [("finish", "done"), ("fail", "failed")])
def test_the_federator_ends_what_it_claimed(
    how: str, state: str, alice: APIClient, fed: APIClient, job: dict[str, Any]
) -> None:
    """And the researcher reads what came of it; the same call again is no fault."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")

    assert end(fed, job, how, {"auc": 0.9}).json()["state"] == state
    assert end(fed, job, how, {"auc": 0.9}).status_code == 200
    assert alice.get(f"{ADDRESS}/{job['id']}").json()["outcome"] == {"auc": 0.9}


def test_a_job_that_was_not_claimed_cannot_be_ended(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """To a federator that has not claimed it, it is not there."""
    submit(alice, job)

    assert end(fed, job, "finish").status_code == 404


def test_a_cancelled_job_is_not_finished(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """The federator learns of the researcher's change of mind."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")

    assert end(alice, job, "cancel").json()["state"] == "cancelled"
    assert end(fed, job, "finish").status_code == 409


def test_a_finished_job_is_not_cancelled(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """What is done is done."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")
    end(fed, job, "finish")

    answer = end(alice, job, "cancel")

    assert (answer.status_code, answer.json()["code"]) == (409, "JOB_STATE")


def test_a_job_is_nobody_elses_business(alice: APIClient, mallory: APIClient, job: dict[str, Any]) -> None:
    """Neither seen nor listed nor cancelled."""
    submit(alice, job)

    assert mallory.get(f"{ADDRESS}/{job['id']}").status_code == 404
    assert end(mallory, job, "cancel").status_code == 404
    assert mallory.get(ADDRESS).json() == []
    assert [brief["id"] for brief in alice.get(ADDRESS).json()] == [job["id"]]


def test_each_step_of_a_job_is_in_the_log(alice: APIClient, fed: APIClient, job: dict[str, Any]) -> None:
    """Who asked for it, who ran it, and how it ended."""
    submit(alice, job)
    fed.post(f"{ADDRESS}/claim")
    end(fed, job, "finish")

    text = "".join(line.text for line in audit.line_stream())
    assert all(f'"{event}"' in text for event in ("job.submitted", "job.claimed", "job.done"))
