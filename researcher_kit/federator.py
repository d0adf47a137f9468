"""The federator: runs experiments that researchers submitted, each in a process of its own, and begins none twice.

HOME/
federator.toml           the settings; each key overridable as FEDWARD_FEDERATOR__KEY
run/federator.lock       held while it runs: one service for one member
run/alive                touched at each turn; a health check looks at its age
jobs/<id>/               one experiment: its store, breakpoints and last report; kept for a while after the end

Which jobs are ours, the network host's queue says; how far each is, its folder. So whatever moment a kill picks, the
next start goes on where it was.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.protocol.envelope import Signer
from appliance.protocol.errors import Code, ConfigurationError, FedWardError
from appliance.protocol.home import MemberHome
from appliance.protocol.register import Role
from appliance.protocol.settings import ComponentSettings, read_settings
from researcher_kit.aggregators import Aggregator
from researcher_kit.strategies import Strategy
from researcher_kit.wire import NetworkWire, Queue, Wire

JOBS, REPORT_FILE, ENDED_FILE, LOG_FILE = "jobs", "report.jws", "ended", "job.log"
ALIVE_FILE, READY_FILE = "run/alive", "run/ready"
RENEW_S = 3 * 86_400.0  # the network host keeps a file for seven days
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 300.0
_LOG_BYTES = 1 << 20
_DAY = 86_400.0
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_log = structlog.get_logger(__name__)


class FederatorConfig(ComponentSettings):
    """``federator.toml``.

    Attributes:
        jobs_at_once: How many experiments run at a time; others wait in the queue.
        poll_s: Seconds between two looks into the queue.
        keep_days: How long a result is kept for its researcher after the end.
        aggregators: Further aggregators, as ``package.module:Class``; installed here, and made without arguments.
        strategies: Further strategies, likewise.
    """

    model_config = SettingsConfigDict(env_prefix="FEDWARD_FEDERATOR__")

    jobs_at_once: int = Field(default=4, ge=1, le=256)
    poll_s: float = Field(default=5.0, gt=0, le=600)
    keep_days: float = Field(default=90.0, gt=0)
    aggregators: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()


def read_config(home: Path) -> FederatorConfig:
    """The settings of the federator in ``home``; a missing file means the defaults.

    Raises:
        ConfigurationError: A setting is unknown or has a wrong value; names file and setting.
    """
    return read_settings(home / "federator.toml", FederatorConfig, is_required=False)


_Part = TypeVar("_Part", Aggregator, Strategy)


def own_parts(names: tuple[str, ...], kind: type[_Part]) -> dict[str, type[_Part]]:
    """Aggregators or strategies that this federator has beside FedWard's, by their classes' names.

    Raises:
        ConfigurationError: One is not installed, or is none.
    """
    found: dict[str, type[_Part]] = {}
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            part = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"federator.toml: '{name}' cannot be imported: {error}.") from error
        if not (isinstance(part, type) and issubclass(part, kind)):
            raise ConfigurationError(f"federator.toml: '{name}' is no {kind.__name__}.")
        found[part.__name__] = part
    return found


@dataclass
class _Child:
    """The process of one job."""

    process: subprocess.Popen[bytes]
    started_at: float


@dataclass
class _Rest:
    """How long a job whose process ended waits until it is begun again."""

    wait_s: float
    until: float


class Federator:
    """The service; ``run`` works until ``stop``.

    Args:
        root: The federator's member folder.
        wire: Opens the connections; the consortium's network host if None.

    Raises:
        ConfigurationError: The folder is not a federator's, or a setting is wrong.

    Example:
        >>> Federator(Path("/var/lib/fedward/federator")).run()  # doctest: +SKIP
    """

    def __init__(self, root: Path, *, wire: Wire | None = None) -> None:
        self._root = root.resolve()
        home = MemberHome(self._root)
        keys, member = home.keys(), home.register().require(home.member_id)
        if member.role is not Role.FEDERATOR or member.keys != keys.public:
            raise ConfigurationError(f"{root}: the register does not list these keys as a federator's.")
        self._config = read_config(self._root)
        own_parts(self._config.aggregators, Aggregator)  # type: ignore[type-abstract]  # a base class to compare with
        own_parts(self._config.strategies, Strategy)  # type: ignore[type-abstract]  # likewise
        home.folder("run")
        self._jobs = home.folder(JOBS)
        files = (wire or NetworkWire()).files(home, Signer(home.member_id, keys))
        assert isinstance(files, Queue)
        self._files, self._queue = files, files
        self._children: dict[str, _Child] = {}
        self._resting: dict[str, _Rest] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Take jobs and see to their processes until ``stop``.

        Raises:
            FedWardError: Another federator runs in this folder (STORE_BUSY).
        """
        with (self._root / "run/federator.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FedWardError(
                    f"The federator in {self._root} runs already.", code=Code.STORE_BUSY, remedy="Stop it first."
                ) from None
            ready = self._root / READY_FILE
            ready.write_text(f"{os.getpid()}\n")
            try:
                while not self._stopping.is_set():
                    self._try_turn()
                    self._stopping.wait(self._config.poll_s)
            finally:
                ready.unlink(missing_ok=True)
                self._end_children()
                self._files.close()

    def stop(self) -> None:
        """End ``run`` soon; may be called from a signal handler. What runs goes on at the next start."""
        self._stopping.set()

    def _try_turn(self) -> None:
        (self._root / ALIVE_FILE).touch()
        try:
            self.turn()
        except FedWardError as error:
            _log.warning("the queue was not looked at; trying again", code=error.code, reason=error.message)
        except OSError as error:  # the disk is full
            _log.error("a job could not be begun; trying again", reason=f"{error.filename}: {error.strerror}")

    def turn(self) -> None:
        """Look once: for what ended, what is ours and does not run, what waits, what has been kept long enough."""
        self._reap()
        claimed = [str(job["id"]) for job in reversed(self._queue.jobs_list(state="claimed"))]  # the oldest first
        for job_id in [*claimed, *self._to_renew()]:
            self._begin(job_id)
        while self._has_room() and len(self._resting.keys() & {*claimed}) < self._config.jobs_at_once:
            job = self._queue.jobs_claim()
            if job is None or not self._begin(str(job["id"])):
                break
        self._tidy()

    @property
    def running(self) -> tuple[str, ...]:
        """The jobs that have a process at this moment."""
        return tuple(self._children)

    def _has_room(self) -> bool:
        return len(self._children) < self._config.jobs_at_once

    def _begin(self, job_id: str) -> bool:
        """Whether a process was started for the job."""
        rest = self._resting.get(job_id)
        if job_id in self._children or not self._has_room() or (rest and time.monotonic() < rest.until):
            return False
        if not _JOB_ID.fullmatch(job_id):  # the network host's word, which names a folder here
            _log.error("the network host named a job that cannot be", job=job_id[:64])
            return False
        folder = self._jobs / job_id
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / LOG_FILE
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(folder / f"{LOG_FILE}.1")
        with path.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-P", "-m", "researcher_kit.job_process", str(self._root), job_id],
                stdin=subprocess.PIPE,  # closed by the kernel when we die; the job's process ends then
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[job_id] = _Child(process, time.monotonic())
        _log.info("a job's process was started", job=job_id)
        return True

    def _reap(self) -> None:
        now = time.monotonic()
        for job_id, child in [*self._children.items()]:
            status = child.process.poll()
            if status is None:
                continue
            del self._children[job_id]
            if status == 0:
                self._resting.pop(job_id, None)
                continue
            before = self._resting.get(job_id)
            has_lived = before is None or now - child.started_at > 2 * before.wait_s
            wait_s = _FIRST_WAIT_S if has_lived or before is None else min(2 * before.wait_s, _LONGEST_WAIT_S)
            self._resting[job_id] = _Rest(wait_s, now + wait_s)
            _log.warning("a job's process ended; starting it again", job=job_id, status=status, in_s=wait_s)

    def _to_renew(self) -> list[str]:
        """Jobs that are over, and whose result the network host will not keep much longer."""
        old = time.time() - RENEW_S
        ended = (path.parent for path in self._jobs.glob(f"*/{ENDED_FILE}"))
        return [folder.name for folder in ended if _written_at(folder / REPORT_FILE) < old]

    def _tidy(self) -> None:
        old = time.time() - self._config.keep_days * _DAY
        for path in self._jobs.glob(f"*/{ENDED_FILE}"):
            if _written_at(path) < old and path.parent.name not in self._children:
                shutil.rmtree(path.parent, ignore_errors=True)

    def _end_children(self) -> None:
        for child in self._children.values():
            child.process.kill()  # it loses no more than by any other kill
        for child in self._children.values():
            child.process.wait()
            if child.process.stdin:
                child.process.stdin.close()
        self._children.clear()


def _written_at(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def run_federator(root: Path) -> None:
    """Run a federator until SIGTERM or SIGINT."""
    federator = Federator(root)

    def stop(*_: Any) -> None:
        federator.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    federator.run()
