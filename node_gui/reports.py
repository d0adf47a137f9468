"""Tells the node's audit log what happened to accounts; what the warden could not hear waits for it."""

from __future__ import annotations

import threading

import structlog

from appliance.protocol.errors import Code, FedWardError
from node_gui.context import parts

_log = structlog.get_logger(__name__)
_reporting = threading.Lock()


def report_waiting() -> None:
    """Report each event once, in order; returns when the warden does not listen."""
    if not _reporting.acquire(blocking=False):
        return  # another request is at it
    try:
        for event in parts().staff.unreported():
            try:
                parts().governance(event["actor"]).call(
                    "account.record", event=event["event"], account=event["subject"], details=event["details"]
                )
            except FedWardError as error:
                if error.code is not Code.ARGUMENT_INVALID:
                    return  # the warden is down or its disk is full: it waits
                _log.error("the audit log does not take this event", account_event=event["event"], reason=error.message)
            parts().staff.reported(event["id"])
    finally:
        _reporting.release()
