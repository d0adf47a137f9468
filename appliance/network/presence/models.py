"""One row a member: the last time, and the last word."""

from __future__ import annotations

from django.db import models


class Presence(models.Model):
    """A member as it was last heard.

    Attributes:
        seen_at: Its last call of any kind, to half a minute.
        stated_at: When it last said how it is; what follows is what it said then, None before.
        version: Its FedWard.
        certificate_until: When its own certificate ends.
        running_rounds: How many rounds train there.
    """

    member = models.CharField(max_length=63, primary_key=True)
    seen_at = models.DateTimeField()
    stated_at = models.DateTimeField(null=True)
    version = models.CharField(max_length=32, default="")
    disk_free_bytes = models.PositiveBigIntegerField(null=True)
    disk_total_bytes = models.PositiveBigIntegerField(null=True)
    certificate_until = models.DateTimeField(null=True)
    running_rounds = models.PositiveIntegerField(null=True)

    def __str__(self) -> str:
        return f"presence of {self.member}"
