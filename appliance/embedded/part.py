"""One process of the consortium: started under a keeper, watched, explained when it dies, ended without a trace."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from appliance.embedded import keeper
from appliance.embedded.errors import PartDiedError

GRACE_S = 8.0
_KILL_AFTER_S = 10.0  # a keeper needs this long only if the kernel is stuck
_TAIL_BYTES = 8192
_TAIL_LINES = 12


class Part:
    """A program that should run until it is told to stop.

    Args:
        name: How people call it.
        command: Program and arguments.
        log: Where its output goes, added to what is there.
        environment: The whole environment of the program.
        folder: Its working folder.
        hold: An open descriptor that the keeper keeps until everything of the part has ended.
        on_death: Called from a thread of our own when the part ends without having been told to.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        hold: int | None = None,
        on_death: Callable[[PartDiedError], None] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [*command]
        self._environment = dict(environment)
        self._folder = folder
        self._hold = () if hold is None else (hold,)
        self._on_death = on_death
        self._keeper: subprocess.Popen[bytes] | None = None
        self._is_wanted = threading.Event()
        self._orders = threading.Lock()
        self._log_start = 0

    def start(self) -> None:
        """Start the program; does nothing while it runs."""
        if self.is_running:
            return
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._keeper = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-I", "-S", keeper.__file__, str(GRACE_S), *self._command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment,
                pass_fds=self._hold,
                start_new_session=True,
                bufsize=0,
            )
        self._is_wanted = threading.Event()
        self._is_wanted.set()
        watch = threading.Thread(
            target=self._watch, args=(self._keeper, self._is_wanted), name=f"watch-{self.name}", daemon=True
        )
        watch.start()

    @property
    def is_running(self) -> bool:
        """Whether the program, or something that it started, still runs."""
        return self._keeper is not None and self._keeper.poll() is None

    def processes(self) -> list[int]:
        """The ids of the program and all that it started; empty when it does not run."""
        return keeper.descendants(self._keeper.pid) if self._keeper is not None and self.is_running else []

    def order_stop(self) -> None:
        """Tell the program to end, without waiting."""
        self._order(b"T")

    def stop(self) -> None:
        """End the program: SIGTERM, and SIGKILL after a grace. Returns when nothing of it is left."""
        self._order(b"T")
        self._wait(GRACE_S + _KILL_AFTER_S)

    def kill(self) -> None:
        """End the program as a power cut would: SIGKILL at once. Returns when nothing of it is left."""
        self._order(b"K")
        self._wait(_KILL_AFTER_S)

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until the part is up.

        Args:
            is_ready: Says whether it is; asked often, at the start only.
            timeout_s: How long it may take.

        Raises:
            PartDiedError: It ended, or is not up in time.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if self._keeper is None:
                raise self._death("was not started")
            try:
                self._keeper.wait(timeout=0.03)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise self._death(f"is not up after {timeout_s:.0f} s") from None
            else:
                raise self._ended(self._keeper.returncode)

    def require_alive(self) -> None:
        """Raises PartDiedError if the part ended."""
        if self._keeper is not None and self._is_wanted.is_set() and self._keeper.poll() is not None:
            raise self._ended(self._keeper.returncode)

    def said(self) -> str:
        """The end of what the program has written since it was last started."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(self._log_start, self.log.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    def _order(self, order: bytes) -> None:
        self._is_wanted.clear()
        with self._orders:
            if self._keeper is not None and self._keeper.stdin is not None and not self._keeper.stdin.closed:
                with contextlib.suppress(BrokenPipeError):  # it has ended already
                    self._keeper.stdin.write(order)

    def _wait(self, timeout_s: float) -> None:
        if self._keeper is None:
            return
        try:
            self._keeper.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._hang_up(self._keeper)

    def _hang_up(self, process: subprocess.Popen[bytes]) -> None:
        with self._orders:
            if process.stdin is not None:
                process.stdin.close()

    def _watch(self, process: subprocess.Popen[bytes], is_wanted: threading.Event) -> None:
        status = process.wait()
        self._hang_up(process)
        if is_wanted.is_set() and self._on_death is not None:
            self._on_death(self._ended(status))

    def _ended(self, status: int) -> PartDiedError:
        number = status - 128 if status > 128 else -status
        by_signal = number in {entry.value for entry in signal.Signals} and (status > 128 or status < 0)
        return self._death(
            f"was ended by {signal.Signals(number).name}" if by_signal else f"ended with status {status}"
        )

    def _death(self, what: str) -> PartDiedError:
        lines = self.said().splitlines()[-_TAIL_LINES:]
        said = "".join(f"\n    {line}" for line in lines) or " nothing."
        return PartDiedError(f"{self.name} {what}. Its log {self.log} says at its end:{said}")
