"""Records as files: CSV that no spreadsheet runs, and JSON lines in the node's signature."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flask import Response
from flask_babel import gettext

from appliance.protocol.errors import Code
from node_gui.context import governance, node_status
from node_gui.errors import GuiError

# At the beginning of a cell, and where a spreadsheet that splits otherwise begins one; blanks, quotes and wide signs
# do not keep every spreadsheet from running it.
_FORMULA = re.compile(r"""(^|[;\t\r\n])(?=(?:[^\S\t\r\n]|["\ufeff])*[=+@|%\uff1d\uff0b\uff0d\uff20\uff5c\uff05-])""")


def defused(value: object) -> object:
    """A cell that a spreadsheet shows and does not run; numbers stay numbers."""
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    text = _FORMULA.sub(r"\1'", text)
    return f"'{text}" if text.lstrip(" \u00a0\ufeff").startswith(("\t", "\r", "\n")) else text


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """A CSV file for download, written while it is sent: ``rows`` must not need the request any more."""

    def lines() -> Iterator[str]:
        yield "\ufeff" + _csv_line(columns)  # the mark by which spreadsheets know UTF-8
        for row in rows:
            yield _csv_line([defused(cell) for cell in row])

    return download(lines(), name, "text/csv; charset=utf-8")


def signed_file(name: str, rows: Iterable[Mapping[str, Any]]) -> Response:
    """JSON lines for download; the last one is the node's signature over all bytes before it.

    They are written while they are sent: ``rows`` must not need the request any more.

    Raises:
        FedWardError: NODE_NOT_RUNNING: only the warden can sign.
    """
    if node_status() is None:
        raise GuiError(
            gettext("Only the running node can sign an export."),
            code=Code.NODE_NOT_RUNNING,
            remedy=gettext("Start the node, or export without a signature (CSV)."),
        )

    warden = governance()

    def lines() -> Iterator[str]:
        digest, count = hashlib.sha256(), 0
        for row in rows:
            line = json.dumps(row, ensure_ascii=True, sort_keys=True) + "\n"
            digest.update(line.encode())
            count += 1
            yield line
        signed = warden.call("audit.sign", sha256=digest.hexdigest(), lines=count)
        yield json.dumps(signed) + "\n"

    return download(lines(), name, "application/jsonl")


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def download(lines: Iterator[str], name: str, kind: str) -> Response:
    """A file that is written while it is sent; signs that UTF-8 has no word for are spelt out."""
    encoded = (line.encode("utf-8", "backslashreplace") for line in lines)
    response = Response(encoded, content_type=kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
