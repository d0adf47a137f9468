"""Small helps for messages that people read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A question with the nearest known name, led by a space; empty when nothing is near."""
    names = list(known)
    by_folded = {name.casefold(): name for name in names}
    near = get_close_matches(wrong.casefold(), by_folded, n=1)
    return f" Did you mean '{by_folded[near[0]]}'?" if near else ""


def spelt_out(text: str) -> str:
    """A stranger's text on which no sign acts: what steers a terminal, turns the writing or is no letter is spelt."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(value: object, limit: int = 40) -> str:
    """A value as Python writes it, cut to ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
