"""A data loading plan as a form: one line for each column of the file, filled in from what its first rows look like."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import request
from flask_babel import gettext
from flask_babel import lazy_gettext as _

from node_gui.forms import invalid, number, text

TYPE_NAMES = {
    "number": _("number"),
    "integer": _("whole number"),
    "boolean": _("yes or no"),
    "category": _("category"),
}
MISSING_NAMES = {
    "refuse": _("refuse the file"),
    "drop": _("leave the row out"),
    "mean": _("fill in the mean"),
    "median": _("fill in the median"),
}
COLUMNS_AT_MOST = 60  # a form with more is no form any more: the plan is pasted as TOML then
_LEVELS_GUESSED = 6
_YES_NO = (("yes", "no"), ("true", "false"), ("oui", "non"), ("ja", "nein"), ("y", "n"))


@dataclass(frozen=True)
class ColumnForm:
    """How one column of the file is to be read, as it stands in the form."""

    source: str
    is_used: bool
    name: str
    type: str
    missing: str = "refuse"
    unit: str = ""
    minimum: str = ""
    maximum: str = ""
    coding: str = ""
    levels: str = ""


def guess(header: Sequence[str], rows: Sequence[Sequence[str]], decimal: str) -> list[ColumnForm]:
    """What the columns seem to be. Words that are not few are left out: free text is never presented."""
    return [_guess(name, [row[n].strip() for row in rows if n < len(row)], decimal) for n, name in enumerate(header)]


def from_plan(header: Sequence[str], plan: Mapping[str, Any]) -> list[ColumnForm]:
    """A plan of before, over the columns of the file."""
    by_source = {column.get("source", name): (name, column) for name, column in plan.get("columns", {}).items()}
    return [_from_column(source, *by_source.get(source, (source, None))) for source in header]


def from_form(header: Sequence[str]) -> list[ColumnForm]:
    """What was typed."""
    return [
        ColumnForm(
            source,
            f"used-{n}" in request.form,
            **{field: text(f"{field}-{n}") for field in ColumnForm.__dataclass_fields__ if field not in _NOT_TYPED},
        )
        for n, source in enumerate(header)
    ]


_NOT_TYPED = ("source", "is_used")


def plan_of_form() -> dict[str, Any]:
    """The loading plan that the form says.

    Raises:
        FedWardError: A field cannot be used; it is named.
    """
    pasted = text("plan")
    if pasted:
        try:
            return tomllib.loads(pasted)
        except ValueError as error:
            raise invalid(
                gettext("The loading plan is not TOML: %(reason)s.", reason=str(error)),
                gettext("Mend the line named; the data manager's guide has an example."),
            ) from None
    header = request.form.getlist("source")
    plan: dict[str, Any] = {"columns": {}}
    for n, column in enumerate(from_form(header)):
        if not column.is_used:
            continue
        if column.name in plan["columns"]:
            raise invalid(
                gettext("Two columns are called '%(name)s'.", name=column.name), gettext("Give one another name.")
            )
        plan["columns"][column.name] = _column(n, column)
    if header and not plan["columns"]:
        raise invalid(gettext("No column is used."), gettext("Tick the columns that researchers may use."))
    for name in ("delimiter", "decimal", "patient_id"):
        value = request.form.get(name, "").replace("tab", "\t") if name == "delimiter" else text(name)
        if value:
            plan[name] = value
    return plan


def _column(position: int, column: ColumnForm) -> dict[str, Any]:
    found: dict[str, Any] = {"source": column.source, "type": column.type, "missing": column.missing}
    if column.unit:
        found["unit"] = column.unit
    for bound in ("minimum", "maximum"):
        value = number(f"{bound}-{position}")
        if value is not None:
            found[bound] = value
    if column.type == "category":
        found["levels"] = [level.strip() for level in column.levels.split(",") if level.strip()]
    if column.coding:
        found["coding"] = dict(_code(pair, column) for pair in column.coding.split(",") if pair.strip())
    return found


def _code(pair: str, column: ColumnForm) -> tuple[str, Any]:
    what, equals, value = (part.strip() for part in pair.rpartition("="))
    if not equals:
        raise invalid(
            gettext("'%(pair)s' in '%(name)s' says no value.", pair=pair.strip()[:40], name=column.name),
            gettext("Write what stands in the file, an equals sign, and the number: yes = 1, no = 0"),
        )
    if column.type == "category":
        return what, value
    try:
        return what, float(value)
    except ValueError:
        raise invalid(
            gettext("'%(value)s' in '%(name)s' is not a number.", value=value[:40], name=column.name),
            gettext("Write what stands in the file, an equals sign, and the number: yes = 1, no = 0"),
        ) from None


def _guess(name: str, cells: list[str], decimal: str) -> ColumnForm:
    filled = [cell for cell in cells if cell and cell.upper() not in {"NA", "NAN", "NULL"}]
    if filled and all(_is_number(cell, decimal) for cell in filled):
        whole = all(cell.lstrip("+-").isdigit() for cell in filled)
        if whole and set(filled) <= {"0", "1"}:
            return ColumnForm(name, True, name, "boolean")
        return ColumnForm(name, True, name, "integer" if whole else "number")
    words = sorted(set(filled))
    for yes, no in _YES_NO:
        if {word.lower() for word in words} == {yes, no}:
            coding = ", ".join(f"{word} = {int(word.lower() == yes)}" for word in words)
            return ColumnForm(name, True, name, "boolean", coding=coding)
    if 2 <= len(words) <= _LEVELS_GUESSED and len(words) < len(filled) and not any("," in word for word in words):
        return ColumnForm(name, True, name, "category", levels=", ".join(words))
    return ColumnForm(name, False, name, "number")


def _is_number(cell: str, decimal: str) -> bool:
    try:
        return abs(float(cell.replace(decimal, "."))) < float("inf")
    except ValueError:
        return False


def _from_column(source: str, name: str, column: Mapping[str, Any] | None) -> ColumnForm:
    if column is None:
        return ColumnForm(source, False, name, "number")
    return ColumnForm(
        source,
        True,
        name,
        column.get("type", "number"),
        str(column.get("missing", "refuse")),
        column.get("unit", ""),
        _shown(column.get("minimum")),
        _shown(column.get("maximum")),
        ", ".join(f"{what} = {_shown(value)}" for what, value in column.get("coding", {}).items()),
        ", ".join(column.get("levels", ())),
    )


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
