"""What staff may be told: occasions. Beside a name nothing that a stranger wrote is in one, and never data."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from appliance.protocol.wording import spelt_out
from node_gui.notices.settings import Kind

NAME_MOST = 80
# What mail programs make links of.
_LINK = re.compile("//|@|[.\u3002\uff0e\uff61](?=[^\\W\\d_])")


@dataclass(frozen=True)
class Occasion:
    """Something that staff are told.

    Attributes:
        source: Where it was found.
        subject: Names it there; the same as long as it is the same occasion.
        text: One sentence.
        path: The page where it is dealt with.
        after_s: It is told only if it lasts so long.
    """

    source: str
    kind: Kind
    subject: str
    text: str
    path: str
    after_s: float = 0.0

    def name(self, seen_at: float) -> str:
        """Tells occasions apart outside this machine, without saying more; one that comes back has another."""
        return hashlib.sha256(f"{self.source} {self.subject} {seen_at}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Look:
    """What was found.

    Attributes:
        unseen: The sources that could not be read: nothing is known of theirs.
    """

    occasions: list[Occasion]
    unseen: frozenset[str]


def named(text: str) -> str:
    """A stranger's name: one line, short, and nothing in it that a mail program makes a link of."""
    line = " ".join(spelt_out(text).split())
    line = _LINK.sub(lambda sign: f"{sign[0]} ", line)
    return line if len(line) <= NAME_MOST else f"{line[: NAME_MOST - 1]}…"
