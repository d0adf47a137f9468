"""Each call that a member proved to be its own is a sign of its life."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from appliance.network.presence.services import member_seen
from appliance.protocol.register import Member


class PresenceMiddleware:
    """Notes whoever called, whatever the answer was."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer, then note."""
        response = self._get_response(request)
        member = getattr(request, "user", None)
        if isinstance(member, Member):
            member_seen(member.id)
        return response
