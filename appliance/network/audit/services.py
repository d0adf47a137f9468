"""The one place where the audit log grows: one line for each call, and one for each thing that happens by itself."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import transaction

from appliance.network.audit.models import AuditHead, AuditLine
from appliance.network.database import writing
from appliance.protocol import chain


@dataclass
class Call:
    """The call that this thread answers.

    Attributes:
        details: Goes into whatever line the call leaves.
        is_noted: Whether a line of it was committed.
    """

    details: dict[str, Any] = field(default_factory=dict)
    is_noted: bool = False


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)


@writing()
def line_append(actor: str, event: str, subject: str, **details: Any) -> None:
    """Append a line, in the caller's transaction if there is one, and as its last write.

    The head's row is locked until that transaction ends: no two lines ever follow the same one, and a caller that
    writes nothing afterwards can dead-lock with nobody.

    Args:
        actor: A member id, or ``anonymous``, ``operator`` (at the command line), ``network`` (by itself).
        event: ``noun.verb``.
        subject: The id of what it happened to, or empty.
        details: JSON values; never a token or a body.
    """
    call = current_call.get()
    if call is not None:
        details = {**call.details, **details}
        transaction.on_commit(partial(setattr, call, "is_noted", True))
    head = AuditHead.objects.select_for_update().get(id=1)
    number = head.n + 1
    line = chain.append(head.hash, number, at=time.time(), actor=actor, event=event, subject=subject, details=details)
    AuditLine.objects.bulk_create([AuditLine(n=number, text=line.text, hash=line.hash)])
    AuditHead.objects.filter(id=1).update(n=number, hash=line.hash)
