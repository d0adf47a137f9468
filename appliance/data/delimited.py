"""CSV and TSV files as a stream of rows, each as wide as the header; memory holds one block at a time."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from appliance.data.errors import DatasetInvalidError
from appliance.data.loading_plan import LoadingPlan

if TYPE_CHECKING:
    import _csv

Report = Callable[[DatasetInvalidError], None]

MIB = 1 << 20
_BLOCK_ROWS = 2_000  # small enough to stay in the processor's cache
_DELIMITERS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NOT_TEXT = {
    b"PK\x03\x04": "a spreadsheet or ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"\x1f\x8b": "a compressed file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
}
_EXPORT = "Export the table as CSV text, unpacked, and add that file."


@dataclass(frozen=True)
class ReadLimits:
    """How much of a file is taken at most; what is above is refused before it fills the memory.

    Attributes:
        max_bytes: The file's size.
        max_rows: Rows below the header.
        max_columns: Columns in the header.
        max_line: Characters in a line, and in a quoted cell over several lines.
    """

    max_bytes: int = 4 * 1024 * MIB
    max_rows: int = 10_000_000
    max_columns: int = 100_000
    max_line: int = 8 * MIB


@dataclass
class Block:
    """Consecutive rows, and the line of the file where each begins."""

    lines: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def column(self, position: int) -> list[str]:
        """The cells at one position of the header."""
        return [row[position] for row in self.rows]


class DelimitedFile:
    """An open table: its header, then its rows.

    Args:
        path: The file.
        plan: Says delimiter and encoding.
        limits: How much is taken at most.
        report: Takes what is wrong with a single row, which is then left out; may raise.
    """

    def __init__(self, path: Path, plan: LoadingPlan, limits: ReadLimits, report: Report) -> None:
        self._path = path
        self._plan = plan
        self._limits = limits
        self._report = report

    @contextmanager
    def opened(self) -> Iterator[tuple[tuple[str, ...], Iterator[Block]]]:
        """The header and the blocks of rows, while the file is open.

        Raises:
            DatasetInvalidError: The file cannot be read as a table at all.
        """
        self._check_file()
        # "utf-8-sig" reads UTF-8 with and without a byte order mark.
        encoding = "utf-8-sig" if self._plan.encoding == "utf-8" else self._plan.encoding
        try:
            with self._path.open(encoding=encoding, newline="") as stream:
                lines = self._lines(stream)
                first, number = next(((line, n) for n, line in enumerate(lines, start=1) if line.strip()), ("", 0))
                if not first:
                    raise self._wrong("the file is empty", remedy="Add a file with a header and one row a patient.")
                reader = csv.reader(chain([first], lines), delimiter=self._plan.delimiter or _sniff(first), strict=True)
                rows = self._rows(reader, number)
                header = self._header(*next(rows))
                yield header, self._blocks(rows, len(header))
        except UnicodeDecodeError:
            raise self._undecodable(encoding) from None
        except OSError as error:
            raise self._wrong(f"the file cannot be read ({error.strerror})") from None

    def _check_file(self) -> None:
        try:
            if not self._path.exists():
                raise self._wrong("there is no such file", remedy="Check the path, as the node's service user sees it.")
            if not self._path.is_file():
                raise self._wrong("this is a folder or a device", remedy="Name the CSV file itself.")
            size = self._path.stat().st_size
            with self._path.open("rb") as stream:
                start = stream.read(8)
        except PermissionError:
            remedy = "Give the node's service user the right to read the file and to enter its folders."
            raise self._wrong("the node may not read this file", remedy=remedy) from None
        except OSError as error:
            raise self._wrong(f"the file cannot be read ({error.strerror})") from None
        if size > self._limits.max_bytes:
            found, allowed = size / MIB, self._limits.max_bytes / MIB
            raise self._wrong(
                f"the file has {found:,.0f} MiB; allowed are {allowed:,.0f} MiB",
                remedy="Split the table, leave out columns, or raise the limit.",
            )
        self._check_start(start)

    def _check_start(self, start: bytes) -> None:
        for magic, kind in _NOT_TEXT.items():
            if start.startswith(magic):
                raise self._wrong(f"this is {kind}, not a text table", remedy=_EXPORT)
        mark = _BYTE_ORDER_MARKS.get(start[:2])
        if mark and not self._plan.encoding.startswith(mark):
            remedy = f'Set encoding = "{mark}" in the loading plan, or export the table as UTF-8.'
            raise self._wrong(f"the file is {mark}; the loading plan says {self._plan.encoding}", remedy=remedy)

    def _lines(self, stream: TextIO) -> Iterator[str]:
        limit = self._limits.max_line
        for number, line in enumerate(iter(lambda: stream.readline(limit + 1), ""), start=1):
            if len(line) > limit:
                raise self._wrong(f"the line is longer than {limit:,} characters", row=number, remedy=_EXPORT)
            if "\0" in line:
                raise self._wrong("there is a NUL byte, so this is no text table", row=number, remedy=_EXPORT)
            yield line

    def _header(self, line: int, cells: list[str]) -> tuple[str, ...]:
        names = tuple(cell.strip() for cell in cells)
        if len(names) > self._limits.max_columns:
            raise self._wrong(f"there are {len(names):,} columns; allowed are {self._limits.max_columns:,}", row=line)
        twice = [name for name, count in Counter(names).items() if count > 1 and name]
        if twice:
            remedy = "Give each column its own name in the header."
            raise self._wrong("the header names this column more than once", row=line, column=twice[0], remedy=remedy)
        return names

    def _blocks(self, rows: Iterator[tuple[int, list[str]]], width: int) -> Iterator[Block]:
        block, total = Block(), 0
        for line, row in rows:
            if len(row) != width:
                self._report(self._ragged(line, len(row), width))
                continue
            block.lines.append(line)
            block.rows.append(row)
            total += 1
            if total > self._limits.max_rows:
                remedy = "Split the table, or raise the limit."
                raise self._wrong(f"there are more than {self._limits.max_rows:,} rows", row=line, remedy=remedy)
            if len(block.rows) == _BLOCK_ROWS:
                yield block
                block = Block()
        if block.rows:
            yield block

    def _rows(self, reader: _csv.Reader, first: int) -> Iterator[tuple[int, list[str]]]:
        """Rows with the line where each begins; empty lines are passed over."""
        while True:
            # The reader counts the lines that it was given, the first of which is the header's.
            begin = first + reader.line_num
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                remedy = "Look for a quotation mark that is opened here and never closed."
                raise self._wrong("the row cannot be split into cells", row=begin, remedy=remedy) from None
            if row:
                yield begin, row

    def _ragged(self, line: int, found: int, expected: int) -> DatasetInvalidError:
        remedy = "Put cells that contain the delimiter into quotation marks, or complete the row."
        return self._wrong(f"the row has {found} cells; the header has {expected}", row=line, remedy=remedy)

    def _undecodable(self, encoding: str) -> DatasetInvalidError:
        """The first line that is not in the encoding; decoding ran ahead of the rows, so it is sought anew."""
        remedy = 'Set encoding in the loading plan; from Windows programs it is often "windows-1252".'
        row = None
        if not encoding.startswith(("utf-16", "utf-32")):
            with self._path.open("rb") as stream:
                row = next((n for n, line in enumerate(stream, start=1) if not _decodes(line, encoding)), None)
        return self._wrong(f"the text is not {self._plan.encoding}", row=row, remedy=remedy)

    def _wrong(
        self, what: str, *, row: int | None = None, column: str | None = None, remedy: str | None = None
    ) -> DatasetInvalidError:
        return DatasetInvalidError(what, file=self._path.name, row=row, column=column, remedy=remedy)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _sniff(header: str) -> str:
    """The delimiter that cuts the header into most cells; the comma when none does."""
    return max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark))))
