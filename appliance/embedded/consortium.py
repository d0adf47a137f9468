"""A consortium on one machine: broker, network host and nodes as processes on loopback, members truly enrolled.

    ROOT/
      authority/        the transport authority and the operator's register
      members/<id>/     a folder for each member: the network host, nodes, federators, researchers, the operator
      packages/         Mosquitto, if it had to be fetched
      tmp/              what the parts' libraries write aside

Nothing is written outside ROOT. When whoever started it dies, even by SIGKILL, every part ends by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import appliance
from appliance.embedded import keeper
from appliance.embedded.broker import STORE, place_broker
from appliance.embedded.errors import FolderBusyError, PartDiedError
from appliance.embedded.mosquitto import Program, cache_folder, find_mosquitto
from appliance.embedded.part import GRACE_S, Part
from appliance.embedded.ports import LOOPBACK, free_port, is_free
from appliance.enrolment.authority import Authority
from appliance.enrolment.joining import admit, complete, prepare
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.files import replace_file
from appliance.protocol.home import Endpoint, MemberHome
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Role
from appliance.transport.tls import client_context

BROKER, NETWORK, OPERATOR = "broker", "network", "operator"
_CERTIFICATE_DAYS = 30
_STARTS = 4  # that often two free ports may be snatched away
_START_S = 90.0
_REST_READY = "run/rest.port"
_NODE_READY = "run/ready"  # a federator's as well


@dataclass(frozen=True)
class Seat:
    """A member to be: its id, and what the register says of it."""

    id: str
    institution: str
    contact: str = "nobody@embedded.invalid"


class EmbeddedConsortium:
    """Enrols, starts, watches and ends a consortium below one folder.

    Example:
        >>> with EmbeddedConsortium(Path("run"), nodes=["north", "south"], researchers=["alice"]) as consortium:
        ...     Experiment(home=consortium.home("alice"), ...)  # doctest: +SKIP

    Args:
        root: The folder; made if missing. What an earlier run left there is used again.
        nodes: The hospitals, by id or with particulars.
        researchers: The researchers, likewise.
        federators: The federators, likewise, for unattended runs.
        name: The consortium's name.
        on_death: Called, from a thread of ours, when a part ends that should run.
    """

    def __init__(
        self,
        root: Path,
        *,
        nodes: Sequence[Seat | str],
        researchers: Sequence[Seat | str] = ("alice",),
        federators: Sequence[Seat | str] = (),
        name: str = "Embedded consortium",
        on_death: Callable[[PartDiedError], None] | None = None,
    ) -> None:
        self.root = root.absolute()
        self._name = name
        self._nodes = [_seat(node) for node in nodes]
        self._researchers = [_seat(researcher) for researcher in researchers]
        self._federators = [_seat(federator) for federator in federators]
        self._on_death = on_death
        self._parts: dict[str, Part] = {}
        self._endpoint: Endpoint | None = None
        self._program: Program | None = None
        self._lock: TextIO | None = None
        self._is_started = False
        seats = self._nodes + self._researchers + self._federators
        taken = {BROKER, NETWORK, OPERATOR} & {seat.id for seat in seats}
        if taken:
            raise ConfigurationError(f"'{min(taken)}' is the id of a part of every embedded consortium.")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> Endpoint:
        """Where broker and network host listen; raises ConfigurationError before the start."""
        if self._endpoint is None:
            raise ConfigurationError("The consortium was not started.")
        return self._endpoint

    @property
    def broker(self) -> Program:
        """The broker's program.

        Raises:
            BrokerMissingError: There is none, and it cannot be fetched.
        """
        if self._program is None:
            self._program = find_mosquitto(cache_folder())
        return self._program

    def home(self, member_id: str) -> Path:
        """The member's folder."""
        return self.root / "members" / member_id

    def start(self, parts: Collection[str] | None = None) -> None:
        """Enrol whoever is not, start the parts at once and wait until each is up.

        Args:
            parts: Which to start, by name (``broker``, ``network``, nodes' and federators' ids); all if None.

        Raises:
            BrokerMissingError: There is no Mosquitto, and it cannot be fetched.
            FolderBusyError: Another consortium runs in the folder.
            PartDiedError: A part did not come up; nothing runs then.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._lock or _locked(self.root / ".lock")
        try:
            for attempt in range(1, _STARTS + 1):
                try:
                    self._start_on(_fresh_endpoint(), parts)
                    break
                except PartDiedError:
                    self._end_parts()
                    if attempt == _STARTS or self._ports_are_free():
                        raise
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every part; returns when none is left. The nodes go first, so that they can still say goodbye."""
        self._end_parts()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self, name: str, *, forget: bool = False) -> None:
        """End a part as a power cut would.

        Args:
            name: ``broker``, ``network`` or a node's id.
            forget: For the broker: lose all that it stored, too.
        """
        self._part(name).kill()
        if forget:
            for file in (self.home(NETWORK) / STORE).glob("*"):
                file.unlink()

    def restart(self, name: str) -> None:
        """End a part in order, if it runs, and start it again where it was."""
        self._part(name).stop()
        self.launch(name)
        self.wait_until_up(name)

    def launch(self, name: str) -> None:
        """Start a part that was ended, without waiting until it is up."""
        for sign in (self.home(name) / _REST_READY, self.home(name) / _NODE_READY):
            sign.unlink(missing_ok=True)
        self._part(name).start()

    def wait_until_up(self, *names: str) -> None:
        """Wait until these parts are up; raises PartDiedError if one is not within a minute and a half."""
        deadline = time.monotonic() + _START_S
        for name in names:
            self._part(name).wait_until(partial(self._is_up, name), timeout_s=deadline - time.monotonic())

    def kill_process(self, name: str, program: str) -> int:
        """Kill one process inside a part, as a crash would.

        Args:
            name: The part, such as a node's id.
            program: A piece of the process's command line, such as ``appliance.warden``.

        Returns:
            The id that it had.

        Raises:
            ConfigurationError: No process of the part is called so.
        """
        processes = self.processes(name)
        pid = next((pid for pid, command in processes.items() if program in command), None)
        if pid is None:
            raise ConfigurationError(
                f"No process of '{name}' is called '{program}'. There are: {[*processes.values()]}."
            )
        os.kill(pid, signal.SIGKILL)
        return pid

    def require_alive(self) -> None:
        """Raises PartDiedError, with the end of its log, for the first part that ended."""
        for part in self._parts.values():
            part.require_alive()

    def processes(self, name: str) -> dict[int, str]:
        """The part's processes: command lines by process id, without those that only keep others."""
        found = {}
        for pid in self._part(name).processes():
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return {pid: command.strip() for pid, command in found.items() if command and keeper.__file__ not in command}

    def _start_on(self, endpoint: Endpoint, parts: Collection[str] | None) -> None:
        self._endpoint = endpoint
        self._enrol(endpoint)
        self._parts = {part.name: part for part in self._make_parts(endpoint)}
        names = [name for name in self._parts if parts is None or name in parts]
        for name in names:
            self.launch(name)
        self.wait_until_up(*names)
        self._is_started = True

    def _report(self, death: PartDiedError) -> None:
        """Deaths during the start are raised there, or mended."""
        if self._is_started and self._on_death is not None:
            self._on_death(death)

    def _enrol(self, endpoint: Endpoint) -> None:
        """Everybody joins by the same three steps as across a country; certificates are renewed at each start."""
        authority = Authority.open(self.root / "authority", self._name)
        seats = [
            (Seat(OPERATOR, self._name), Role.OPERATOR),
            (Seat(NETWORK, self._name), Role.NETWORK),
            *((seat, Role.NODE) for seat in self._nodes),
            *((seat, Role.RESEARCHER) for seat in self._researchers),
            *((seat, Role.FEDERATOR) for seat in self._federators),
        ]
        requests = [
            prepare(self.home(seat.id), seat.id, role=role, institution=seat.institution, contact=seat.contact)
            for seat, role in seats
        ]
        operator = MemberKeys.load(self.home(OPERATOR) / "keys")
        book = RegisterBook(self.root / "authority/register.jws", operator, consortium=self._name)
        for request in requests:
            book.add(request.member())  # all first, so that one version of the register lists them all
        for request in requests:
            names = (LOOPBACK, "localhost") if request.id == NETWORK else ()
            answer = admit(request, authority, book, endpoints=[endpoint], names=names, days=_CERTIFICATE_DAYS)
            complete(self.home(request.id), answer)
        settings = self.home(NETWORK) / "network.toml"
        if not settings.exists():
            replace_file(settings, f'operator = "{operator.public.identity}"\n')

    def _make_parts(self, endpoint: Endpoint) -> Iterator[Part]:
        home = self.home(NETWORK)
        config = place_broker(home, port=endpoint.broker_port)
        yield self._make(BROKER, home, [str(self.broker.path), "-c", str(config)], **self.broker.environment)
        port = endpoint.rest_url.rpartition(":")[2]
        yield self._make(NETWORK, home, [sys.executable, "-m", "appliance.embedded.network", str(home), port])
        start_node = [sys.executable, "-m", "appliance.cli.main", "node", "start"]
        for seat in self._nodes:
            home = self.home(seat.id)
            (home / "data").mkdir(mode=0o700, exist_ok=True)
            yield self._make(seat.id, home, [*start_node, "--home", str(home)])
        start_federator = [sys.executable, "-m", "appliance.cli.main", "federator", "start"]
        for seat in self._federators:
            home = self.home(seat.id)
            yield self._make(seat.id, home, [*start_federator, "--home", str(home)])

    def _make(self, name: str, home: Path, command: list[str], **environment: str) -> Part:
        if self._lock is None:
            raise ConfigurationError("The consortium was not started.")
        return Part(
            name,
            command,
            log=home / "log" / f"{name}.log",
            environment=self._environment() | environment,
            folder=home,
            hold=self._lock.fileno(),
            on_death=self._report,
        )

    def _environment(self) -> dict[str, str]:
        """What the parts see: nothing of ours but the way to our programs; their libraries write below ROOT."""
        scratch = self.root / "tmp"
        scratch.mkdir(mode=0o700, exist_ok=True)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(Path(appliance.__file__).parents[1]),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
        }

    def _is_up(self, name: str) -> bool:
        if name == BROKER:
            return self._answers(self.endpoint.broker_port)
        if name == NETWORK:
            return (self.home(NETWORK) / _REST_READY).exists()
        try:
            return int((self.home(name) / _NODE_READY).read_text()) in self._part(name).processes()
        except (OSError, ValueError):
            return False  # not yet, or what a killed warden left there

    def _answers(self, port: int) -> bool:
        """Whether our own server is there: a stranger on the same port would fail the handshake."""
        context = client_context(MemberHome(self.home(NETWORK)).tls)
        try:
            with socket.create_connection((LOOPBACK, port), timeout=2) as line:
                context.wrap_socket(line, server_hostname=LOOPBACK).close()
        except (OSError, ssl.SSLError):
            return False
        return True

    def _ports_are_free(self) -> bool:
        """Whether nobody sits on the ports chosen: another choice would not help then."""
        rest_port = int(self.endpoint.rest_url.rpartition(":")[2])
        return is_free(self.endpoint.broker_port) and is_free(rest_port)

    def _end_parts(self) -> None:
        self._is_started = False
        infrastructure = [part for name, part in self._parts.items() if name in {BROKER, NETWORK}]
        nodes = [part for name, part in self._parts.items() if name not in {BROKER, NETWORK}]
        for group in (nodes, infrastructure):
            for part in group:
                part.order_stop()
            for part in group:
                part.stop()

    def _part(self, name: str) -> Part:
        try:
            return self._parts[name]
        except KeyError:
            known = ", ".join(self._parts) or "none: the consortium was not started"
            raise ConfigurationError(f"There is no part '{name}'. The parts: {known}.") from None


def require_unused(root: Path) -> None:
    """Make sure that no consortium runs below ``root``, before anything there is touched.

    Raises:
        FolderBusyError: One does.
    """
    if root.exists():
        _locked(root / ".lock").close()


def _seat(member: Seat | str) -> Seat:
    return member if isinstance(member, Seat) else Seat(member, member.replace("-", " ").title())


def _fresh_endpoint() -> Endpoint:
    broker, rest = free_port(), free_port()
    while rest == broker:
        rest = free_port()
    return Endpoint(broker_host=LOOPBACK, broker_port=broker, rest_url=f"https://{LOOPBACK}:{rest}")


def _locked(path: Path) -> TextIO:
    """Hold the folder. The keepers hold it with us, so a killed run frees it when its last part has ended.

    Raises:
        FolderBusyError: Somebody else holds it for longer than a dying run would.
    """
    file = path.open("a")
    deadline = time.monotonic() + GRACE_S + 2
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise FolderBusyError(
                    f"Another consortium runs in {path.parent}.", remedy="Stop it, or choose another folder."
                ) from None
            time.sleep(0.05)
        else:
            return file
