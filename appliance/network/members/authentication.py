"""Who calls: the member that a short-lived JWS bearer token speaks for."""

from __future__ import annotations

import re
from typing import Any, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from appliance.network.errors import TokenRefusedError
from appliance.network.members.selectors import register_current
from appliance.protocol.envelope import verify_token
from appliance.protocol.errors import MessageRefusedError
from appliance.protocol.jose import NotSignedError, read_jws
from appliance.protocol.register import Member

AUDIENCE = "network"
CLAIMED = "fedward.claimed"  # in the WSGI environment: whom a refused token named, for the audit log
_MEMBER_ID = re.compile(r"[a-z0-9-]{1,63}")


class BearerAuthentication(BaseAuthentication):
    """``Authorization: Bearer TOKEN``, where the token is signed by the caller's identity key."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """The member; None without a token.

        Raises:
            TokenRefusedError: Malformed, expired, for another service, or not by an active member.
        """
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            return verify_token(token.strip(), register_current(), audience=AUDIENCE), None
        except MessageRefusedError as error:
            request.META[CLAIMED] = _claimed(token)
            raise TokenRefusedError(error.message, code=error.code, remedy=error.remedy) from error

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - the base's signature
        """What a caller without a token is asked for."""
        return "Bearer"


def caller(request: Request) -> Member:
    """The member behind a call that a permission let through."""
    return cast("Member", request.user)


def _claimed(token: str) -> str:
    try:
        kid = str(read_jws(token.strip()).header.get("kid", ""))
    except NotSignedError:
        return ""
    match = _MEMBER_ID.match(kid)
    return match[0] if match else ""
