"""Writes to the parameter store.

What holds at every instant, whatever breaks: a row's offset counts bytes that are on the disk; a row is complete
only after its file was checked and is durable in the store; a download looks at complete rows alone.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from contextlib import suppress
from typing import Protocol
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from appliance.network.audit.services import line_append
from appliance.network.database import writing
from appliance.network.errors import (
    RequestInvalidError,
    UploadBusyError,
    UploadConflictError,
    UploadCorruptError,
    UploadTooLargeError,
    UploadUnknownError,
)
from appliance.network.members.selectors import register_current
from appliance.network.parameters import selectors, spool
from appliance.network.parameters.models import Owner, Recipient, Upload
from appliance.network.parameters.spool import Part
from appliance.network.parameters.stores import CHUNK_BYTES, SpooledFile, store
from appliance.network.parameters.tus import Creation, headers_of
from appliance.protocol.register import MemberState

CHECKPOINT_BYTES = 64 << 20  # what a killed server may cost a sender
_log = structlog.get_logger(__name__)


class Stream(Protocol):
    """A call's body."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; fewer, or an OSError, when the line broke."""


def upload_create(member: str, creation: Creation, length: int) -> tuple[Upload, bool]:
    """Announce an upload; the same announcement again finds the first one.

    Args:
        member: Whose upload it is.
        creation: What is announced.
        length: In bytes.

    Returns:
        The upload, and whether it is new.

    Raises:
        RequestInvalidError: A recipient is no active member.
        UploadConflictError: The id is taken by another announcement.
        UploadTooLargeError: Beyond the member's quota.
        DiskFullError: Beyond what the disk has.
    """
    _require_members(creation.recipients)
    try:
        return _insert(member, creation, length), True
    except IntegrityError:
        known = Upload.objects.get(id=creation.id)
    now = timezone.now()
    if known.expires_at <= now and _expire(known, now):  # an id is free again, collected or not
        return _insert(member, creation, length), True
    _require_same(known, member, creation, length)
    return known, False


def upload_append(upload: Upload, *, offset: int, stream: Stream, size: int) -> Upload:
    """Append to an upload; with its last byte it is checked and becomes visible to its recipients.

    When the line breaks, what came is kept, and the next call goes on from there.

    Args:
        upload: Which, as the caller found it.
        offset: Where the caller believes that it stands.
        stream: Where the bytes come from, read in bounded chunks.
        size: How many come; none completes an upload whose bytes are all here.

    Raises:
        UploadUnknownError: It ended meanwhile.
        UploadBusyError: Another call appends to it.
        UploadConflictError: It stands elsewhere.
        UploadTooLargeError: More bytes than were announced.
        UploadCorruptError: All bytes came, with another hash than announced; the upload is gone.
        RequestInvalidError: The line broke before all bytes came.
        DiskFullError: No room; what fitted is kept.
    """
    if upload.is_complete:
        raise _elsewhere(upload, offset, upload.length)
    with spool.hold(upload.name) as part:
        upload = selectors.upload_owned(upload.owner_id, upload.id)  # as it is now that nobody else changes it
        at = selectors.upload_offset(upload)
        if upload.is_complete or offset != at:
            raise _elsewhere(upload, offset, at)
        if at + size > upload.length:
            raise UploadTooLargeError(
                f"The upload has {upload.length} bytes; {at + size} would be more.",
                remedy="Announce another upload with the right length.",
            )
        part.cut(at)
        digest = _receive(upload, part, stream, size, at)
        if part.size == upload.length:
            _complete(upload, part, digest)
    return upload


def upload_remove(member: str, upload_id: UUID) -> None:
    """Delete an upload, whole or not.

    Raises:
        UploadUnknownError: Neither the member's own nor for it alone.
        UploadBusyError: A call appends to it.
    """
    upload = selectors.upload_removable(member, upload_id)
    with spool.hold(upload.name):
        _discard(upload, member, "upload.deleted")


def uploads_keep(member: str, recipient: str, experiment_id: str, until: dt.datetime) -> None:
    """Keep a member's breakpoints of an experiment, for one recipient, at least so long."""
    mine = Upload.objects.filter(owner_id=member, purpose="breakpoint", experiment_id=experiment_id, is_complete=True)
    mine.filter(recipients__member=recipient, expires_at__lt=until).update(expires_at=until)


def collect() -> int:
    """Delete what has expired, and files that no row knows (left by a crash); returns how many uploads ended."""
    now, ended = timezone.now(), 0
    for upload in Upload.objects.filter(expires_at__lte=now).iterator(chunk_size=500):
        with suppress(UploadBusyError):  # somebody appends, so that it lives on
            ended += _expire(upload, now)
    for name in {*spool.names(), *store().names()}:
        _drop_orphan(name)
    return ended


def _expire(upload: Upload, now: dt.datetime) -> bool:
    with spool.hold(upload.name):
        return _discard(upload, "network", "upload.expired", before=now)


def _require_members(recipients: tuple[str, ...]) -> None:
    register = register_current()
    for recipient in recipients:
        member = register.find(recipient)
        if member is None or member.state is not MemberState.ACTIVE:
            raise RequestInvalidError(f"Upload-Metadata: recipients: '{recipient}' is no active member.")


def _require_same(known: Upload, member: str, creation: Creation, length: int) -> None:
    recipients = known.recipients.order_by("member").values_list("member", flat=True)
    held = (known.owner_id, known.length, known.sha256, known.purpose, known.experiment_id, tuple(recipients))
    if held != (member, length, creation.sha256, creation.purpose, creation.experiment, creation.recipients):
        raise _taken()


def _require_room(member: str, upload_id: UUID, length: int) -> None:
    used, quota = selectors.bytes_used(member, but=upload_id), settings.FEDWARD.quota_bytes
    if used + length > quota:
        raise UploadTooLargeError(f"The quota is {quota} bytes; {used} are used and {length} more were announced.")
    spool.require_room(length)


@writing()
def _insert(member: str, creation: Creation, length: int) -> Upload:
    # Locked, so that two announcements are not both the last that fits.
    known = Owner.objects.select_for_update().filter(member=member).first()
    owner = known or Owner.objects.get_or_create(member=member)[0]
    _require_room(member, creation.id, length)
    upload = Upload.objects.create(
        id=creation.id,
        owner=owner,
        length=length,
        sha256=creation.sha256,
        purpose=creation.purpose,
        experiment_id=creation.experiment,
        expires_at=_until(settings.FEDWARD.keep_unfinished_s),
    )
    Recipient.objects.bulk_create(Recipient(upload=upload, member=recipient) for recipient in creation.recipients)
    return upload


def _receive(upload: Upload, part: Part, stream: Stream, size: int, at: int) -> str | None:
    """Write what comes; returns the file's hash if all of it passed through our hands."""
    digest, received, saved = hashlib.sha256(), 0, 0
    try:
        while received < size and (chunk := _read(stream, min(CHUNK_BYTES, size - received))):
            part.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            if received - saved >= CHECKPOINT_BYTES:
                _save_offset(upload, part, at + received)
                saved = received
    finally:
        if at + received < upload.length:  # the last byte is noted by completion
            _save_offset(upload, part, at + received)
    if received < size:
        raise RequestInvalidError(f"The line broke after {received} of {size} bytes; they are kept.")
    return digest.hexdigest() if at == 0 else None


def _read(stream: Stream, size: int) -> bytes:
    try:
        return stream.read(size)
    except OSError:
        return b""


def _save_offset(upload: Upload, part: Part, offset: int) -> None:
    part.sync()
    until = _until(settings.FEDWARD.keep_unfinished_s)
    with writing():
        # Compared as well as locked: another host's lock is not ours.
        row = Upload.objects.filter(id=upload.id, offset=upload.offset, is_complete=False)
        if not row.update(offset=offset, expires_at=until):
            raise UploadBusyError("Another call appended to this upload.")
    upload.offset, upload.expires_at = offset, until


def _complete(upload: Upload, part: Part, digest: str | None) -> None:
    part.sync()
    digest = digest or part.sha256()
    if digest != upload.sha256:
        _discard(upload, upload.owner_id, "upload.rejected", found=digest)
        raise UploadCorruptError(f"The bytes have the SHA-256 {digest}; {upload.sha256} was announced.")
    try:
        with SpooledFile(part.path) as file:
            store().save(upload.name, file)
    except Exception:
        _save_offset(upload, part, upload.length)  # an append of nothing tries again
        raise
    recipients = sorted(upload.recipients.values_list("member", flat=True))
    upload.offset, upload.is_complete, upload.expires_at = upload.length, True, _until(settings.FEDWARD.keep_s)
    with writing():
        row = Upload.objects.filter(id=upload.id, is_complete=False)
        if not row.update(offset=upload.offset, is_complete=True, expires_at=upload.expires_at):
            raise UploadUnknownError
        line_append(
            upload.owner_id,
            "upload.completed",
            str(upload.id),
            bytes=upload.length,
            sha256=upload.sha256,
            recipients=recipients,
            purpose=upload.purpose,
            experiment=upload.experiment_id,
        )
    spool.drop(upload.name)  # there still if the store is elsewhere


def _discard(
    upload: Upload, actor: str, event: str, *, before: dt.datetime | None = None, found: str | None = None
) -> bool:
    """Row and line first, files after: a crash in between leaves a file that ``collect`` finds."""
    rows = Upload.objects.filter(id=upload.id)
    with writing():
        removed, _ = (rows.filter(expires_at__lte=before) if before else rows).delete()
        if not removed:
            return False
        extra = {"found": found} if found else {}
        line_append(actor, event, str(upload.id), owner=upload.owner_id, bytes=upload.length, **extra)
    spool.drop(upload.name)
    store().delete(upload.name)
    return True


def _drop_orphan(name: str) -> None:
    try:
        upload_id = UUID(hex=name)
    except ValueError:
        return  # not ours
    rows = Upload.objects.filter(id=upload_id)
    if rows.exists():
        return
    # A row comes before its file, and changes under this lock only: none now means that the file is nobody's.
    with suppress(UploadBusyError), spool.hold(name):
        if not rows.exists():
            spool.drop(name)
            store().delete(name)
            _log.info("collected a file without an upload", name=name)


def _elsewhere(upload: Upload, offset: int, at: int) -> UploadConflictError:
    return UploadConflictError(f"The upload stands at {at}, not at {offset}.", headers=headers_of(upload, at))


def _taken() -> UploadConflictError:
    return UploadConflictError("This id is taken by another upload.")


def _until(seconds: float) -> dt.datetime:
    return timezone.now() + dt.timedelta(seconds=seconds)
