"""Work that may hang, and the end of waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Pending(Generic[_T]):
    """Work that a thread of its own has begun. What hangs is left behind, and ends with the process at the latest."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._result: list[_T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self, limit_s: float) -> _T:
        """What came of it, or raises what it raised; raises TimeoutError after ``limit_s`` seconds."""
        self._thread.join(max(0.0, limit_s))
        if self._error is not None:
            raise self._error
        if not self._result:
            raise TimeoutError
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again where somebody waits
            self._error = error


def within(limit_s: float, work: Callable[[], _T]) -> _T:
    """Do it in at most ``limit_s`` seconds; raises TimeoutError."""
    return Pending(work).result(limit_s)
