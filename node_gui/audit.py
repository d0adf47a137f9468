"""Audit log: what happened at this node, searched, verified and exported."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, render_template, request
from flask_babel import lazy_gettext as _

from appliance.protocol import chain
from appliance.protocol.errors import FedWardError
from appliance.warden.history import AuditFilter, History
from node_gui.context import governance, history, parts
from node_gui.exports import csv_file, signed_file
from node_gui.formats import iso
from node_gui.forms import LARGEST_NUMBER, asked, before, period

blueprint = Blueprint("audit", __name__, url_prefix="/audit")
VERIFIED_AT_ONCE = 5000  # lines
COLUMNS = ("line", "at (UTC)", "who", "what", "about", "details")

EVENTS = {
    "account.created": _("made the account"),
    "account.disabled": _("locked the account"),
    "account.enabled": _("unlocked the account"),
    "account.invited": _("made a one-time link"),
    "account.locked": _("was told to wait after wrong passwords"),
    "account.password-changed": _("changed the password"),
    "account.recovery-code-used": _("used a recovery code"),
    "account.refused": _("was refused at the sign-in"),
    "account.removed": _("removed the account"),
    "account.roles-changed": _("changed the role"),
    "account.second-factor-removed": _("removed the second factor"),
    "account.second-factor-set": _("set up a second factor"),
    "account.signed-in": _("signed in"),
    "account.signed-out": _("signed out"),
    "audit.exported": _("exported the audit log, signed"),
    "dataset.added": _("added the dataset"),
    "data.preview": _("looked at the first rows of the file"),
    "data.profile": _("looked at what the file holds"),
    "dataset.accepted": _("accepted the dataset's changed files"),
    "dataset.active": _("opened the dataset again"),
    "dataset.changed": _("found the dataset's files changed"),
    "dataset.checked": _("checked the dataset's files"),
    "dataset.described": _("changed what is told of the dataset"),
    "dataset.renewed": _("put a new version into the dataset's place"),
    "dataset.suspended": _("suspended the dataset"),
    "notices.changed": _("changed the notices"),
    "message.refused": _("was refused a message"),
    "message.refused-many": _("was refused many messages"),
    "permission.ended": _("ended the permission of %(researcher)s on the dataset"),
    "permission.granted": _("permitted %(researcher)s on the dataset"),
    "plan.first-approved": _("approved the plan as the first of two"),
    "plan.refused": _("was refused the plan"),
    "round.accepted": _("was accepted with a round of the experiment"),
    "round.failed": _("failed in a round of the experiment"),
    "round.refused": _("was refused a round of the experiment"),
    "round.replied": _("answered a round of the experiment"),
    "round.stopped": _("stopped a round of the experiment"),
    "dataset.removed": _("removed the dataset"),
    "experiment.paused": _("paused the experiment"),
    "experiment.resumed": _("resumed the experiment"),
    "egress.exported": _("exported what left, signed"),
    "experiment.stop": _("stopped the experiment"),
    "experiment.stopped": _("had ended all of the experiment"),
    "model.accepted": _("was accepted with the model %(name)s"),
    "model.deleted": _("deleted the model %(name)s"),
    "model.downloaded": _("downloaded the model %(name)s"),
    "model.kept": _("fetched and checked the model %(name)s"),
    "model.refused": _("was refused a model"),
    "node.started": _("was started"),
    "node.stopped": _("was stopped"),
    "plan.approved": _("approved the plan"),
    "plan.rejected": _("rejected the plan"),
    "plan.requested": _("asked for approval of the plan"),
    "plan.revoked": _("took the plan's approval back"),
    "policy.changed": _("changed the policy"),
    "register.changed": _("issued a new membership register"),
    "stop.refused": _("was refused a stop of the experiment"),
}


@blueprint.get("/")
def page() -> str:
    """The newest lines, or what a search finds."""
    wanted, error = {}, None
    try:
        wanted = _wanted()
        found = history().audit_page(**wanted, before=before())
    except FedWardError as fault:
        found, error = None, fault
    kept = {name: request.args[name] for name in ("search", "subject", "since", "until") if request.args.get(name)}
    return render_template(
        "audit/page.html",
        found=found,
        kept=kept,
        error=error,
        events=EVENTS,
        readable=readable,
        sentence=sentence,
        who=_who,
    )


@blueprint.post("/verify")
def verify() -> str:
    """Walk the chain of hashes, so many lines at once: the answer says how far it came, and asks for what follows.

    Where it stands is in the form alone: whoever leaves the page ends it, and nobody else waits.
    """
    lines = min(max(request.form.get("lines", 0, type=int), 0), LARGEST_NUMBER)
    verdict = history().verify_audit(
        chain.Verdict(lines, request.form.get("head", chain.GENESIS)), most=VERIFIED_AT_ONCE
    )
    template = "audit/verdict.html" if "HX-Request" in request.headers else "audit/verify.html"
    is_done = not verdict.is_whole or verdict.lines < lines + VERIFIED_AT_ONCE
    return render_template(template, verdict=verdict, is_done=is_done, length=history().audit_length())


@blueprint.get("/export.csv")
def export_csv() -> Response:
    """The lines of a period for a spreadsheet."""
    rows = (
        (line["n"], iso(line["at"]), line["actor"], line["event"], line["subject"], json.dumps(line["details"]))
        if not line["is_altered"]
        else (line["n"], "", "", "ALTERED", "", line["text"])
        for line in _lines(history(), _wanted())
    )
    return csv_file(f"audit-{parts().home.name}.csv", COLUMNS, rows)


@blueprint.get("/export.jsonl")
def export_signed() -> Response:
    """The lines of a period in the node's signature: the warden says which they are, and how many."""
    book, wanted = history(), _wanted()
    signed = governance().call("audit.export", **wanted)
    lines = book.audit_texts(AuditFilter(**wanted, up_to=signed["up_to"]))
    return signed_file(f"audit-{parts().home.name}.jsonl", lines, signed["signature"])


def sentence(line: dict[str, Any]) -> str:
    """What the actor of a line did, in the reader's words."""
    said = EVENTS.get(line["event"])
    if said is None:
        return str(line["event"].replace(".", ": ").replace("-", " "))
    return str(said) % defaultdict(str, line["details"])


def readable(value: Any) -> str:
    """A detail of a line as people read it: what is nested is spelt out, what is not set left away."""
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {readable(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, list):
        return ", ".join(f"({readable(one)})" if isinstance(one, dict) else readable(one) for one in value)
    return str(value)


def _lines(book: History, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All lines that are wanted, the newest first, a page at a time."""
    older: int | None = None
    while True:
        found = book.audit_page(**wanted, before=older, size=1000)
        yield from found.lines
        if found.older is None:
            return
        older = found.older


def _wanted() -> dict[str, Any]:
    since, until = period()
    return {"search": asked("search"), "subject": asked("subject") or None, "since": since, "until": until}


def _who(actor: str) -> str:
    """An actor as people call it."""
    return actor.removeprefix("staff:")
