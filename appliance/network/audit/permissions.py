"""Who may look at the audit log."""

from __future__ import annotations

from appliance.network.members.permissions import IsMember, IsOperator

MaySeeHead = IsMember  # every member may note the head, and so witness the log
MaySeeLines = IsOperator
