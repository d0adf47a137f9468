"""The audit log over REST."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance.network.audit import selectors
from appliance.network.audit.permissions import MaySeeHead, MaySeeLines
from appliance.network.schema import ERRORS
from appliance.protocol import chain


class HeadView(APIView):
    """Where the chain stands; a member that notes it can tell later whether the log was written anew."""

    permission_classes = [MaySeeHead]

    class AuditHeadOutput(serializers.Serializer[object]):
        """The last line."""

        lines = serializers.IntegerField(source="n")
        hash = serializers.CharField()

    @extend_schema(responses={200: AuditHeadOutput, **ERRORS})
    def get(self, request: Request) -> Response:  # noqa: ARG002 - the framework's signature
        """The number of lines and the last one's hash."""
        return Response(self.AuditHeadOutput(selectors.head_show()).data)


class LinesView(APIView):
    """The whole log, for the operator."""

    permission_classes = [MaySeeLines]

    @extend_schema(
        responses={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, "HASH JSON, a row each."), **ERRORS}
    )
    def get(self, request: Request) -> StreamingHttpResponse:  # noqa: ARG002 - the framework's signature
        """The log as text, its hash first in each row."""
        lines = (row.encode() for row in chain.export(selectors.line_stream()))
        return StreamingHttpResponse(lines, content_type="text/plain; charset=utf-8")
