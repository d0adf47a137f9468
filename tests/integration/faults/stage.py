"""Where processes say each step that they have finished, and wait until whoever watches lets them go on.

A process that announces stands still meanwhile, so that another part, or itself, is killed exactly there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener

Act = Callable[[], object]
NOBODY = ""  # the address where nobody watches


def announcer(address: str) -> Callable[[str], None]:
    """Says a step at the stage of that address; returns when it may go on, or when nobody watches any more."""

    def announce(step: str) -> None:
        with suppress(OSError, EOFError), Client(address, "AF_UNIX") as line:
            line.send_bytes(step.encode())
            line.recv_bytes()

    return announce


class Stage:
    """Hears every step, and acts at one of them."""

    def __init__(self) -> None:
        self._listener = Listener(family="AF_UNIX", backlog=16)
        self._lock = threading.Lock()
        self._plan: tuple[str, Act] | None = None
        self._errors: list[BaseException] = []
        self.steps: list[str] = []  # all that were said, in their order
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        """For ``announcer``."""
        return str(self._listener.address)

    def close(self) -> None:
        """Let everybody go on from now on."""
        self._listener.close()

    @contextmanager
    def acting_at(self, step: str, act: Act) -> Iterator[None]:
        """Act when the step is said for the first time; at the end it must have been said."""
        with self._lock:
            self._plan = (step, act)
        yield
        with self._lock:
            left, self._plan = self._plan, None
            errors, self._errors = self._errors, []
        assert not errors, errors
        assert left is None, f"nobody came to the step '{step}'"

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._hear, args=(self._listener.accept(),), daemon=True).start()

    def _hear(self, line: Connection) -> None:
        with line, suppress(OSError, EOFError):  # it was killed here
            step = line.recv_bytes().decode()
            with self._lock:
                self.steps.append(step)
                is_it = self._plan is not None and self._plan[0] == step
                act, self._plan = (self._plan[1], None) if self._plan and is_it else (None, self._plan)
            if act is not None:
                try:
                    act()
                except BaseException as error:  # noqa: BLE001 - told where the test waits
                    self._errors.append(error)
            line.send_bytes(b"")
