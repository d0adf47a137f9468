"""The parameter store over REST: tus 1.0 for the way in, byte ranges for the way out."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance.network.members.authentication import caller
from appliance.network.parameters import selectors, services, tus
from appliance.network.parameters.models import Upload
from appliance.network.parameters.permissions import MayTransfer
from appliance.network.parameters.ranges import Span, read_range
from appliance.network.parameters.stores import store
from appliance.network.schema import ERRORS

_MAX_LISTED = 1000
_BODY = {(tus.BODY_TYPE): OpenApiTypes.BINARY}


def _header(name: str, description: str, *, required: bool = True) -> OpenApiParameter:
    return OpenApiParameter(name, str, OpenApiParameter.HEADER, required=required, description=description)


_VERSION = _header("Tus-Resumable", tus.VERSION)


class UploadsView(APIView):
    """A member's uploads."""

    permission_classes = [MayTransfer]

    class Uploads(serializers.Serializer[object]):
        """The member's space and what lies in it."""

        class UploadItem(serializers.Serializer[Upload]):
            """One upload."""

            id = serializers.UUIDField()
            length = serializers.IntegerField()
            sha256 = serializers.CharField()
            purpose = serializers.CharField()
            experiment_id = serializers.CharField()
            is_complete = serializers.BooleanField()
            expires_at = serializers.DateTimeField()

        used_bytes = serializers.IntegerField()
        quota_bytes = serializers.IntegerField()
        uploads = UploadItem(many=True)

    @extend_schema(responses={200: Uploads, **ERRORS})
    def get(self, request: Request) -> Response:
        """The caller's own uploads, the newest thousand, and how much of the quota is used."""
        member = caller(request).id
        value = {
            "used_bytes": selectors.bytes_used(member),
            "quota_bytes": settings.FEDWARD.quota_bytes,
            "uploads": selectors.upload_list(member)[:_MAX_LISTED],
        }
        return Response(self.Uploads(value).data)

    @extend_schema(
        parameters=[
            _VERSION,
            _header("Upload-Length", "In bytes."),
            _header("Upload-Metadata", "id, sha256, recipients, purpose, experiment; values in base64."),
        ],
        request=_BODY,
        responses={
            200: OpenApiResponse(description="Known already."),
            201: OpenApiResponse(description="New."),
            **ERRORS,
        },
    )
    def post(self, request: Request) -> HttpResponse:
        """Announce an upload, and append the body if there is one; may be repeated."""
        tus.require_version(request.headers)
        size = tus.read_body_size(request.headers) if request.headers.get("Content-Type") else 0
        creation, length = tus.read_creation(request.headers)
        member = caller(request).id
        upload, is_new = services.upload_create(member, creation, length)
        if is_new and (size or not length):
            upload = services.upload_append(upload, offset=0, stream=_body(request), size=size)
        headers = tus.headers_of(upload, selectors.upload_offset_settled(upload))
        location = reverse("upload", args=[upload.id])
        status = HTTPStatus.CREATED if is_new else HTTPStatus.OK
        return HttpResponse(status=status, headers={**headers, "Location": location})

    def options(self, request: Request, *_args: Any, **_kwargs: Any) -> Response:  # type: ignore[override] # noqa: ARG002 - the stubs contradict themselves
        """What of tus is spoken here."""
        headers = {
            "Tus-Resumable": tus.VERSION,
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Max-Size": str(settings.FEDWARD.max_upload_bytes),
        }
        return Response(status=HTTPStatus.NO_CONTENT, headers=headers)


class UploadView(APIView):
    """One upload on its way in."""

    permission_classes = [MayTransfer]

    def head(self, request: Request, upload_id: UUID) -> HttpResponse:
        """How far the upload got."""
        tus.require_version(request.headers)
        upload = selectors.upload_owned(caller(request).id, upload_id)
        return HttpResponse(headers=tus.headers_of(upload, selectors.upload_offset_settled(upload)))

    @extend_schema(
        parameters=[_VERSION, _header("Upload-Offset", "Where the caller believes that the upload stands.")],
        request=_BODY,
        responses={204: OpenApiResponse(description="Appended."), **ERRORS},
    )
    def patch(self, request: Request, upload_id: UUID) -> HttpResponse:
        """Append at an offset; the last byte completes the upload."""
        tus.require_version(request.headers)
        size = tus.read_body_size(request.headers)
        offset = tus.read_number(request.headers, "Upload-Offset")
        upload = selectors.upload_owned(caller(request).id, upload_id)
        upload = services.upload_append(upload, offset=offset, stream=_body(request), size=size)
        headers = tus.headers_of(upload, offset + size)
        return HttpResponse(status=HTTPStatus.NO_CONTENT, headers=headers)

    @extend_schema(parameters=[_VERSION], responses={204: OpenApiResponse(description="Gone."), **ERRORS})
    def delete(self, request: Request, upload_id: UUID) -> HttpResponse:
        """Delete an upload: its owner may, and a member for whom alone it was."""
        tus.require_version(request.headers)
        services.upload_remove(caller(request).id, upload_id)
        return HttpResponse(status=HTTPStatus.NO_CONTENT, headers={"Tus-Resumable": tus.VERSION})


class ContentView(APIView):
    """A whole upload on its way out."""

    permission_classes = [MayTransfer]

    @extend_schema(
        parameters=[
            _header("Range", "bytes=FIRST-LAST, one range.", required=False),
            _header("If-Range", "The ETag of the part that is held.", required=False),
        ],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (206, "application/octet-stream"): OpenApiTypes.BINARY,
            **ERRORS,
        },
    )
    def get(self, request: Request, upload_id: UUID) -> HttpResponseBase:
        """The bytes, or a range of them."""
        upload, span, headers = self._find(request, upload_id)
        chunks = store().read_range(upload.name, span.first, span.length)
        return StreamingHttpResponse(chunks, status=_status(span), headers=headers)

    def head(self, request: Request, upload_id: UUID) -> HttpResponse:
        """The same without the bytes."""
        _, span, headers = self._find(request, upload_id)
        return HttpResponse(status=_status(span), headers=headers)

    def _find(self, request: Request, upload_id: UUID) -> tuple[Upload, Span, Mapping[str, str]]:
        upload = selectors.upload_readable(caller(request).id, upload_id)
        etag = f'"{upload.sha256}"'
        span = read_range(
            request.headers.get("Range"), upload.length, etag=etag, if_range=request.headers.get("If-Range")
        )
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(span.length),
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Cache-Control": "private, no-store",
        }
        if span.is_partial:
            headers["Content-Range"] = f"bytes {span.first}-{span.first + span.length - 1}/{upload.length}"
        return upload, span, headers


def _status(span: Span) -> HTTPStatus:
    return HTTPStatus.PARTIAL_CONTENT if span.is_partial else HTTPStatus.OK


def _body(request: Request) -> services.Stream:
    """The body as it comes from the line, unread and unparsed."""
    return cast("services.Stream", request._request)  # noqa: SLF001 - the framework's own stream is None without a body
