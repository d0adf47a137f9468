"""Who may: joined with ``&`` and ``|`` where a view says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from appliance.protocol.register import Member, Role

if TYPE_CHECKING:  # the framework's views import these permissions
    from rest_framework.views import APIView


class IsMember(BasePermission):
    """Any active member."""

    message = "Only members may do this."
    roles = frozenset(Role)

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - the base's signature
        """Whether the caller's role is among ours."""
        return isinstance(request.user, Member) and request.user.role in self.roles


class IsNode(IsMember):
    """A hospital's node."""

    message = "Only nodes may do this."
    roles = frozenset({Role.NODE})


class IsResearcher(IsMember):
    """A researcher."""

    message = "Only researchers may do this."
    roles = frozenset({Role.RESEARCHER})


class IsFederator(IsMember):
    """A federator."""

    message = "Only federators may do this."
    roles = frozenset({Role.FEDERATOR})


class IsOperator(IsMember):
    """The consortium's operator."""

    message = "Only the operator may do this."
    roles = frozenset({Role.OPERATOR})
