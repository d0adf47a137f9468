"""What left this hospital: every update and every answer, with totals for each study, and as a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, render_template, request
from flask_babel import lazy_gettext as _

from appliance.warden.history import SUMMED_AT_MOST, UPDATES, EgressFilter, History, egress_text
from node_gui.context import governance, history
from node_gui.exports import csv_file, signed_file
from node_gui.formats import iso
from node_gui.forms import asked, before, period, turn

blueprint = Blueprint("egress", __name__, url_prefix="/what-left")

KINDS = {
    "upload": _("Update, as a file"),
    "enclosed": _("Update, inside its answer"),
    "train-reply": _("Answer of a round"),
    "scalar": _("Progress of a round"),
    "error": _("Error"),
    "datasets": _("Answer to a search"),
    "plan-standing": _("Where a plan stands"),
    "model-kept": _("Model received"),
    "pong": _("Sign of life"),
    "stopped": _("Stop confirmed"),
}
COLUMNS = (
    "at (UTC)",
    "recipient",
    "kind",
    "experiment",
    "round",
    "tensors",
    "norm (L2)",
    "numbers (tests)",
    "size (bytes)",
    "protected",
    "sha256",
)


@blueprint.get("/")
def page() -> str:
    """What left, with filters and totals."""
    wanted = _wanted()
    found = history().egress_page(wanted, before=before())
    totals = history().egress_totals(wanted)
    shown = {row["experiment_id"] for row in (*found.rows, *totals.studies)} - {None}
    return render_template(
        "egress/page.html",
        lines=found,
        kinds=KINDS,
        updates=UPDATES,
        recipients=history().egress_recipients(),
        totals=totals,
        most_summed=SUMMED_AT_MOST,
        names=history().experiment_names(shown),
        filters={name: value for name, value in request.args.items() if name in _FILTERS and value},
        **turn(found),
    )


_FILTERS = ("experiment", "recipient", "since", "until", "what")


@blueprint.get("/what-left.csv")
def export_csv() -> Response:
    """The same lines for a spreadsheet."""
    return csv_file(f"{_file_name()}.csv", COLUMNS, _rows(history(), _wanted()))


@blueprint.get("/what-left.jsonl")
def export_signed() -> Response:
    """The same lines, the last one in the node's signature: it states how many there are, and their hash."""
    book, wanted = history(), _wanted()
    names = ("experiment_id", "recipient", "since", "until", "updates_only")
    signed = governance().call("egress.export", **{name: getattr(wanted, name) for name in names})

    lines = map(egress_text, book.egress_lines(replace(wanted, up_to=signed["up_to"])))
    return signed_file(f"{_file_name()}.jsonl", lines, signed["signature"])


def _wanted() -> EgressFilter:
    since, until = period()
    return EgressFilter(
        experiment_id=asked("experiment")[:64] or None,
        recipient=asked("recipient")[:64] or None,
        since=since,
        until=until,
        updates_only=asked("what") != "all",
    )


def _rows(book: History, wanted: EgressFilter) -> Iterator[list[Any]]:
    names = ("recipient", "kind", "experiment_id", "round", "tensors", "norm", "numbers", "size_bytes")
    for line in book.egress_lines(wanted):
        is_protected = "no" if line["kind"] in UPDATES else ""
        yield [iso(line["at"]), *(line[name] for name in names), is_protected, line["sha256"]]


def _file_name() -> str:
    return f"what-left-{time.strftime('%Y-%m-%d')}"
