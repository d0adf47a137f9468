"""The membership register over REST."""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from appliance.network.members import selectors
from appliance.network.members.permissions import IsMember
from appliance.network.schema import ERRORS


class RegisterView(APIView):
    """The membership register in the operator's signature: check it, do not believe us."""

    permission_classes = [IsMember]

    @extend_schema(responses={(200, "application/jose"): OpenApiResponse(OpenApiTypes.STR, "A JWS."), **ERRORS})
    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002 - the framework's signature
        """The current register."""
        return HttpResponse(selectors.register_text(), content_type="application/jose")
