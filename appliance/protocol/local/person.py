"""Who counts as the same person, by name: for the node's accounts, and wherever two people must decide."""

from __future__ import annotations

import unicodedata


def same_person(name: str, other: str) -> bool:
    """Whether two names are one person's, however they are written: in width, case and blanks."""
    return person_key(name) == person_key(other)


def person_key(name: str) -> str:
    """What all writings of a person's name have in common."""
    # Folding may undo the normal form, so that comes before and after it (Unicode's NFKC_Casefold, in short).
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())
