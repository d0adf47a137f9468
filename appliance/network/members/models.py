"""The register's versions, each in the operator's signature."""

from __future__ import annotations

from django.db import models


class RegisterVersion(models.Model):
    """One version as it was imported; the highest one counts.

    Attributes:
        version: The register's own number.
        text: The signed text, handed to members as it is.
        imported_at: When it came here.
    """

    version = models.PositiveBigIntegerField(primary_key=True)
    text = models.TextField()
    imported_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"register version {self.version}"
