"""Writes to the queue. Each change of state is one guarded update, so that of two callers one wins."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from appliance.network.audit.services import line_append
from appliance.network.database import writing
from appliance.network.errors import JobStateError, RequestInvalidError
from appliance.network.jobs import selectors
from appliance.network.jobs.models import Job, JobState
from appliance.network.members.selectors import register_current
from appliance.network.parameters.services import uploads_keep
from appliance.protocol.mandate import MandateError, open_mandate
from appliance.protocol.register import Role

MAX_OUTCOME_BYTES = 64 << 10  # as progress


def job_submit(member: str, job_id: UUID, *, federator: str, spec: Any, mandate: str) -> tuple[Job, bool]:
    """Put a job into the queue; the same one again finds the first. What it begins with is kept until its mandate ends.

    Args:
        member: The researcher.
        job_id: Of the researcher's choice.
        federator: Who shall run it.
        spec: JSON, for the federator to read.
        mandate: The researcher's signed mandate.

    Returns:
        The job, and whether it is new.

    Raises:
        RequestInvalidError: The specification is too large, or there is no such federator.
        JobStateError: The id is taken by another job.
    """
    text = _json_text(spec, settings.FEDWARD.max_job_bytes, "spec")
    if federator not in {one.id for one in register_current().with_role(Role.FEDERATOR)}:
        raise RequestInvalidError(f"federator: '{federator[:63]}' is no active federator.")
    try:
        with writing():
            known = Job.objects.filter(id=job_id).first()
            if known is None:
                job = Job.objects.create(id=job_id, owner=member, federator=federator, spec=text, mandate=mandate)
                line_append(member, "job.submitted", str(job_id), bytes=len(text))
                _keep_files(job)
                return job, True
    except IntegrityError:  # on PostgreSQL, the same call twice at once
        known = Job.objects.get(id=job_id)
    if (known.owner, known.federator, known.spec, known.mandate) != (member, federator, text, mandate):
        raise JobStateError("This id is taken by another job.", remedy="Choose a fresh UUID.")
    return known, False


def _keep_files(job: Job) -> None:
    """A job may wait for its turn for longer than uploads are kept."""
    try:
        _, mandate = open_mandate(job.mandate, register_current())
    except MandateError:
        return  # not ours to judge: its federator refuses it
    until = dt.datetime.fromtimestamp(mandate.expires_at, dt.UTC)
    uploads_keep(job.owner, job.federator, mandate.experiment_id, until)


def job_claim(member: str) -> Job | None:
    """Give a federator the oldest job that waits for it; None when nothing does."""
    with writing():
        queued = Job.objects.filter(federator=member, state=JobState.QUEUED).order_by("submitted_at", "id")
        job = queued.select_for_update(skip_locked=True).first()
        if job is not None:
            job.state, job.claimed_by = JobState.CLAIMED, member
            job.save(update_fields=["state", "claimed_by", "changed_at"])
            line_append(member, "job.claimed", str(job.id), owner=job.owner)
    return job


def job_cancel(member: str, job_id: UUID) -> Job:
    """The researcher no longer wants it; a federator that runs it learns so when it looks.

    Raises:
        JobUnknownError: Not the member's job.
        JobStateError: It is done or failed.
    """
    return _move(member, job_id, {"owner": member}, (JobState.QUEUED, JobState.CLAIMED), JobState.CANCELLED)


def job_progress(member: str, job_id: UUID, progress: Any) -> Job:
    """What the federator that claimed a job has to say of it, in the place of what it said before.

    It may be said of a job that is over as well: files that hold its result expire, and are put there again.

    Raises:
        JobUnknownError: Not claimed by the member.
        JobStateError: The researcher cancelled it.
    """
    text = _json_text(progress, MAX_OUTCOME_BYTES, "progress")
    running = Job.objects.filter(id=job_id, claimed_by=member).exclude(state=JobState.CANCELLED)
    if not running.update(progress=text, changed_at=timezone.now()):
        job = selectors.job_show(member, job_id)
        raise JobStateError(f"The job is {job.state}.")
    return selectors.job_show(member, job_id)


def job_finish(member: str, job_id: UUID, outcome: Any) -> Job:
    """The federator that claimed it has done it; raises as ``job_cancel`` does."""
    return _move(member, job_id, {"claimed_by": member}, (JobState.CLAIMED,), JobState.DONE, outcome)


def job_fail(member: str, job_id: UUID, outcome: Any) -> Job:
    """The federator that claimed it could not do it; raises as ``job_cancel`` does."""
    return _move(member, job_id, {"claimed_by": member}, (JobState.CLAIMED,), JobState.FAILED, outcome)


def _move(
    member: str, job_id: UUID, whose: dict[str, str], before: tuple[JobState, ...], after: JobState, outcome: Any = None
) -> Job:
    text = "" if outcome is None else _json_text(outcome, MAX_OUTCOME_BYTES, "outcome")
    selectors.job_show(member, job_id)
    with writing():
        rows = Job.objects.filter(id=job_id, state__in=before, **whose)
        if rows.update(state=after, outcome=text, changed_at=timezone.now()):
            line_append(member, f"job.{after}", str(job_id))
    job = selectors.job_show(member, job_id)
    if job.state != after or job.outcome != text:  # the same again is no fault: the first answer may have been lost
        raise JobStateError(f"The job is {job.state}.")
    return job


def _json_text(value: Any, limit: int, name: str) -> str:
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise RequestInvalidError(f"{name}: {size} bytes; {limit} are allowed.")
    if "\x00" in text or "\\u0000" in text or (not text.isascii() and _has_surrogates(text)):
        raise RequestInvalidError(f"{name}: holds a character that no database takes.")
    return text


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
