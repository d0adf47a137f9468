"""The membership register over REST."""

from __future__ import annotations

import hashlib
from http import HTTPStatus

from django.conf import settings
from django.http import HttpResponse, HttpResponseNotModified
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance.network.audit.services import line_append
from appliance.network.errors import RoleRefusedError
from appliance.network.members import selectors
from appliance.network.members.authentication import caller
from appliance.network.members.certificates import certificate_ask
from appliance.network.members.permissions import IsMember
from appliance.network.schema import ERRORS


class RegisterView(APIView):
    """The membership register in the operator's signature: check it, do not believe us."""

    permission_classes = [IsMember]

    @extend_schema(
        parameters=[OpenApiParameter("If-None-Match", str, "header", description="The SHA-256 of the text held.")],
        responses={
            (200, "application/jose"): OpenApiResponse(OpenApiTypes.STR, "A JWS."),
            304: OpenApiResponse(description="It is the one that the caller holds."),
            **ERRORS,
        },
    )
    def get(self, request: Request) -> HttpResponse:
        """The current register, unless the caller has it already."""
        text = selectors.register_text()
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()}"'
        headers = {"ETag": tag}
        if request.headers.get("If-None-Match") == tag:
            return HttpResponseNotModified(headers=headers)
        return HttpResponse(text, content_type="application/jose", headers=headers)


class CertificatesView(APIView):
    """Further certificates. The authority decides; we hand over."""

    permission_classes = [IsMember]

    class CertificateInput(serializers.Serializer[object]):
        """A join request in its member's signature, as ``fedward join prepare`` writes it."""

        format = serializers.CharField()
        id = serializers.CharField(max_length=63)
        role = serializers.CharField()
        institution = serializers.CharField()
        contact = serializers.CharField()
        identity = serializers.CharField()
        sealing = serializers.CharField()
        csr = serializers.CharField(max_length=8192)
        proof = serializers.CharField(max_length=1024)

    class CertificateOutput(serializers.Serializer[object]):
        """What the authority issued."""

        certificate = serializers.CharField(help_text="In PEM form, for the key in the request.")

    @extend_schema(request=CertificateInput, responses={201: CertificateOutput, **ERRORS})
    def post(self, request: Request) -> Response:
        """A further certificate for the caller, who holds a good one."""
        member, asked = caller(request), self.CertificateInput(data=request.data)
        asked.is_valid(raise_exception=True)
        if asked.validated_data["id"] != member.id:
            raise RoleRefusedError("A member asks for its own certificate only.")
        certificate = certificate_ask(settings.FEDWARD.authority_socket, dict(request.data))  # as it was signed
        line_append(member.id, "certificate.renewed", member.id)
        return Response({"certificate": certificate}, status=HTTPStatus.CREATED)
