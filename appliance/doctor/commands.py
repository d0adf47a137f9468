"""The machine's own tools, asked with a deadline."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

LIMIT_S = 5.0

Run = Callable[..., str]  # the words of a command; returns what it printed, raises CommandError


class CommandError(Exception):
    """A tool is missing, refused, or did not end in time.

    Attributes:
        is_missing: There is no such tool on this machine.
        text: What it said, or why it did not run.
    """

    def __init__(self, text: str, *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.is_missing = is_missing

    @property
    def is_refused(self) -> bool:
        """Whether this user may not."""
        lowered = self.text.lower()
        return any(
            words in lowered for words in ("permission denied", "not permitted", "access denied", "must be root")
        )


def run(*command: str, limit_s: float = LIMIT_S) -> str:
    """What a command printed.

    Raises:
        CommandError: It is missing, failed, or hangs.
    """
    try:
        done = subprocess.run(  # noqa: S603 - words of ours, no shell
            command, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise CommandError(f"'{command[0]}' is not installed", is_missing=True) from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"'{command[0]}' did not answer within {limit_s:g} s") from None
    except OSError as error:
        raise CommandError(f"'{command[0]}': {error.strerror}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        raise CommandError(said or f"'{' '.join(command[:3])}' ended with {done.returncode}")
    return done.stdout
