"""A member says how it is."""

from __future__ import annotations

import datetime as dt
from http import HTTPStatus

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance.network.errors import RequestInvalidError
from appliance.network.members.authentication import caller
from appliance.network.members.permissions import IsMember
from appliance.network.presence import services
from appliance.network.schema import ERRORS

_MAX_BYTES = (1 << 63) - 1
_MAX_MOMENT = 1 << 33  # the year 2242


class StateInput(serializers.Serializer[object]):
    """All that a member says of itself: five values, none of which a person wrote."""

    version = serializers.RegexField(r"^[0-9A-Za-z.+-]{1,32}$", help_text="Of its FedWard.")
    disk_free_bytes = serializers.IntegerField(min_value=0, max_value=_MAX_BYTES)
    disk_total_bytes = serializers.IntegerField(min_value=0, max_value=_MAX_BYTES)
    certificate_until = serializers.IntegerField(
        min_value=0, max_value=_MAX_MOMENT, help_text="When its own certificate ends, in seconds since the epoch."
    )
    running_rounds = serializers.IntegerField(min_value=0, max_value=10_000)


class StateView(APIView):
    """The caller's own state, and nobody else's."""

    permission_classes = [IsMember]

    @extend_schema(request=StateInput, responses={204: OpenApiResponse(description="Noted."), **ERRORS})
    def put(self, request: Request) -> Response:
        """Replaces what the caller said before. A field that is not known here is refused."""
        if unknown := sorted(set(request.data) - set(StateInput().fields)):
            raise RequestInvalidError(f"{unknown[0][:64]}: there is no such field.")
        data = StateInput(data=request.data)
        data.is_valid(raise_exception=True)
        until = dt.datetime.fromtimestamp(data.validated_data.pop("certificate_until"), dt.UTC)
        services.member_state(caller(request).id, certificate_until=until, **data.validated_data)
        return Response(status=HTTPStatus.NO_CONTENT)
