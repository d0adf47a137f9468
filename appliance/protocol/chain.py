"""A hash-chained log: each line carries the hash of the one before, so no line changes unseen.

Node and network host keep theirs with the same code. A line is a JSON text; its hash is the SHA-256 of
exactly that text, so that any changed byte shows at its own line. What the chain alone cannot show is a log cut
short, or written anew from some line on: compare the head with one noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENESIS = "0" * 64


@dataclass(frozen=True)
class Line:
    """One line and its hash, as stored side by side."""

    text: str
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found.

    Attributes:
        lines: How many lines were whole, from the first on.
        head: The hash of the last whole line.
        altered_line: The number (from 1) of the first line that is not as it was written, or None.
        reason: Why that line is refused, for people.
    """

    lines: int
    head: str
    altered_line: int | None = None
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        """True when no line was found altered."""
        return self.altered_line is None


def append(
    previous: str, number: int, *, at: float, actor: str, event: str, subject: str, details: Mapping[str, Any]
) -> Line:
    """The next line after the one whose hash is ``previous``.

    Args:
        previous: The hash of the last line, or ``GENESIS``.
        number: The line's number, from 1.
        at: Seconds since the epoch, UTC.
        actor: Member id or staff name of whoever did it.
        event: What happened, as ``noun.verb``.
        subject: What it happened to: an id.
        details: Further JSON values; never a record's content.
    """
    record = {
        "n": number,
        "at": round(at, 3),
        "actor": actor,
        "event": event,
        "subject": subject,
        "details": dict(details),
        "previous": previous,
    }
    text = json.dumps(record, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 comes as lone surrogates, which no database takes: JSON can spell them out.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return Line(text, digest(text))


def digest(text: str) -> str:
    """SHA-256 of a line's text, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def verify(lines: Iterable[Line], so_far: Verdict | None = None) -> Verdict:
    """Walk the chain and stop at the first line that is not as it was written.

    Args:
        lines: The whole log's, or those behind what was found whole before.
        so_far: What was found before; it must have been whole.
    """
    head, first = (so_far.head, so_far.lines + 1) if so_far else (GENESIS, 1)
    number = first - 1
    for number, line in enumerate(lines, first):
        reason = _fault(line, number, head)
        if reason:
            return Verdict(number - 1, head, number, reason)
        head = line.hash
    return Verdict(number, head)


def _fault(line: Line, number: int, head: str) -> str:
    if digest(line.text) != line.hash:
        return "the text does not match its hash"
    try:
        record = json.loads(line.text)
        if record["previous"] != head:
            return "it does not follow the line before"
        if record["n"] != number:
            return f"it says that it is line {record['n']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "it is not a log line"
    return ""


def export(lines: Iterable[Line]) -> Iterator[str]:
    """The log as text: a line each, its hash first."""
    for line in lines:
        yield f"{line.hash} {line.text}\n"


def read_export(rows: Iterable[str]) -> Iterator[Line]:
    """The lines of an exported log; a row cut short becomes a line that ``verify`` refuses."""
    for row in rows:
        hash_, _, text = row.removesuffix("\n").partition(" ")
        yield Line(text, hash_)


def read_file(path: Path) -> Iterator[Line]:
    """The lines of an exported log on disk, every byte as it is; raises OSError."""
    # Rows end with \n alone: were \r taken for an end as well, a changed byte there would not be seen.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        yield from read_export(file)
