"""Reads of the parameter store. What a caller may not see looks exactly like what is not there."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from appliance.network.errors import UploadUnknownError
from appliance.network.parameters import spool
from appliance.network.parameters.models import Recipient, Upload


def upload_owned(member: str, upload_id: UUID) -> Upload:
    """The member's own upload, whole or not; raises UploadUnknownError."""
    return _one(_alive().filter(owner_id=member), upload_id)


def upload_readable(member: str, upload_id: UUID) -> Upload:
    """A whole upload that is the member's own or for it; raises UploadUnknownError."""
    return _one(_alive().filter(Q(owner_id=member) | _is_recipient(member), is_complete=True), upload_id)


def upload_removable(member: str, upload_id: UUID) -> Upload:
    """An upload that is the member's own, or that was for nobody else; raises UploadUnknownError."""
    others = Recipient.objects.filter(upload=OuterRef("pk")).exclude(member=member)
    mine = Q(owner_id=member) | (_is_recipient(member) & Q(is_complete=True) & ~Q(Exists(others)))
    return _one(_alive().filter(mine), upload_id)


def upload_list(member: str) -> QuerySet[Upload]:
    """The member's own uploads, the newest first."""
    return _alive().filter(owner_id=member).prefetch_related("recipients").order_by("-created_at", "id")


def upload_offset(upload: Upload) -> int:
    """How far an upload got: what the row promises, as far as the file is really there."""
    return upload.offset if upload.is_complete else min(upload.offset, spool.size(upload.name))


def upload_offset_settled(upload: Upload) -> int:
    """The same for a caller that goes on from there.

    Raises:
        UploadBusyError: A call appends to it: after a broken line, its last bytes may still be on their way to the
            disk, and a caller told the offset of now would send them again.
    """
    if upload.is_complete:
        return upload.offset
    with spool.hold(upload.name):
        return upload_offset(upload_owned(upload.owner_id, upload.id))


def bytes_used(member: str, *, but: UUID | None = None) -> int:
    """What the member's uploads take up, at the lengths that were announced; ``but`` leaves one out."""
    uploads = Upload.objects.filter(owner_id=member)
    uploads = uploads.exclude(id=but) if but else uploads
    return int(uploads.aggregate(total=Sum("length"))["total"] or 0)


def _alive() -> QuerySet[Upload]:
    return Upload.objects.filter(expires_at__gt=timezone.now())


def _is_recipient(member: str) -> Q:
    return Q(Exists(Recipient.objects.filter(upload=OuterRef("pk"), member=member)))


def _one(uploads: QuerySet[Upload], upload_id: UUID) -> Upload:
    upload = uploads.filter(id=upload_id).first()
    if upload is None:
        raise UploadUnknownError
    return upload
