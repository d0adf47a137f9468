"""Training plans: read them, compare them, and decide which may run here."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.person import same_person
from appliance.protocol.messages import PlanState
from appliance.warden.findings import Kind, find
from appliance.warden.history import PAGE, plan_standing
from node_gui.access import may
from node_gui.context import governance, history, node_status, person, say
from node_gui.formats import digits
from node_gui.forms import asked, end_of_day, invalid, number, offset, revision, text, turn
from node_gui.reports import EVERYTHING, WAIT_S, report_waiting
from node_gui.source import SHOWN_AT_MOST, compare, lines_of

blueprint = Blueprint("plans", __name__, url_prefix="/plans")

# How a state is called, and the kind of its label.
STATES = {
    PlanState.PENDING: (_("Waits for review"), "waiting"),
    PlanState.APPROVED: (_("Approved"), "good"),
    PlanState.EXPIRED: (_("Approval has ended"), "warning"),
    PlanState.REJECTED: (_("Rejected"), "danger"),
    PlanState.REVOKED: (_("Revoked"), "danger"),
}
DECISIONS = {
    "first-approved": _("gave the first approval"),
    "approved": _("approved"),
    "rejected": _("rejected"),
    "revoked": _("revoked the approval"),
}
HINTS = {
    Kind.UNREADABLE: (_("Cannot be read"), _("This is no valid Python from here on; the node would refuse to run it.")),
    Kind.IMPORT: (_("Library"), _("Loads a library that training plans seldom need.")),
    Kind.FILE: (_("Files"), _("Reads or writes files. A plan gets its data from the node and needs none.")),
    Kind.NETWORK: (_("Network"), _("Speaks to other machines. The sandbox refuses it; ask why it is there.")),
    Kind.PROCESS: (_("Processes"), _("Starts programs, processes or threads.")),
    Kind.DYNAMIC: (_("Hidden code"), _("Builds or looks up code while it runs: the text does not show what happens.")),
    Kind.HIDDEN: (_("Hidden text"), _("Signs that nobody sees, or a text too long to read. It may carry something.")),
    Kind.RECORD_LOOP: (_("One by one"), _("Goes through the records one at a time. What is kept of each?")),
    Kind.OUTPUT: (_("Prints"), _("Prints or logs. It stays in this hospital, and only staff can read it.")),
    Kind.OWN_TENSORS: (_("Own tensors"), _("Writes into the model's numbers by hand: could they carry a record?")),
}


@blueprint.get("/")
def page() -> str:
    """The queue, and all plans of before."""
    chosen = asked("state")
    states = [PlanState(chosen)] if chosen in list(STATES) else []
    found = history().plan_page(search=asked("search"), states=states, offset=offset())
    waiting = history().plan_page(states=[PlanState.PENDING], size=1).total
    return render_template("plans/page.html", plans=found, states=STATES, chosen=chosen, waiting=waiting, **turn(found))


@blueprint.get("/<sha256>")
def plan(sha256: str) -> str:
    """One plan: its text with hints, and what was decided."""
    return _plan_page(sha256)


@blueprint.get("/<sha256>/changes")
def changes(sha256: str) -> str:
    """One plan beside the version that was approved before."""
    found = history().plan(sha256)
    before = history().plan_before(found)
    rows = compare(before["source"], found["source"]) if before else None
    return render_template("plans/changes.html", plan=found, before=before, rows=rows)


@blueprint.post("/<sha256>/approve")
def approve(sha256: str) -> Response | tuple[str, int]:
    """Permit this text to run."""
    found = history().plan(sha256)
    try:
        terms: dict[str, Any] = {"note": text("note"), "shown": revision()}
        if found["first_approval"] is None:
            terms |= {"until": end_of_day("until"), "ranges": _ranges(found)}
        report_waiting(EVERYTHING, wait_s=WAIT_S)  # by its log the warden judges whether two accounts are two people
        result = governance().call("plan.approve", plan=found["sha256"], **terms)
    except FedWardError as error:
        return _again(sha256, error)
    if result["is_approved"]:
        say(gettext("%(plan)s is approved: this text may run here now.", plan=found["name"]))
    else:
        say(gettext("Your approval is noted. The plan may run once a second reviewer approves it too."), "waiting")
    return redirect(url_for("plans.plan", sha256=found["sha256"]))


@blueprint.post("/<sha256>/reject")
def reject(sha256: str) -> Response | tuple[str, int]:
    """Say no to this text."""
    return _refuse(sha256, "plan.reject", gettext("The plan is rejected; the researcher reads your note."))


@blueprint.post("/<sha256>/revoke")
def revoke(sha256: str) -> Response | tuple[str, int]:
    """Take the approval back."""
    return _refuse(sha256, "plan.revoke", gettext("The approval is revoked; nothing runs under it any more."))


def _refuse(sha256: str, method: str, done: str) -> Response | tuple[str, int]:
    found = history().plan(sha256)
    try:
        if not (note := text("note")):
            raise invalid(
                gettext("Say why: the note is empty."), gettext("One sentence is enough; the researcher reads it.")
            )
        governance().call(method, plan=found["sha256"], note=note, shown=revision())
    except FedWardError as error:
        return _again(sha256, error)
    say(done)
    return redirect(url_for("plans.plan", sha256=found["sha256"]))


def _again(sha256: str, error: FedWardError) -> tuple[str, int]:
    if error.code in (Code.NODE_NOT_RUNNING, Code.INTERNAL):
        raise error
    return _plan_page(sha256, error), 409 if error.code is Code.DECISION_STALE else 400


def _plan_page(sha256: str, error: FedWardError | None = None) -> str:
    found = history().plan(sha256)
    findings, lines = find(found["source"]), lines_of(found["source"])
    start = min(offset() // PAGE, (len(lines) - 1) // SHOWN_AT_MOST) * SHOWN_AT_MOST
    by_line: dict[int, list[Any]] = {}
    for finding in findings:
        by_line.setdefault(finding.line, []).append(finding)
    first = found["first_approval"]
    return render_template(
        "plans/plan.html",
        plan=found | {"state": plan_standing(found)},
        states=STATES,
        needs_second=_needs_second(),
        decisions=history().plan_decisions(found["name"]),
        decision_names=DECISIONS,
        before=history().plan_before(found),
        lines=lines[start : start + SHOWN_AT_MOST],
        start=start,
        line_count=len(lines),
        part_size=SHOWN_AT_MOST,
        findings=findings,
        by_line=by_line,
        hints=HINTS,
        first=first,
        first_let_in_by=history().let_in_by(first["reviewer"]) if first else {},
        is_first=first is not None and same_person(first["reviewer"], person().name),
        may_decide=may(person().role, "plans.approve"),
        asked_ranges=[_shown_range(number_, r) for number_, r in enumerate(found["asked_ranges"])],
        given_ranges=[describe(r) for r in (first or found)["ranges"]],
        error=error,
        # What was typed is lost only where it was sent and taken.
        typed=request.form if error and error.code is not Code.DECISION_STALE else {},
    )


def _needs_second() -> bool:
    """Whether two people must approve; while the warden is down nobody can anyway."""
    if node_status() is None:
        return False
    return any(rule["name"] == "second_reviewer" and rule["value"] for rule in governance().call("policy.show"))


def describe(allowed: dict[str, Any]) -> str:
    """A range as people read it."""
    if allowed.get("allowed") is not None:
        values = ", ".join(json.dumps(value, ensure_ascii=False) for value in allowed["allowed"])
        return str(gettext("%(name)s: one of %(values)s", name=allowed["name"], values=values))
    shown = {bound: digits(allowed[bound], 15) for bound in ("minimum", "maximum") if allowed.get(bound) is not None}
    low, high = shown.get("minimum"), shown.get("maximum")
    if low is None:
        return str(gettext("%(name)s: at most %(high)s", name=allowed["name"], high=high))
    if high is None:
        return str(gettext("%(name)s: at least %(low)s", name=allowed["name"], low=low))
    return str(gettext("%(name)s: %(low)s to %(high)s", name=allowed["name"], low=low, high=high))


def _shown_range(position: int, allowed: dict[str, Any]) -> dict[str, Any]:
    """A range as its form field: what was asked, and what was typed over it."""
    values = [json.dumps(value, ensure_ascii=False) for value in allowed.get("allowed") or ()]
    return {
        "name": allowed["name"],
        "asked": describe(allowed),
        "values": values,
        "chosen": request.form.getlist(f"allow-{position}") if request.form else values,
        "minimum": request.form.get(f"minimum-{position}", _plain(allowed.get("minimum"))),
        "maximum": request.form.get(f"maximum-{position}", _plain(allowed.get("maximum"))),
    }


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"  # a million as 1000000: who reads it shall not count an exponent


def _ranges(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The ranges as the reviewer set them: each that was asked for, as wide or narrower."""
    return [_narrowed(position, allowed) for position, allowed in enumerate(found["asked_ranges"])]


def _narrowed(position: int, allowed: dict[str, Any]) -> dict[str, Any]:
    values = allowed.get("allowed")
    if values is not None:
        chosen = set(request.form.getlist(f"allow-{position}"))
        values = [value for value in values if json.dumps(value, ensure_ascii=False) in chosen]
        if not values:
            raise invalid(
                gettext("'%(name)s' has no value left that it may take.", name=allowed["name"]),
                gettext("Tick at least one value, or reject the plan."),
            )
    low, high = number(f"minimum-{position}"), number(f"maximum-{position}")
    asked_low, asked_high = allowed.get("minimum"), allowed.get("maximum")
    # What stands in the form is rounded for people; untouched, it is what was asked.
    low = asked_low if low is None or _plain(low) == _plain(asked_low) else low
    high = asked_high if high is None or _plain(high) == _plain(asked_high) else high
    is_wider = (asked_low is not None and low < asked_low) or (asked_high is not None and high > asked_high)
    is_empty = low is not None and high is not None and low > high
    if is_wider or is_empty:
        raise invalid(
            gettext("The range of '%(name)s' is not within what was asked.", name=allowed["name"]),
            gettext("Asked was %(range)s. Make it narrower, or leave it.", range=describe(allowed)),
        )
    return {"name": allowed["name"], "minimum": low, "maximum": high, "allowed": values}
