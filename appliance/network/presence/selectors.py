"""Reads of presence."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from appliance.network.members.selectors import register_current
from appliance.network.presence.models import Presence
from appliance.protocol.register import Member

_SAID = (
    "seen_at", "stated_at", "version", "disk_free_bytes", "disk_total_bytes", "certificate_until", "running_rounds",
)  # fmt: skip


def member_presences() -> list[tuple[Member, Presence | None]]:
    """Every member of the register, active or not, and when it was last heard; raises RegisterMissingError."""
    known = {each.member: each for each in Presence.objects.all()}
    return [(member, known.get(member.id)) for member in sorted(register_current().members, key=lambda m: m.id)]


def status_show() -> dict[str, Any]:
    """What the operator's ``fedward status`` shows, as JSON takes it; times in seconds since the epoch."""
    register = register_current()
    return {
        "consortium": register.consortium,
        "register": register.version,
        "at": time.time(),
        "members": [_row(member, presence) for member, presence in member_presences()],
    }


def _row(member: Member, presence: Presence | None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": member.id, "role": member.role, "state": member.state}
    for name in _SAID:
        value = getattr(presence, name, None)
        row[name] = value.timestamp() if isinstance(value, dt.datetime) else value
    return row
