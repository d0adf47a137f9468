"""Byte ranges (RFC 9110, section 14): one range a call, for going on with a broken download."""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.network.errors import RangeInvalidError

_RANGE = re.compile(r"^bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))$")


@dataclass(frozen=True)
class Span:
    """What to send: ``length`` bytes from ``first`` on."""

    first: int
    length: int
    is_partial: bool


def read_range(text: str | None, size: int, *, etag: str, if_range: str | None) -> Span:
    """What a call asks for of a file of ``size`` bytes.

    A range that we do not understand, or of a file that has become another one, means the whole file (sections
    13.1.5 and 14.2).

    Raises:
        RangeInvalidError: The range begins beyond the end.
    """
    match = _RANGE.match((text or "").replace(" ", ""))
    if match is None or (if_range is not None and if_range != etag):
        return Span(0, size, is_partial=False)
    first, last = _bounds(match, size)
    if first >= size or last < first:
        raise RangeInvalidError(
            f"The file has {size} bytes; the range lies beyond.", headers={"Content-Range": f"bytes */{size}"}
        )
    return Span(first, last - first + 1, is_partial=True)


def _bounds(match: re.Match[str], size: int) -> tuple[int, int]:
    start, end, suffix = match.groups()
    if suffix is not None:
        return (max(0, size - int(suffix)), size - 1) if int(suffix) else (size, size)
    return int(start), min(int(end), size - 1) if end else size - 1
