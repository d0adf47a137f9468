"""Writes of presence."""

from __future__ import annotations

import datetime as dt
from typing import Any

import structlog
from django.db import DatabaseError
from django.utils import timezone

from appliance.network.database import writing
from appliance.network.presence.models import Presence

SEEN_EVERY = dt.timedelta(seconds=30)
_log = structlog.get_logger(__name__)
_seen: dict[str, dt.datetime] = {}  # of this process: a call in between costs no write


def member_seen(member: str) -> None:
    """The member called. Noted twice a minute at most, and never a reason for its call to fail."""
    now = timezone.now()
    if (last := _seen.get(member)) is not None and now - last < SEEN_EVERY:
        return
    _seen[member] = now
    try:
        with writing():
            Presence.objects.update_or_create(member=member, defaults={"seen_at": now})
    except DatabaseError as error:  # a full disk, say
        _log.warning("a member's presence could not be noted", member=member, reason=type(error).__name__)


def member_state(member: str, **said: Any) -> None:
    """How the member says it is; the fields of ``Presence``."""
    now = timezone.now()
    _seen[member] = now
    with writing():
        Presence.objects.update_or_create(member=member, defaults={**said, "seen_at": now, "stated_at": now})
