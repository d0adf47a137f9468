"""A line for every call, once it was answered.

A call that changed something is told by that change's own line, which was committed together with it; any other call,
and each that failed, is told here. A call whose line cannot be written is answered with an error: all calls may be
repeated. Only the health check leaves no line, and a look at a register that has not changed: they tell nothing and
come all the time. A member's word on its own state and a look at the metrics, which come as often, leave one only where
they were refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from appliance.network.audit.services import Call, current_call, line_append
from appliance.network.members.authentication import CLAIMED
from appliance.protocol.register import Member

UNLOGGED = frozenset({"health"})  # names of routes
UNLOGGED_UNLESS_REFUSED = frozenset({"state", "metrics"})


class AuditMiddleware:
    """Outermost, so that it sees each call's final answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer, and note it; a streamed answer is noted with the bytes that really left."""
        call = Call(_describe(request))
        token = current_call.set(call)
        try:
            response = self._get_response(request)
        finally:
            current_call.reset(token)
        match = request.resolver_match
        if (match and match.url_name in UNLOGGED) or response.status_code == HTTPStatus.NOT_MODIFIED:
            return response
        if match and match.url_name in UNLOGGED_UNLESS_REFUSED and not _is_error(response):
            return response
        if isinstance(response, StreamingHttpResponse):
            chunks = cast("Iterator[bytes]", response.streaming_content)  # nothing here is asynchronous
            response.streaming_content = _counted(request, response, call, chunks)
        elif isinstance(response, HttpResponse) and (_is_error(response) or not call.is_noted):
            _note(request, response, call, sent=len(response.content))
        return response


def _counted(request: HttpRequest, response: HttpResponseBase, call: Call, chunks: Iterator[bytes]) -> Iterator[bytes]:
    sent = 0
    try:
        for chunk in chunks:
            yield chunk
            sent += len(chunk)
    finally:
        _note(request, response, call, sent=sent)


def _describe(request: HttpRequest) -> dict[str, Any]:
    """The template of the address, not the address: an unknown one may hold anything."""
    try:
        path = f"/{resolve(request.path_info).route}"
    except Resolver404:
        path = ""
    received = int(request.META.get("CONTENT_LENGTH") or 0)
    return {"method": (request.method or "")[:16], "path": path, "received": received}


def _note(request: HttpRequest, response: HttpResponseBase, call: Call, *, sent: int) -> None:
    match, member = request.resolver_match, getattr(request, "user", None)
    details = {
        **call.details,
        "status": response.status_code,
        "sent": sent,
        "range": response.headers.get("Content-Range"),
        "code": _code(response),
        "claimed": request.META.get(CLAIMED),
    }
    line_append(
        member.id if isinstance(member, Member) else "anonymous",
        "request.answered",
        "".join(str(value) for value in match.kwargs.values()) if match else "",
        **{name: value for name, value in details.items() if value is not None},
    )


def _is_error(response: HttpResponseBase) -> bool:
    return response.status_code >= HTTPStatus.BAD_REQUEST


def _code(response: HttpResponseBase) -> str | None:
    """An error's code, and so the reason of each refusal."""
    if not _is_error(response) or not isinstance(response, HttpResponse) or not response.content:
        return None
    return str(json.loads(response.content).get("code", ""))
