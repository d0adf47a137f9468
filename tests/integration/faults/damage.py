"""Parts that run under a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.hospitals import Hospitals


@contextmanager
def started_as(
    hospitals: Hospitals,
    name: str,
    command: Callable[[list[str]], Sequence[str]] = lambda command: command,
    **environment: str,
) -> Iterator[None]:
    """A part restarted by another command or with a larger environment, and as it was at the end."""
    part = hospitals.consortium._part(name)
    before = part._command, part._environment
    part._command, part._environment = [*command([*part._command])], part._environment | environment
    hospitals.consortium.restart(name)
    try:
        yield
    finally:
        part._command, part._environment = before
        hospitals.consortium.restart(name)
