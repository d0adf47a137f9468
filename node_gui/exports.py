"""Records as files: CSV that no spreadsheet runs, JSON lines in the node's signature, and archives of files."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Response

# At the beginning of a cell, and where a spreadsheet that splits otherwise begins one; blanks, quotes and wide signs
# do not keep every spreadsheet from running it.
_FORMULA = re.compile(r"""(^|[;\t\r\n])(?=(?:[^\S\t\r\n]|["\ufeff])*[=+@|%\uff1d\uff0b\uff0d\uff20\uff5c\uff05-])""")

_PIECE_BYTES = 1 << 20


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

    return _text_download(lines(), name, "text/csv; charset=utf-8")


def signed_file(name: str, lines: Iterable[str], signature: str) -> Response:
    """Lines of JSON for download; behind them the node's signature, which states their number and their hash.

    They are read while they are sent: ``lines`` must not need the request any more.
    """

    def all_lines() -> Iterator[str]:
        yield from (f"{line}\n" for line in lines)
        yield json.dumps({"signature": signature}) + "\n"

    return _text_download(all_lines(), name, "application/jsonl")


def zip_file(name: str, files: Mapping[str, Path]) -> Response:
    """Files as one archive for download, written while it is sent, by names of ours in a folder of its own."""
    return _download(_zipped(name.removesuffix(".zip"), files), name, "application/zip")


def _zipped(folder: str, files: Mapping[str, Path]) -> Iterator[bytes]:
    with zipfile.ZipFile(sink := _Sink(), "w") as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo.from_file(path, f"{folder}/{name}")
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while piece := source.read(_PIECE_BYTES):
                    target.write(piece)
                    yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """What was written since it was last asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def taken(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _text_download(lines: Iterator[str], name: str, kind: str) -> Response:
    """Signs that UTF-8 has no word for are spelt out."""
    return _download((line.encode("utf-8", "backslashreplace") for line in lines), name, kind)


def _download(pieces: Iterator[bytes], name: str, kind: str) -> Response:
    """A file that is written while it is sent."""
    response = Response(pieces, content_type=kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
