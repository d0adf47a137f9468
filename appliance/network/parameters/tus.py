"""The words of tus 1.0 (resumable uploads over HTTP; tus.io/protocols/resumable-upload), as far as we speak it.

Beside the core: creation, creation-with-upload, termination, expiration. The metadata of a creation carries what
tus leaves to the application: ``id`` (a UUID of the caller's choice), ``sha256``, ``recipients`` (member ids with
commas between), ``purpose`` and ``experiment``. The hash is checked once, when the last byte has come.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from django.conf import settings
from django.utils.http import http_date
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.network.errors import RequestInvalidError, UploadTooLargeError
from appliance.network.parameters.models import Upload
from appliance.protocol.messages import Identifier, Sha256
from appliance.protocol.register import MemberId

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration"
BODY_TYPE = "application/offset+octet-stream"
MAX_RECIPIENTS = 1024


class Creation(BaseModel):
    """What the caller says of a new upload."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: UUID
    sha256: Sha256
    recipients: Annotated[tuple[MemberId, ...], Field(min_length=1, max_length=MAX_RECIPIENTS)]
    purpose: Identifier
    experiment: Identifier


def require_version(headers: Mapping[str, str]) -> None:
    """Raises RequestInvalidError unless the caller speaks our version."""
    if headers.get("Tus-Resumable") != VERSION:
        raise RequestInvalidError(
            f"Tus-Resumable: {VERSION} is expected.",
            status=HTTPStatus.PRECONDITION_FAILED,
            headers={"Tus-Version": VERSION},
        )


def read_number(headers: Mapping[str, str], name: str) -> int:
    """A header that counts bytes; raises RequestInvalidError."""
    text = headers.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise RequestInvalidError(f"{name}: a number of bytes is expected.")
    return int(text)


def read_body_size(headers: Mapping[str, str]) -> int:
    """How many bytes the call brings along.

    Raises:
        RequestInvalidError: They have another type, or nobody says how many they are.
    """
    if "Content-Length" not in headers:
        raise RequestInvalidError("Content-Length is expected.", status=HTTPStatus.LENGTH_REQUIRED)
    size = read_number(headers, "Content-Length")
    if size and headers.get("Content-Type") != BODY_TYPE:
        raise RequestInvalidError(f"Content-Type: {BODY_TYPE} is expected.", status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    return size


def read_creation(headers: Mapping[str, str]) -> tuple[Creation, int]:
    """What is announced, and its length in bytes.

    Raises:
        RequestInvalidError: A header is missing or malformed; names the field.
        UploadTooLargeError: Longer than the network host takes.
    """
    length = read_number(headers, "Upload-Length")
    if length > settings.FEDWARD.max_upload_bytes:
        raise UploadTooLargeError(
            f"The upload has {length} bytes; {settings.FEDWARD.max_upload_bytes} are allowed.",
            remedy="Send a smaller file, or ask the operator for a higher limit.",
        )
    metadata = _metadata(headers.get("Upload-Metadata", ""))
    recipients = tuple(sorted(set(metadata.pop("recipients", "").split(","))))
    try:
        return Creation.model_validate({**metadata, "recipients": recipients}), length
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else "?"
        raise RequestInvalidError(f"Upload-Metadata: {where[:40]}: {first['msg']}.") from error


def headers_of(upload: Upload, offset: int) -> dict[str, str]:
    """Where an upload stands. ``Upload-Complete`` is the IETF draft's (draft-ietf-httpbis-resumable-upload)."""
    return {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(offset),
        "Upload-Length": str(upload.length),
        "Upload-Complete": "?1" if upload.is_complete else "?0",
        "Upload-Expires": http_date(upload.expires_at.timestamp()),
        "Cache-Control": "no-store",
    }


def _metadata(text: str) -> dict[str, str]:
    try:
        pairs = (pair.split(" ") for pair in text.split(",") if pair)
        return {key: base64.b64decode(value, validate=True).decode() for key, value in pairs}
    except (ValueError, binascii.Error) as error:
        raise RequestInvalidError("Upload-Metadata: pairs of a name and a value in base64 are expected.") from error
