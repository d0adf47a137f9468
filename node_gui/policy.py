"""Policy: the rules in force, who set each, and the form that changes one of the site's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from appliance.protocol.errors import Code, FedWardError
from node_gui.arguments import OVERRIDES, RANGES, Change, change_of_form, mark
from node_gui.context import governance, history, say
from node_gui.errors import GuiError
from node_gui.formats import count, size, span
from node_gui.plans import describe

blueprint = Blueprint("policy", __name__, url_prefix="/policy")
_ARGUMENT_FIELDS = ("rule", "argument", "minimum", "maximum", "allowed", "value", "remove", "shown")
UNSET = ""  # the choice that takes the site's own word back


@dataclass(frozen=True)
class RuleText:
    """How a rule is shown and entered.

    Attributes:
        meaning: What the rule does, in one sentence.
        choices: Value and wording of each choice, the loosest first; empty for a number.
        unit: What a number counts.
        read: Makes a value of what was entered; raises ValueError.
        show: Words a number.
    """

    title: object
    meaning: object
    choices: tuple[tuple[Any, object], ...] = ()
    unit: object = ""
    read: Callable[[str], Any] = str
    show: Callable[[float], str] = count


TEXTS = {
    "plan_approval": RuleText(
        _("Plan approval"),
        _("Whether a researcher's code runs only after somebody of this hospital has approved it."),
        (("off", _("off: any code runs unread")), ("required", _("required: only approved code runs"))),
    ),
    "second_reviewer": RuleText(
        _("Second reviewer"),
        _("Whether an approval counts only once two people gave it, neither of whom let the other into this GUI."),
        ((False, _("no: one person decides")), (True, _("yes: two people decide"))),
    ),
    "minimum_samples": RuleText(
        _("Fewest records"),
        _("With fewer training records than this no round runs, so that no update speaks of a handful of patients."),
        unit=_("records"),
        read=int,
    ),
    "pooled_counts": RuleText(
        _("Counts for metrics of all hospitals"),
        _("Whether a test may say, beside its result, what the result over all hospitals is made of."),
        (
            ("histograms", _("sums, and how many scores lie in each range")),
            ("sums", _("sums only: how many were found, errors added up")),
            ("off", _("off: results of this hospital only")),
        ),
    ),
    "minimum_cell": RuleText(
        _("Smallest count that leaves"),
        _("A range of scores with fewer records is counted together with the next; of a class with fewer, nothing is."),
        unit=_("records"),
        read=int,
    ),
    "maximum_round_s": RuleText(
        _("Longest training"), _("A round that trains longer is stopped."), unit=_("seconds"), read=float, show=span
    ),
    "maximum_value": RuleText(
        _("Largest number in an update"),
        _("An update with a larger number does not leave."),
        read=float,
    ),
    "maximum_update_bytes": RuleText(
        _("Largest update"), _("A larger update does not leave."), unit=_("bytes"), read=int, show=size
    ),
    "models": RuleText(
        _("Finished models"),
        _("Which models that researchers send are kept for the staff, under Models."),
        (
            ("all", _("of any experiment of the consortium")),
            ("own", _("of experiments that this hospital took part in")),
            ("off", _("none")),
        ),
    ),
    "gpu": RuleText(
        _("Graphics processor"),
        _("Whether training may use this machine's GPU."),
        (("never", _("never")), ("offer", _("for who asks")), ("force", _("always"))),
    ),
    "secagg": RuleText(
        _("Secure aggregation"),
        _("Whether updates may, or must, be protected so that only the sum over hospitals opens."),
        (("off", _("off")), ("allowed", _("allowed")), ("required", _("required"))),
    ),
    "sandbox": RuleText(
        _("Sandbox"),
        _("What must confine a researcher's code at least; with less, no round runs."),
        (("partial", _("partial")), ("full", _("full")), ("isolated", _("isolated"))),
    ),
}
WHO = {"release": _("the release"), "consortium": _("the consortium"), "site": _("this hospital")}


@blueprint.get("/")
def page() -> str:
    """All rules."""
    rules = governance().call("policy.show")
    single = [rule for rule in rules if rule["name"] in TEXTS]
    others = [rule for rule in rules if rule["name"] not in TEXTS]
    return render_template("policy/page.html", rules=single, others=others, texts=TEXTS, who=WHO, worded=worded)


@blueprint.get("/arguments")
def arguments() -> str:
    """This hospital's own rules on training arguments, and the forms that change them."""
    return _arguments()


@blueprint.post("/arguments")
def change_arguments() -> str | Response | tuple[str, int]:
    """Ask once more, then change a rule on an argument."""
    try:
        own = governance().call("policy.own")
        wanted = change_of_form(own)
        _require_ours(wanted)
        if "confirmed" not in request.form:
            before, after = (_worded_argument(wanted.rule, value) for value in (wanted.before, wanted.after))
            return render_template(
                "policy/confirm_argument.html", change=wanted, before=before, after=after, fields=_ARGUMENT_FIELDS
            )
        shown = {wanted.rule: own[wanted.rule]}
        governance().call("policy.set", changes={wanted.rule: wanted.value}, shown=shown)
    except FedWardError as error:
        if error.code is Code.NODE_NOT_RUNNING:
            raise
        return _arguments(error), 409 if error.code is Code.DECISION_STALE else 400
    say(gettext("The rule on %(argument)s is changed.", argument=wanted.argument))
    return redirect(url_for("policy.arguments"))


@blueprint.get("/<name>")
def rule(name: str) -> str:
    """One rule, and the form that changes it."""
    return _form(_find(name))


@blueprint.post("/<name>")
def change(name: str) -> str | Response | tuple[str, int]:
    """Ask once more, then change the rule."""
    found, text = _find(name), TEXTS[name]
    try:
        value = _entered(text)
        _require_shown(found)
        if "confirmed" not in request.form:
            return render_template(
                "policy/confirm.html",
                rule=found,
                text=text,
                entered=request.form.get("value", ""),
                before=worded(name, found["value"]),
                after=None if value is None else worded(name, value),
                is_looser=_is_looser(name, value, found["value"]),
            )
        governance().call("policy.set", changes={name: value}, shown={name: found["value"]})
    except FedWardError as error:
        return _form(found, error), 400
    say(gettext("%(rule)s is changed.", rule=str(text.title)))
    return redirect(url_for("policy.page"))


def worded(name: str, value: Any) -> str:
    """A rule's value as people read it."""
    text = TEXTS.get(name)
    if text is None:
        return str(value)
    for choice, words in text.choices:
        if choice == value:
            return str(words)
    shown = text.show(value)
    return f"{shown} {text.unit}".strip() if text.show is count else shown


def _arguments(error: FedWardError | None = None) -> str:
    own = governance().call("policy.own")
    return render_template(
        "policy/arguments.html",
        own=own,
        marks={name: mark(own, name) for name in (RANGES, OVERRIDES)},
        describe=describe,
        known=history().argument_names(),
        typed=request.form if error else {},
        error=error,
    )


def _require_ours(wanted: Change) -> None:
    """Raise FedWardError for a value that the consortium forces: another one here would look as if it did something."""
    forced = (f"{OVERRIDES}.{wanted.argument}", "consortium")
    is_forced = any((rule["name"], rule["set_by"]) == forced for rule in governance().call("policy.show"))
    if is_forced and wanted.rule == OVERRIDES and wanted.after is not None:
        raise GuiError(
            gettext("The consortium forces the value of %(argument)s itself.", argument=wanted.argument),
            code=Code.POLICY_REFUSED,
            remedy=gettext("Another value here would change nothing. Limit the argument instead, to refuse it."),
        )


def _worded_argument(name: str, value: Any) -> str | None:
    """A rule on an argument as people read it; None where there is none."""
    if value is None:
        return None
    return (
        describe(value) if name == RANGES else gettext("always %(value)s, whatever is asked", value=json.dumps(value))
    )


def _find(name: str) -> dict[str, Any]:
    found = [rule for rule in governance().call("policy.show") if rule["name"] == name and name in TEXTS]
    if not found:
        abort(404)
    rule: dict[str, Any] = found[0]
    return rule


def _form(rule: dict[str, Any], error: FedWardError | None = None) -> str:
    return render_template(
        "policy/rule.html",
        rule=rule,
        text=TEXTS[rule["name"]],
        who=WHO,
        worded=worded,
        error=error,
        value=request.form.get("value", rule["value"]),
    )


def _entered(text: RuleText) -> Any:
    """What the form asks for; None takes the site's own word back."""
    entered = request.form.get("value", "").strip()
    if entered == UNSET:
        return None
    for choice, _words in text.choices:
        if entered == str(choice):
            return choice
    try:
        return _no_choice(entered) if text.choices else text.read(entered)
    except ValueError:
        raise GuiError(
            gettext("“%(entered)s” is no value of this rule; nothing was changed.", entered=entered[:40]),
            code=Code.ARGUMENT_INVALID,
            remedy=gettext("Choose one of the list, or enter a plain number such as 3600."),
        ) from None


def _no_choice(entered: str) -> Any:
    raise ValueError(entered)


def _require_shown(rule: dict[str, Any]) -> None:
    """Raise FedWardError when the rule is not any more as the person saw it."""
    if request.form.get("shown") != str(rule["value"]):
        raise GuiError(
            gettext("This rule is not as you saw it any more; nothing was changed."),
            code=Code.DECISION_STALE,
            remedy=gettext("Look at the rule as it is now, and decide again."),
        )


def _is_looser(name: str, value: Any, now: Any) -> bool:
    if value is None or name == "gpu":
        return False
    if name in ("minimum_samples", "minimum_cell"):
        return bool(value < now)
    if TEXTS[name].choices:
        order = [choice for choice, _words in TEXTS[name].choices]
        return order.index(value) < order.index(now)
    return bool(value > now)
