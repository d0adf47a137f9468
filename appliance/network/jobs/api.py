"""The federator's queue over REST."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance.network.jobs import selectors, services
from appliance.network.jobs.models import Job, JobState
from appliance.network.jobs.permissions import MayClaim, MayLook, MayLookOrSubmit, MaySubmit
from appliance.network.members.authentication import caller
from appliance.network.schema import ERRORS
from appliance.protocol.jose import read_json
from appliance.protocol.mandate import MAX_MANDATE_CHARS

_MAX_LISTED = 1000


class JsonText(serializers.JSONField):
    """JSON that is stored as text."""

    def to_representation(self, value: Any) -> Any:
        """The value behind the text."""
        return read_json(value.encode()) if value else None


class JobBrief(serializers.Serializer[Job]):
    """A job in a list."""

    id = serializers.UUIDField()
    owner = serializers.CharField()
    federator = serializers.CharField()
    state = serializers.CharField()
    claimed_by = serializers.CharField()
    submitted_at = serializers.DateTimeField()
    changed_at = serializers.DateTimeField()


class JobOutput(JobBrief):
    """A job with all that belongs to it."""

    spec = JsonText()
    mandate = serializers.CharField()
    progress = JsonText(allow_null=True)
    outcome = JsonText(allow_null=True)


class JobInput(serializers.Serializer[object]):
    """A new job."""

    id = serializers.UUIDField(help_text="Of the caller's choice; the same call again changes nothing.")
    federator = serializers.CharField(max_length=63, help_text="The federator that shall run it.")
    spec = serializers.JSONField(help_text="For the federator to read.")
    mandate = serializers.CharField(max_length=MAX_MANDATE_CHARS, help_text="The researcher's signed mandate.")


class ProgressInput(serializers.Serializer[object]):
    """How far a job is."""

    progress = serializers.JSONField()


class ListInput(serializers.Serializer[object]):
    """Which jobs are meant."""

    state = serializers.ChoiceField(choices=JobState.choices, required=False)


class OutcomeInput(serializers.Serializer[object]):
    """What came of a job."""

    outcome = serializers.JSONField()


class JobsView(APIView):
    """The caller's jobs."""

    permission_classes = [MayLookOrSubmit]

    @extend_schema(parameters=[ListInput], responses={200: JobBrief(many=True), **ERRORS})
    def get(self, request: Request) -> Response:
        """What the caller submitted or claimed, the newest thousand."""
        wanted = ListInput(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        jobs = selectors.job_list(caller(request).id, state=wanted.validated_data.get("state"))[:_MAX_LISTED]
        return Response([JobBrief(job).data for job in jobs])

    @extend_schema(request=JobInput, responses={200: JobOutput, 201: JobOutput, **ERRORS})
    def post(self, request: Request) -> Response:
        """Submit a job; researchers only; may be repeated."""
        data = _checked(JobInput, request)
        terms = {name: data[name] for name in ("federator", "spec", "mandate")}
        job, is_new = services.job_submit(caller(request).id, data["id"], **terms)
        return Response(JobOutput(job).data, status=HTTPStatus.CREATED if is_new else HTTPStatus.OK)


class JobView(APIView):
    """One job."""

    permission_classes = [MayLook]

    @extend_schema(responses={200: JobOutput, **ERRORS})
    def get(self, request: Request, job_id: UUID) -> Response:
        """A job that the caller submitted or claimed."""
        return Response(JobOutput(selectors.job_show(caller(request).id, job_id)).data)


class CancelView(APIView):
    """The researcher's change of mind."""

    permission_classes = [MaySubmit]

    @extend_schema(request=None, responses={200: JobOutput, **ERRORS})
    def post(self, request: Request, job_id: UUID) -> Response:
        """Cancel a job that is queued or claimed."""
        return Response(JobOutput(services.job_cancel(caller(request).id, job_id)).data)


class ClaimView(APIView):
    """The federator's way to work."""

    permission_classes = [MayClaim]

    @extend_schema(
        request=None, responses={200: JobOutput, 204: OpenApiResponse(description="Nothing waits."), **ERRORS}
    )
    def post(self, request: Request) -> Response:
        """Take the oldest job that waits for the caller."""
        job = services.job_claim(caller(request).id)
        return Response(JobOutput(job).data) if job else Response(status=HTTPStatus.NO_CONTENT)


class ProgressView(APIView):
    """How a job goes."""

    permission_classes = [MayClaim]

    @extend_schema(request=ProgressInput, responses={200: JobOutput, **ERRORS})
    def post(self, request: Request, job_id: UUID) -> Response:
        """Say how far a job is that the caller claimed; 409 once the researcher cancelled it."""
        progress = _checked(ProgressInput, request)["progress"]
        return Response(JobOutput(services.job_progress(caller(request).id, job_id, progress)).data)


class FinishView(APIView):
    """A job well done."""

    permission_classes = [MayClaim]

    @extend_schema(request=OutcomeInput, responses={200: JobOutput, **ERRORS})
    def post(self, request: Request, job_id: UUID) -> Response:
        """The caller has done a job that it claimed."""
        outcome = _checked(OutcomeInput, request)["outcome"]
        return Response(JobOutput(services.job_finish(caller(request).id, job_id, outcome)).data)


class FailView(APIView):
    """A job that could not be done."""

    permission_classes = [MayClaim]

    @extend_schema(request=OutcomeInput, responses={200: JobOutput, **ERRORS})
    def post(self, request: Request, job_id: UUID) -> Response:
        """The caller could not do a job that it claimed."""
        outcome = _checked(OutcomeInput, request)["outcome"]
        return Response(JobOutput(services.job_fail(caller(request).id, job_id, outcome)).data)


def _checked(serializer: type[serializers.Serializer[object]], request: Request) -> dict[str, Any]:
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return dict(checked.validated_data)
