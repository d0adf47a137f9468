"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands: only ``FAILED`` keeps FedWard from working."""

    OK = "ok"
    WEAKER = "weaker"  # it works, and worse or less safely than it could
    FAILED = "failed"
    UNKNOWN = "unknown"


AS_ROOT = "Run it as root: sudo fedward doctor"


@dataclass(frozen=True)
class Finding:
    """One thing about this host.

    Attributes:
        topic: What was looked at, such as ``disk``.
        name: Which of these, such as ``/var/lib/fedward``; empty where there is one alone.
        because: What was found, in plain English.
        remedy: What to type, or whom to ask; empty where nothing needs to be done.
    """

    topic: str
    name: str
    state: State
    because: str
    remedy: str = ""


class UnknowableError(Exception):
    """A check cannot know what it looks for: it becomes a finding of the state ``unknown``.

    Args:
        because: Why not.
        remedy: What would let it know.
    """

    def __init__(self, because: str, remedy: str = "") -> None:
        super().__init__(because)
        self.because = because
        self.remedy = remedy
