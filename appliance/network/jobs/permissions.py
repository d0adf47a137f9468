"""Who may use the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import SAFE_METHODS, BasePermission, OperandHolder
from rest_framework.request import Request

from appliance.network.members.permissions import IsFederator, IsResearcher

if TYPE_CHECKING:  # the framework's views import permissions
    from rest_framework.views import APIView


class _IsReading(BasePermission):
    """A call that changes nothing."""

    message = "Only researchers may do this."

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - the base's signature
        """Whether the method is GET, HEAD or OPTIONS."""
        return request.method in SAFE_METHODS


MaySubmit = IsResearcher
MayClaim = IsFederator
MayLook: OperandHolder = IsResearcher | IsFederator
MayLookOrSubmit: OperandHolder = MayLook & (MaySubmit | _IsReading)
