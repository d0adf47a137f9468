"""What the network host refuses, and with which HTTP status.

FedWardError
└── NetworkError               has a status
├── TokenRefusedError      401: no token, or not one of an active member
├── RoleRefusedError       403: an active member whose role may not
├── RequestInvalidError    400: the call is not as it must be
├── RegisterMissingError   503: no membership register yet
├── UploadUnknownError     404: no such upload, or not for the caller: both look alike
├── UploadConflictError    409: another offset, or the id is taken
├── UploadBusyError        423: another call appends to it
├── UploadCorruptError     460: not the bytes that were announced
├── UploadTooLargeError    413: beyond the length, the limit or the quota
├── RangeInvalidError      416: not within the file
├── DiskFullError          507: no room
├── JobUnknownError        404: no such job, or not the caller's to see
└── JobStateError          409: the job is past that
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from appliance.protocol.errors import Code, FedWardError


class NetworkError(FedWardError):
    """A call that was not answered as asked.

    Args:
        message: What is wrong, in plain English.
        status: Overrides the class's own HTTP status.
        headers: To send along.
        options: As for ``FedWardError``.
    """

    status: int = HTTPStatus.BAD_REQUEST

    def __init__(
        self, message: str, *, status: int | None = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(message, **options)
        self.status = status or type(self).status
        self.headers = dict(headers or {})


class TokenRefusedError(NetworkError):
    """The caller is nobody that we know."""

    code = Code.MESSAGE_UNSIGNED
    status = HTTPStatus.UNAUTHORIZED


class RoleRefusedError(NetworkError):
    """The caller is a member, and its role may not do this."""

    code = Code.SENDER_ROLE
    status = HTTPStatus.FORBIDDEN


class RequestInvalidError(NetworkError):
    """The call is malformed."""

    code = Code.REQUEST_INVALID


class RegisterMissingError(NetworkError):
    """Nobody can be known before a register was imported."""

    code = Code.CONFIGURATION_INVALID
    status = HTTPStatus.SERVICE_UNAVAILABLE


class UploadUnknownError(NetworkError):
    """There is no such upload, as far as the caller may know."""

    code = Code.TRANSFER_MISSING
    status = HTTPStatus.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("There is no such upload for you here.")


class UploadConflictError(NetworkError):
    """The caller and we disagree about the upload."""

    code = Code.UPLOAD_CONFLICT
    status = HTTPStatus.CONFLICT


class UploadBusyError(NetworkError):
    """Somebody appends to this upload at this moment."""

    code = Code.UPLOAD_BUSY
    status = HTTPStatus.LOCKED


class UploadCorruptError(NetworkError):
    """What arrived is not what was announced; it was thrown away."""

    code = Code.TRANSFER_CORRUPT
    status = 460  # as tus 1.0 has it for a checksum that does not match


class UploadTooLargeError(NetworkError):
    """More bytes than the upload, the limit or the quota has room for."""

    code = Code.QUOTA_EXCEEDED
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class RangeInvalidError(NetworkError):
    """The range lies outside the file."""

    code = Code.REQUEST_INVALID
    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class DiskFullError(NetworkError):
    """The network host has no room left."""

    code = Code.DISK_FULL
    status = HTTPStatus.INSUFFICIENT_STORAGE

    def __init__(self) -> None:
        remedy = "The operator frees space on the network host, or makes its disk writable."
        super().__init__("The network host's disk takes no more.", remedy=remedy)


class JobUnknownError(NetworkError):
    """There is no such job, as far as the caller may know."""

    code = Code.JOB_UNKNOWN
    status = HTTPStatus.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("There is no such job for you here.")


class JobStateError(NetworkError):
    """The job's state does not allow it."""

    code = Code.JOB_STATE
    status = HTTPStatus.CONFLICT
