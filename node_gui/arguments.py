"""This hospital's own rules on training arguments, as forms: values that one may take, and values that are forced."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask_babel import gettext

from appliance.protocol.errors import Code
from node_gui.errors import GuiError
from node_gui.forms import invalid, number, text

RANGES, OVERRIDES = "ranges", "overrides"


@dataclass(frozen=True)
class Change:
    """What a form asks for.

    Attributes:
        rule: ``ranges`` or ``overrides``.
        argument: Which argument it is about, dotted.
        value: All of the site's own of that rule afterwards.
        before: The argument's own rule of now, and after; None where there is none.
        is_looser: Whether the node becomes less strict by it.
    """

    rule: str
    argument: str
    value: Any
    before: Any
    after: Any
    is_looser: bool


def mark(own: Mapping[str, Any], rule: str) -> str:
    """What tells the site's own of a rule from what it was."""
    return hashlib.sha256(json.dumps(own[rule], sort_keys=True).encode()).hexdigest()


def change_of_form(own: Mapping[str, Any]) -> Change:
    """The change that was entered.

    Args:
        own: What the site has set (``policy.own``).

    Raises:
        FedWardError: A field is empty or no value, or the rule is not as it was shown any more.
    """
    rule, argument = text("rule"), text("argument")
    if rule not in {RANGES, OVERRIDES} or not argument:
        raise invalid(
            gettext("No argument is named; nothing was changed."),
            gettext("Name it as researchers do, with dots: optimizer_args.lr."),
        )
    if text("shown") != mark(own, rule):
        raise GuiError(
            gettext("This rule is not as you saw it any more; nothing was changed."),
            code=Code.DECISION_STALE,
            remedy=gettext("Look at the rule as it is now, and decide again."),
        )
    if rule == RANGES:
        mine = [one for one in own[RANGES] if one["name"] == argument]  # by the command line there may be several
        before = mine[0] if mine else None
        after = None if text("remove") else _range(argument)
        others = [one for one in own[RANGES] if one["name"] != argument]
        is_looser = not all(after is not None and _is_within(after, one) for one in mine)
        return Change(rule, argument, others + ([] if after is None else [after]), before, after, is_looser)
    before = own[OVERRIDES].get(argument)
    after = None if text("remove") else _value(text("value"))
    forced = {name: value for name, value in own[OVERRIDES].items() if name != argument}
    return Change(rule, argument, forced | ({} if after is None else {argument: after}), before, after, after is None)


def _range(argument: str) -> dict[str, Any]:
    low, high = number("minimum"), number("maximum")
    allowed = [_value(word) for word in text("allowed").split(",") if word.strip()] or None
    if low is None and high is None and allowed is None:
        raise invalid(
            gettext("The range of “%(argument)s” has neither ends nor values.", argument=argument),
            gettext("Enter a smallest or a largest value, or the values that it may take."),
        )
    if low is not None and high is not None and low > high:
        raise invalid(
            gettext("The smallest value of “%(argument)s” is above the largest.", argument=argument),
            gettext("Enter the smaller one first."),
        )
    return {"name": argument, "minimum": low, "maximum": high, "allowed": allowed}


def _value(entered: str) -> Any:
    """A number, yes or no (``true``, ``false``), or a word."""
    entered = entered.strip()
    if not entered:
        raise invalid(
            gettext("The value is empty; nothing was changed."), gettext("Enter a number, true, false, or a word.")
        )
    try:
        found = json.loads(entered, parse_constant=str)
    except ValueError:
        return entered
    if isinstance(found, float) and not math.isfinite(found):  # 1e999
        return entered
    return found if isinstance(found, int | float | str) else entered


def _is_within(narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> bool:
    """Whether every value of the one range is one of the other."""
    for end, is_inside in (("minimum", float.__ge__), ("maximum", float.__le__)):
        if wide[end] is not None and (narrow[end] is None or not is_inside(float(narrow[end]), float(wide[end]))):
            return False
    if wide["allowed"] is None:
        return True
    return narrow["allowed"] is not None and all(value in wide["allowed"] for value in narrow["allowed"])
