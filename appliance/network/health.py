"""Whether the network host works, for whoever watches it."""

from __future__ import annotations

from importlib.metadata import version

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance.network.audit.models import AuditHead
from appliance.network.members.selectors import register_version
from appliance.network.schema import ERRORS


class HealthView(APIView):
    """Needs no token and tells nothing of anybody."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    class HealthOutput(serializers.Serializer[object]):
        """All is well."""

        status = serializers.CharField()
        version = serializers.CharField()
        register = serializers.IntegerField(help_text="The membership register's version; 0 before the first.")

    @extend_schema(responses={200: HealthOutput, **ERRORS})
    def get(self, request: Request) -> Response:  # noqa: ARG002 - the framework's signature
        """Answers when the database does."""
        AuditHead.objects.get(id=1)
        return Response({"status": "ok", "version": version("fedward"), "register": register_version()})
