"""What left this hospital: every update and every answer, with totals for each study, and as a file."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, render_template, request
from flask_babel import lazy_gettext as _

from appliance.warden.history import UPDATES, EgressFilter, egress_text
from node_gui.context import governance, history
from node_gui.forms import asked, day_of, offset, turn

blueprint = Blueprint("egress", __name__, url_prefix="/what-left")

KINDS = {
    "upload": _("Update, as a file"),
    "enclosed": _("Update, inside its answer"),
    "train-reply": _("Answer of a round"),
    "scalar": _("Progress of a round"),
    "error": _("Error"),
    "datasets": _("Answer to a search"),
    "plan-standing": _("Where a plan stands"),
    "pong": _("Sign of life"),
    "stopped": _("Stop confirmed"),
}
_COLUMNS = ("at", "recipient", "kind", "experiment_id", "round", "tensors", "norm", "size_bytes", "protected", "sha256")
_TOTALS_SHOWN = 20


@blueprint.get("/")
def page() -> str:
    """What left, with filters and totals."""
    wanted = _wanted()
    found = history().egress_page(wanted, offset=offset())
    totals = history().egress_totals(wanted)
    return render_template(
        "egress/page.html",
        lines=found,
        kinds=KINDS,
        updates=UPDATES,
        recipients=history().egress_recipients(),
        totals=totals[:_TOTALS_SHOWN],
        totals_left_out=max(0, len(totals) - _TOTALS_SHOWN),
        sum_updates=sum(row["updates"] for row in totals),
        sum_bytes=sum(row["size_bytes"] for row in totals),
        filters={name: value for name, value in request.args.items() if name != "page" and value},
        **turn(found),
    )


@blueprint.get("/what-left.csv")
def csv() -> Response:
    """The same lines as a table for a spreadsheet."""

    def rows(wanted: EgressFilter) -> Iterator[str]:
        yield _row(_COLUMNS)
        for line in _lines(wanted):
            yield _row([line[name] for name in _COLUMNS])

    return _file("".join(rows(_wanted())), "text/csv", "csv")


@blueprint.get("/what-left.json")
def json() -> Response:
    """The same lines, signed by the node: whoever has the register can check that they are this hospital's."""
    wanted = _wanted()
    names = ("experiment_id", "recipient", "since", "until", "updates_only")
    signed = governance().call("egress.export", **{name: getattr(wanted, name) for name in names})
    lines = ",\n".join(map(egress_text, history().egress_lines(replace(wanted, up_to=signed["up_to"]))))
    statement = json_format.dumps(signed["statement"])
    return _file(f'{{"statement": {statement},\n"lines": [\n{lines}\n]}}\n', "application/json", "json")


def _wanted() -> EgressFilter:
    until = day_of(asked("until"))
    since = day_of(asked("since"))
    return EgressFilter(
        experiment_id=asked("experiment") or None,
        recipient=asked("recipient") or None,
        since=since.timestamp() if since else None,
        until=(until + timedelta(days=1)).timestamp() if until else None,
        updates_only=asked("what") != "all",
    )


def _lines(wanted: EgressFilter) -> Iterator[dict[str, Any]]:
    for line in history().egress_lines(wanted):
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(line["at"]))
        yield line | {"at": moment, "protected": "no" if line["kind"] in UPDATES else ""}


def _row(cells: Any) -> str:
    out = io.StringIO()
    csv_format.writer(out).writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    is_formula = isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
    return f"'{cell}" if is_formula else cell


def _file(text: str, kind: str, ending: str) -> Response:
    name = f"what-left-{time.strftime('%Y-%m-%d')}.{ending}"
    return Response(text, mimetype=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
