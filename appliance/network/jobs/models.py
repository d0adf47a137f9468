"""The federator's queue."""

from __future__ import annotations

from django.db import models


class JobState(models.TextChoices):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(models.Model):
    """An experiment that a federator shall run for a researcher.

    Attributes:
        id: Chosen by the researcher, so that a repeated call finds what the first one made.
        owner: The researcher.
        federator: Whom the researcher chose; nobody else may claim it.
        spec: JSON text that we do not read.
        mandate: The researcher's signed mandate, which the nodes check.
        claimed_by: The federator that runs it, or empty.
        progress: JSON text by that federator, the newest, or empty.
        outcome: JSON text by that federator, or empty.
    """

    id = models.UUIDField(primary_key=True)
    owner = models.CharField(max_length=63, db_index=True)
    federator = models.CharField(max_length=63)
    spec = models.TextField()
    mandate = models.TextField()
    state = models.CharField(max_length=9, choices=JobState, default=JobState.QUEUED)
    claimed_by = models.CharField(max_length=63, default="", db_index=True)
    progress = models.TextField(default="")
    outcome = models.TextField(default="")
    submitted_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        """The queue's order."""

        indexes = [models.Index(fields=["federator", "state", "submitted_at"], name="job_queue")]

    def __str__(self) -> str:
        return f"job {self.id}"
