"""A node without containers: warden and runner as two processes, started again when one dies."""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import structlog

from appliance.embedded.errors import PartDiedError
from appliance.embedded.part import Part
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.home import MemberHome
from appliance.warden.config import read_config

RESTART_AFTER_S, RESTART_MOST_S = 1.0, 60.0
LONG_LIFE = 10.0  # times the last wait: what lived so long does not die of its start
RUNNER_START_S = 60.0
_log = structlog.get_logger(__name__)


def run_node(root: Path) -> None:
    """Run a node's processes until SIGTERM or SIGINT.

    Args:
        root: The node's folder; logs go to its ``log`` folder.

    Raises:
        ConfigurationError: The folder is not a member's.
        FedWardError: The node runs already (STORE_BUSY).
    """
    root = root.resolve()
    lock = _locked(MemberHome(root).folder("run") / "lock")
    deaths: queue.SimpleQueue[PartDiedError | None] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: deaths.put(None))
    config = read_config(root)
    parts = _parts(root, config.runner_socket, deaths)
    try:
        # The runner first, so that who finds the warden ready finds the runner as well.
        parts[0].start()
        parts[0].wait_until(config.runner_socket.exists, timeout_s=RUNNER_START_S)
        parts[1].start()
        _watch(parts, deaths)
    finally:
        for part in parts:
            part.order_stop()
        for part in parts:
            part.stop()
        lock.close()


def _locked(path: Path) -> TextIO:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FedWardError(
            f"The node in {path.parent.parent} runs already.", code=Code.STORE_BUSY, remedy="Stop it first."
        ) from None
    return file


def _watch(parts: list[Part], deaths: queue.SimpleQueue[PartDiedError | None]) -> None:
    """Start again what dies, more slowly when it did not live long, until None comes out of the queue."""
    wait_s, started = RESTART_AFTER_S / 2, time.monotonic()
    while (death := deaths.get()) is not None:
        has_lived = time.monotonic() - started > LONG_LIFE * wait_s
        wait_s = RESTART_AFTER_S if has_lived else min(2 * wait_s, RESTART_MOST_S)
        _log.error("a part of the node died; starting it again", reason=death.message, in_s=wait_s)
        if _is_told_to_end(deaths, wait_s):
            return
        for part in parts:
            part.start()
        started = time.monotonic()


def _is_told_to_end(deaths: queue.SimpleQueue[PartDiedError | None], wait_s: float) -> bool:
    """Wait; further deaths meanwhile change nothing, for everything is started again afterwards."""
    deadline = time.monotonic() + wait_s
    with suppress(queue.Empty):
        while deaths.get(timeout=max(0.0, deadline - time.monotonic())) is not None:
            pass
        return True
    return False


def _parts(root: Path, runner_socket: Path, deaths: queue.SimpleQueue[PartDiedError | None]) -> list[Part]:
    runner = ["-m", "appliance.runner", "--socket", str(runner_socket), "--scratch", str(root / "scratch")]
    # The runner gets no setting but its own: what the warden is told by its environment is not the runner's.
    bare = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return [
        Part(
            name,
            [sys.executable, *arguments],
            log=root / "log" / f"{name}.log",
            environment=environment,
            folder=root,
            on_death=deaths.put,
        )
        for name, arguments, environment in (
            ("runner", runner, bare),
            ("warden", ["-m", "appliance.warden", str(root)], dict(os.environ)),
        )
    ]
