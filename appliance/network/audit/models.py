"""The chain's lines, and its head."""

from __future__ import annotations

from django.db import models


class AuditLine(models.Model):
    """One line. ``hash`` is the SHA-256 of exactly ``text``."""

    n = models.PositiveBigIntegerField(primary_key=True)
    text = models.TextField()
    hash = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"audit line {self.n}"


class AuditHead(models.Model):
    """One row, locked by whoever appends: it keeps the order, and shows a log that was cut short."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    n = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"audit head at {self.n}"
