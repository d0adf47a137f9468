"""Where a process of ours writes its log."""

from __future__ import annotations

import sys
from contextlib import suppress


class ErrorStreamLogger:
    """Standard error, for structlog: a full disk costs lines of the log, never the work that they tell of."""

    def __init__(self, *_: object) -> None: ...

    def msg(self, message: str) -> None:
        """Write a line, or leave it."""
        with suppress(OSError):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    log = debug = info = warn = warning = error = exception = critical = fatal = failure = err = msg
