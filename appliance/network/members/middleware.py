"""The register that the operator put into our folder counts from the next call on."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from appliance.network.members.services import register_follow


class RegisterMiddleware:
    """Outside the audit log's: taking a register is nobody's call."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Look at the file, then answer."""
        register_follow()
        return self._get_response(request)
