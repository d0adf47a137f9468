"""Who may use the parameter store. Whose an upload is, the selectors decide: to others it is not there."""

from __future__ import annotations

from rest_framework.permissions import OperandHolder

from appliance.network.members.permissions import IsFederator, IsNode, IsResearcher

MayTransfer: OperandHolder = IsNode | IsResearcher | IsFederator
