"""Tells the node's audit log what happened to accounts; what the warden could not hear waits for it."""

from __future__ import annotations

import threading
from typing import Any

import structlog

from appliance.protocol.errors import Code, FedWardError
from node_gui.context import parts
from node_gui.staff import GUI_NAME, NAME_MOST

_log = structlog.get_logger(__name__)
TOLD_AT_ONCE = 20  # after the node was down many wait, and a page shall not wait for all of them
EVERYTHING = 10_000
WAIT_S = 10.0
_reporting = threading.Lock()


def report_waiting(at_most: int = TOLD_AT_ONCE, *, wait_s: float = 0.0) -> None:
    """Report some events, each once and in order; returns when the warden does not listen.

    Nothing is held while it is asked: neither its store's lock nor that of the list of accounts.

    Args:
        at_most: How many.
        wait_s: How long another request that is at it is waited for.
    """
    if not _reporting.acquire(timeout=wait_s):
        return
    try:
        for event in parts().staff.unreported(at_most):
            try:
                _report(event)
            except FedWardError as error:
                if error.code is not Code.ARGUMENT_INVALID:
                    return  # the warden is down or its disk is full: it waits
                _log.error("the audit log does not take this event", account_event=event["event"], reason=error.message)
                parts().staff.refused(event["id"])
            else:
                parts().staff.reported(event["id"])
    finally:
        _reporting.release()


def _report(event: dict[str, Any]) -> None:
    told = {name: event[name] for name in ("event", "details")}
    told |= {"account": event["subject"], "happened_at": event["at"]}
    try:
        parts().governance(event["actor"]).call("account.record", **told)
    except FedWardError as error:
        if error.code is not Code.ARGUMENT_INVALID:
            raise
        # Refused for its names: in the GUI's own, with theirs spelt out.
        told["account"] = _plain(event["subject"])[:NAME_MOST]
        told["details"] = event["details"] | {"by": _plain(event["actor"])}
        parts().governance(GUI_NAME).call("account.record", **told)


def _plain(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()
