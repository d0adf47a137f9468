"""Uploads, for whom they are, and who pays for them."""

from __future__ import annotations

from django.db import models


class Owner(models.Model):
    """A member that uploads; its row is locked while its quota is reckoned."""

    member = models.CharField(max_length=63, primary_key=True)

    def __str__(self) -> str:
        return self.member


class Upload(models.Model):
    """A file on its way in, or whole.

    Attributes:
        id: Chosen by its owner, so that a repeated call finds what the first one made.
        length: Bytes, as stated at creation.
        sha256: As stated at creation; a whole upload has it.
        offset: Bytes that are on the disk for certain.
        is_complete: Only then may a recipient see it.
        expires_at: When it may be collected.
    """

    id = models.UUIDField(primary_key=True)
    owner = models.ForeignKey(Owner, on_delete=models.PROTECT, related_name="uploads")
    length = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    purpose = models.CharField(max_length=64)
    experiment_id = models.CharField(max_length=64)
    offset = models.PositiveBigIntegerField(default=0)
    is_complete = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"upload {self.id}"

    @property
    def name(self) -> str:
        """Under which the store keeps it."""
        return self.id.hex


class Recipient(models.Model):
    """A member for whom an upload is."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="recipients")
    member = models.CharField(max_length=63)

    class Meta:
        """Each member once."""

        constraints = [models.UniqueConstraint(fields=["upload", "member"], name="one_row_a_recipient")]

    def __str__(self) -> str:
        return f"{self.upload_id} for {self.member}"
