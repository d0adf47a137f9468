"""What all calls have in common in the OpenAPI schema."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers


class ErrorSerializer(serializers.Serializer[object]):
    """Every error has this shape."""

    code = serializers.CharField(help_text="For machines; the documentation explains each.")
    message = serializers.CharField(help_text="What is wrong, for people.")
    remedy = serializers.CharField(help_text="What the reader can do.")


_ERROR = OpenApiResponse(ErrorSerializer, "Refused or failed.")
ERRORS: dict[Any, OpenApiResponse] = {"4XX": _ERROR, "5XX": _ERROR}


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the token in the OpenAPI schema."""

    target_class = "appliance.network.members.authentication.BearerAuthentication"
    name = "memberToken"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:  # noqa: ARG002 - the base's signature
        """OpenAPI's words for it."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWS by the member's identity key"}
