"""One shape for every error, whoever raised it: ``{"code", "message", "remedy"}``."""

from __future__ import annotations

import secrets
import sys
from http import HTTPStatus
from typing import Any

import structlog
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from rest_framework import exceptions

from appliance.network.errors import (
    DiskFullError,
    NetworkError,
    RequestInvalidError,
    RoleRefusedError,
    TokenRefusedError,
)
from appliance.protocol.errors import Code, FedWardError, takes_no_more

_log = structlog.get_logger(__name__)


def answer_error(error: Exception, _context: dict[str, Any]) -> HttpResponse | None:
    """REST framework's exception handler; None leaves what nobody expected to ``answer_500``."""
    if isinstance(error, Http404):
        return error_response(_nothing_here())
    if isinstance(error, exceptions.APIException):
        return error_response(_translated(error))
    return error_response(error) if isinstance(error, FedWardError) else None


def error_response(error: FedWardError) -> HttpResponse:
    """The error as an answer."""
    status = error.status if isinstance(error, NetworkError) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = error.headers if isinstance(error, NetworkError) else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {**headers, "WWW-Authenticate": "Bearer"}
    return JsonResponse(error_body(error), status=status, headers=headers)


def error_body(error: FedWardError) -> dict[str, str]:
    """The one shape."""
    return {"code": error.code, "message": error.message, "remedy": error.remedy}


def answer_400(_request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django refused the call before any view saw it."""
    return error_response(RequestInvalidError(f"The call is malformed ({type(exception).__name__})."))


def answer_404(_request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """No view has this address."""
    return error_response(_nothing_here())


def answer_500(request: HttpRequest) -> HttpResponse:
    """Something broke that nobody expected: the log has it, under the reference that the caller gets."""
    error = sys.exc_info()[1]
    if isinstance(error, OperationalError | OSError) and takes_no_more(error.__cause__ or error):
        _log.error("the disk takes no more", reason=str(error))
        return error_response(DiskFullError())
    reference = secrets.token_hex(4)
    match = request.resolver_match
    _log.error("request failed", reference=reference, path=match.route if match else "", exc_info=sys.exc_info())
    return error_response(FedWardError(f"The network host failed; reference {reference}."))


def _nothing_here() -> NetworkError:
    return RequestInvalidError("There is nothing at this address.", status=HTTPStatus.NOT_FOUND)


def _translated(error: exceptions.APIException) -> NetworkError:
    match error:
        case exceptions.NotAuthenticated():
            return TokenRefusedError("The call carries no bearer token.")
        case exceptions.PermissionDenied():
            return RoleRefusedError(str(error.detail))
        case exceptions.ValidationError():
            return RequestInvalidError(_first_fault(error.detail))
        case exceptions.MethodNotAllowed():
            return RequestInvalidError("This address has no such method.", status=error.status_code)
        case _:
            code = Code.REQUEST_INVALID if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else Code.INTERNAL
            return NetworkError(str(error.detail), status=error.status_code, code=code)


def _first_fault(detail: Any) -> str:
    """The first fault of a serializer as ``field: what``."""
    where: list[str] = []
    while isinstance(detail, dict | list) and detail:
        if isinstance(detail, dict):
            name, detail = next(iter(detail.items()))
            where += [] if name == "non_field_errors" else [str(name)]
        else:
            detail = detail[0]
    return f"{'.'.join(where)}: {detail}" if where else str(detail)
