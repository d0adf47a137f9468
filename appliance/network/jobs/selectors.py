"""Reads of the queue."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q, QuerySet

from appliance.network.errors import JobUnknownError
from appliance.network.jobs.models import Job


def job_list(member: str, *, state: str | None = None) -> QuerySet[Job]:
    """What the member submitted, or claimed, the newest first; of one state only, if it is given."""
    jobs = Job.objects.filter(Q(owner=member) | Q(claimed_by=member)).order_by("-submitted_at", "id")
    return jobs if state is None else jobs.filter(state=state)


def job_show(member: str, job_id: UUID) -> Job:
    """One of these; raises JobUnknownError."""
    job = job_list(member).filter(id=job_id).first()
    if job is None:
        raise JobUnknownError
    return job
