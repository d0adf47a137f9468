"""A researcher's connection to the consortium: who is there, what may be used, and post in both directions.

One background thread owns what arrives. Callers wait on a condition with a deadline, never in a loop of their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

import sqlalchemy as sa
import structlog

from appliance.protocol.envelope import Clock, Envelope, NewerMessageError, Signed, Signer
from appliance.protocol.errors import ConfigurationError, FedWardError, MessageRefusedError, TimeRefusedError
from appliance.protocol.home import MemberHome, RegisterFile
from appliance.protocol.messages import (
    Body,
    DatasetInfo,
    Datasets,
    ErrorReply,
    Heartbeat,
    ListDatasets,
    Ping,
    Search,
    Stopped,
    minor_of,
)
from appliance.protocol.register import Register, Role
from appliance.protocol.topics import parse_topic
from appliance.transport.mailbox import Mailbox
from appliance.transport.mqtt import Arrived, Event, LinkDown, LinkUp
from appliance.transport.register import RegisterPull
from appliance.transport.sqlite import writing
from researcher_kit.errors import ExperimentArgumentError, NetworkUnreachableError
from researcher_kit.store import open_store
from researcher_kit.tables import NodeTable, Table
from researcher_kit.wire import NetworkWire, Queue, Wire

HOME_VARIABLE = "FEDWARD_RESEARCHER_HOME"
ASK_TIMEOUT_S = 10.0
REPEAT_S = 1.0
MISSED_HEARTBEATS = 3
_log = structlog.get_logger(__name__)


class Listener(Protocol):
    """An experiment, as the federation sees it; called from the background thread, so it must not wait."""

    def record(self, connection: sa.Connection, envelope: Envelope) -> None:
        """Store what a durable message says, in the transaction after which it is acknowledged."""

    def arrived(self, envelope: Envelope) -> None:
        """Hear of a message; a durable one is stored and acknowledged by now."""

    def received(self, jti: str) -> None:
        """Hear that a message of ours arrived, perhaps one of another experiment."""


@dataclass(frozen=True)
class Answer:
    """A node's answer to a question, and how long it took."""

    body: Body
    seconds: float


@dataclass
class Presence:
    """What is known of a node's life.

    Attributes:
        heard_at: When it wrote its last signed heartbeat, seconds since the epoch.
        is_line_broken: The broker says so; unsigned, so a hint and no more.
        ahead_s: How far its clock is ahead of ours, when that is why we cannot talk; negative: behind.
    """

    heard_at: float | None = None
    every_s: float = 0.0
    running_rounds: int = 0
    is_line_broken: bool = False
    ahead_s: float | None = None

    def is_alive(self, now: float) -> bool:
        """Whether the last heartbeat is young enough."""
        return self.heard_at is not None and now - self.heard_at <= MISSED_HEARTBEATS * self.every_s


@dataclass
class _Question:
    node_id: str
    signed: Signed
    asked_at: float = field(default_factory=time.monotonic)
    answer: Answer | None = None


@dataclass(frozen=True)
class Outgoing:
    """An open transaction for durable messages and the rows that caused them."""

    connection: sa.Connection
    post: Callable[..., Signed]


class Federation:
    """A researcher's connection; threads may share it.

    Args:
        home: The researcher's member folder; if None, the one that ``FEDWARD_RESEARCHER_HOME`` names.
        wire: Opens the connections; the consortium's network host if None.
        store: The file of its messages and rounds; the researcher's own if None.
        clock: Seconds since the epoch.

    Raises:
        ConfigurationError: There is no such folder, or a file in it cannot be used.

    Example:
        >>> with Federation() as federation:  # doctest: +SKIP
        ...     print(federation.search(["prostate", "t2w"]))
    """

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        wire: Wire | None = None,
        store: Path | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.home = MemberHome(_home_folder(home))
        self.keys = self.home.keys()
        self.clock = clock
        self.store = open_store(store or self.home.folder("store") / "researcher.db")
        signer = Signer(self.member_id, self.keys, clock)
        wire = wire or NetworkWire()
        self.files = wire.files(self.home, signer)
        self._signer = signer
        self._register = RegisterFile(self.home)
        self._changed = threading.Condition(threading.RLock())
        self._questions: dict[str, _Question] = {}
        self._asked: set[str] = set()  # also those that nobody waits for any more: late answers are still ours
        self._listeners: dict[str, Listener] = {}
        self._handing_over = threading.Lock()  # a message is recorded for a listener, and then told to it
        self._presence: dict[str, Presence] = {}
        self._minors: dict[str, int] = {}  # the protocol's minor version that each member spoke last
        self._pings = 0
        self._is_closed = False
        self._link = wire.link(self.home)
        try:
            self._mailbox = Mailbox(
                self.store,
                signer,
                self._register,
                self._link.publish,
                clock=clock,
                on_receipt=self._on_receipt,
            )
            with writing(self.store) as connection:
                self._mailbox.forget_expired(connection)
        except BaseException:  # a full disk, say
            self._link.close()
            raise
        self._pull = RegisterPull(self.home, self.files)
        self._pull.start()
        self._thread = threading.Thread(target=self._serve, name="fedward-researcher", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Federation({self.member_id!r} at {self.home.root})"

    def close(self) -> None:
        """End the connection. What waits in the outbox is sent when the researcher connects again."""
        if self._is_closed:
            return
        self._is_closed = True
        self._pull.close()
        self._link.wake()
        self._thread.join()
        self.files.close()
        self.store.dispose()

    @property
    def member_id(self) -> str:
        """Our own member id."""
        return self.home.member_id

    @property
    def register(self) -> Register:
        """The membership register of the moment."""
        return self._register()

    @property
    def is_connected(self) -> bool:
        """Whether the line to the network host stands."""
        return self._link.is_up

    def node_ids(self) -> tuple[str, ...]:
        """The active nodes of the register."""
        return tuple(member.id for member in self.register.with_role(Role.NODE))

    def institution(self, node_id: str) -> str:
        """The hospital's name, or the id of a node that the register does not list any more."""
        member = self.register.find(node_id)
        return member.institution if member else node_id

    # What a researcher asks

    def ping(self, *, timeout_s: float = ASK_TIMEOUT_S) -> NodeTable[float]:
        """Who answers, and how fast: seconds by node."""
        self._pings += 1
        answers = self.ask(dict.fromkeys(self.node_ids(), Ping(sequence=self._pings)), timeout_s=timeout_s)
        seconds = {node: answer.seconds for node, answer in answers.items()}
        words = {node: f"{1000 * value:.0f} ms" for node, value in seconds.items()}
        return self._table("Ping", ("answer",), seconds, {node: (text,) for node, text in words.items()})

    def list(
        self, nodes: Sequence[str] | None = None, *, verbose: bool = False, timeout_s: float = ASK_TIMEOUT_S
    ) -> NodeTable[tuple[DatasetInfo, ...]]:
        """The datasets that you may use, by node.

        Args:
            nodes: Ask these only.
            verbose: Print the table as well.
        """
        asked = self.require_nodes(nodes) if nodes else self.node_ids()
        found = self._datasets("Datasets that you may use", ListDatasets(), asked, timeout_s)
        if verbose:
            print(found)  # noqa: T201 - that is what it is for
        return found

    def search(
        self, tags: Sequence[str], *, nodes: Sequence[str] | None = None, timeout_s: float = ASK_TIMEOUT_S
    ) -> NodeTable[tuple[DatasetInfo, ...]]:
        """The datasets that you may use and that carry all these tags, by node.

        Args:
            tags: Between 1 and 16 words.
            nodes: Ask these only.

        Raises:
            ExperimentArgumentError: No tag, too many, or a node that is not in the register.
            NetworkUnreachableError: There is no line to the network host.
        """
        if isinstance(tags, str) or not 0 < len(tags) <= 16 or not all(isinstance(tag, str) and tag for tag in tags):
            raise ExperimentArgumentError(f"tags are {tags!r}; expected a list of 1 to 16 words.")
        asked = self.node_ids() if nodes is None else self.require_nodes(nodes)
        return self._datasets(f"Datasets tagged {', '.join(tags)}", Search(tags=tuple(tags)), asked, timeout_s)

    def nodes(self) -> NodeTable[Presence]:
        """Which nodes are alive, by the last heartbeat that each signed."""
        now = self.clock()
        with self._changed:
            found = {node: self._presence.get(node, Presence()) for node in self.node_ids()}
        rows = {node: _presence_words(presence, now) for node, presence in found.items()}
        return self._table("Nodes", ("state", "last heard", "rounds running"), found, rows)

    def speaks(self, node_id: str, minor: int) -> bool:
        """Whether a node is known to speak this minor version of the protocol: not before it was heard."""
        with self._changed:
            return self._minors.get(node_id, -1) >= minor

    @property
    def queue(self) -> Queue:
        """The federators' queue.

        Raises:
            ExperimentArgumentError: There is none: this is a rehearsal.
        """
        if not isinstance(self.files, Queue):
            raise ExperimentArgumentError(
                "A rehearsal has no federator.", remedy="run() it here; submit() is for experiments with hospitals."
            )
        return self.files

    @property
    def signer(self) -> Signer:
        """What signs in our name."""
        return self._signer

    def named(self, nodes: Sequence[str]) -> str:
        """Silent nodes by name, each with what is known of why."""
        with self._changed:
            ahead = {node: self._presence.get(node, Presence()).ahead_s for node in nodes}
        hints = {node: f" ({_clock_words(seconds)})" for node, seconds in ahead.items() if seconds is not None}
        return ", ".join(f"{node}{hints.get(node, '')}" for node in nodes)

    def require_nodes(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """``nodes`` in order, each once; raises ExperimentArgumentError for one that is no active node."""
        known = self.node_ids()
        for node in nodes:
            if node not in known:
                raise ExperimentArgumentError(f"'{node}' is no active node; the register lists {', '.join(known)}.")
        return tuple(sorted(set(nodes)))

    def jobs(self) -> Table:
        """Your unattended runs, the newest first; ``researcher_kit.attach(id)`` takes one up."""
        rows = tuple(
            (job["id"], job["state"], job["federator"], _minute(job["submitted_at"]), _minute(job["changed_at"]))
            for job in self.queue.jobs_list()
        )
        return Table("Unattended runs", ("id", "state", "federator", "submitted", "last heard"), rows)

    # What experiments need

    def record(self, node_id: str) -> str:  # noqa: ARG002 - for those that are asked of local nodes
        """What the plan printed in a node's last round, with its traceback if it failed: a hospital never sends it."""
        return ""

    def stopped(self, answers: Mapping[str, Answer], nodes: Iterable[str]) -> NodeTable[Stopped]:
        """What nodes said to a Stop, as people read it."""
        asked = sorted(nodes)
        stopped = {node: answer.body for node, answer in answers.items() if isinstance(answer.body, Stopped)}
        words = {node: "ended" if body.was_running else "was not running" for node, body in stopped.items()}
        rows = [(node, self.institution(node), words.get(node, "no answer yet")) for node in asked]
        silent = tuple(node for node in asked if node not in stopped)
        return NodeTable("Stopped", ("node", "institution", "state"), tuple(rows), stopped, silent)

    def ask(self, bodies: Mapping[str, Body], *, timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Answer]:
        """Send each node a question and wait for the answers.

        A question is sent again, word for word, until it is answered; one that must arrive goes through the outbox.

        Returns:
            The answers by node; a node that is silent is absent, one that refuses has an ``ErrorReply``.

        Raises:
            NetworkUnreachableError: The line to the network host was down all the time.
        """
        deadline = time.monotonic() + timeout_s
        questions = self._send_questions(bodies)
        try:
            self._await_answers(questions, deadline)
        finally:
            with self._changed:
                for jti in questions:
                    del self._questions[jti]
        answers = {question.node_id: question.answer for question in questions.values() if question.answer}
        if bodies and not answers and not self.is_connected:
            endpoint = self.home.settings.endpoints[0]
            raise NetworkUnreachableError(
                f"No line to the network host at {endpoint.broker_host}:{endpoint.broker_port} within {timeout_s:g} s."
            )
        return answers

    @contextmanager
    def outgoing(self) -> Iterator[Outgoing]:
        """One transaction for durable messages and the rows that caused them; once committed, the messages leave."""
        posted: list[Signed] = []
        with writing(self.store) as connection:

            def post(to: str, body: Body, *, lifetime_s: int | None = None) -> Signed:
                signed = self._mailbox.post(connection, to, body, lifetime_s=lifetime_s)
                posted.append(signed)
                return signed

            yield Outgoing(connection, post)
        for signed in posted:
            self._mailbox.send(signed)
        self._link.wake()  # they may be due again before what the thread waits for

    def withdraw(self, jtis: Sequence[str]) -> None:
        """Stop sending messages that the store has erased; an answer that comes late is taken and dropped."""
        self._mailbox.withdraw(jtis)
        with self._changed:
            self._asked.update(jtis)

    @contextmanager
    def listening(self, experiment_id: str, listener: Listener) -> Iterator[None]:
        """Take the messages of one experiment; those of others are left to the process that runs them.

        On leaving, whatever was recorded for the listener was told to it as well: its successor finds the one or hears
        the other.
        """
        with self._changed:
            self._listeners[experiment_id] = listener
        try:
            yield
        finally:
            with self._handing_over, self._changed:
                del self._listeners[experiment_id]

    # Questions

    def _send_questions(self, bodies: Mapping[str, Body]) -> dict[str, _Question]:
        durable = {node: body for node, body in bodies.items() if body.is_durable}
        signed = [self._signer.sign(node, body) for node, body in bodies.items() if node not in durable]
        with self._changed:  # no answer is looked at before its question is known
            if durable:
                with self.outgoing() as out:
                    signed += [out.post(node, body) for node, body in durable.items()]
            questions = {one.envelope.jti: _Question(one.envelope.to, one) for one in signed}
            self._questions |= questions
            self._asked |= questions.keys()
        self._publish(questions.values())
        return questions

    def _await_answers(self, questions: Mapping[str, _Question], deadline: float) -> None:
        repeat_at = time.monotonic() + REPEAT_S
        with self._changed:
            while waiting := [question for question in questions.values() if question.answer is None]:
                now = time.monotonic()
                if now >= deadline:
                    return
                if now >= repeat_at:
                    self._publish(waiting)
                    repeat_at = now + REPEAT_S
                self._changed.wait(min(deadline, repeat_at) - now)

    def _publish(self, questions: Any) -> None:
        for question in questions:
            if not question.signed.envelope.body.is_durable:
                self._mailbox.publish(question.signed)

    def _datasets(
        self, title: str, body: Body, nodes: Sequence[str], timeout_s: float
    ) -> NodeTable[tuple[DatasetInfo, ...]]:
        answers = self.ask(dict.fromkeys(nodes, body), timeout_s=timeout_s)
        found = {
            node: answer.body.datasets for node, answer in sorted(answers.items()) if isinstance(answer.body, Datasets)
        }
        rows = tuple(
            (node, self.institution(node), info.dataset_id, info.name, ", ".join(info.tags), str(info.rows))
            for node, datasets in found.items()
            for info in datasets
        )
        silent = tuple(node for node in nodes if node not in found)
        rows += tuple((node, self.institution(node), "no answer", "", "", "") for node in silent)
        return NodeTable(title, ("node", "institution", "dataset", "name", "tags", "rows"), rows, found, silent)

    def _table(
        self, title: str, columns: tuple[str, ...], answers: Mapping[str, Any], words: Mapping[str, tuple[str, ...]]
    ) -> NodeTable[Any]:
        nodes = self.node_ids()
        absent = ("no answer", *[""] * (len(columns) - 1))
        rows = tuple((node, self.institution(node), *words.get(node, absent)) for node in nodes)
        silent = tuple(node for node in nodes if node not in answers)
        return NodeTable(title, ("node", "institution", *columns), rows, answers, silent)

    # The background thread

    def _serve(self) -> None:
        self._link.open()
        try:
            while not self._is_closed:
                for event in self._link.receive(self._mailbox.next_due_s()):
                    self._handle(event)
                self._mailbox.repeat_due()
        finally:
            self._link.close()

    def _handle(self, event: Event) -> None:
        try:
            if isinstance(event, Arrived):
                self._on_arrived(event)
            elif isinstance(event, LinkUp):
                self._on_link_up()
            elif isinstance(event, LinkDown):
                _log.info("the line to the network host is down; it mends itself")
        except MessageRefusedError as error:
            _log.warning("message refused", code=error.code, reason=error.message)
            if isinstance(event, Arrived) and isinstance(error, TimeRefusedError):
                self._note_clock(event, error)
        except FedWardError as error:
            # Not acknowledged, so it comes again.
            _log.error("message put off", code=error.code, reason=error.message)
        except sa.exc.SQLAlchemyError as error:
            _log.error("the store cannot be written", reason=str(error.__cause__ or error))

    def _on_link_up(self) -> None:
        self._pull.ask()
        self._mailbox.repeat_all()
        with self._changed:
            self._publish([question for question in self._questions.values() if question.answer is None])

    def _on_arrived(self, arrived: Arrived) -> None:
        if arrived.topic.endswith("/last-will"):
            sender = parse_topic(arrived.topic).sender
            with self._changed:
                self._presence.setdefault(sender, Presence()).is_line_broken = True
            return
        try:
            envelope = self._mailbox.open(arrived)
        except NewerMessageError as error:
            if not error.envelope.body.is_durable:
                raise
            envelope = _as_failure(error)
        if envelope is None:
            return
        with self._changed:
            self._minors[envelope.sender] = minor_of(envelope.version)
        if isinstance(envelope.body, Heartbeat):
            self._on_heartbeat(envelope, envelope.body)
        else:
            self._on_message(envelope)

    def _on_heartbeat(self, envelope: Envelope, beat: Heartbeat) -> None:
        with self._changed:
            known = self._presence.get(envelope.sender, Presence())
            # An older one is a repeat by whoever carries the post: it proves nothing of now.
            if known.heard_at is None or envelope.issued_at > known.heard_at:
                self._presence[envelope.sender] = Presence(envelope.issued_at, beat.every_s, beat.running_rounds)

    def _note_clock(self, arrived: Arrived, error: TimeRefusedError) -> None:
        """A sign of life that is long over tells of a clock; another message may have been under way for so long."""
        if error.ahead_s > 0 or parse_topic(arrived.topic).kind == Heartbeat.kind:
            with self._changed:
                self._presence[error.sender] = Presence(ahead_s=error.ahead_s)

    def _on_message(self, envelope: Envelope) -> None:
        with self._handing_over:
            self._hand_over(envelope)

    def _hand_over(self, envelope: Envelope) -> None:
        jti = envelope.in_reply_to or ""
        with self._changed:
            question = self._questions.get(jti)
            listener = self._listeners.get(getattr(envelope.body, "experiment_id", None) or "")
            is_ours = listener is not None or jti in self._asked
        if not is_ours:
            return  # another process of this researcher may wait for it: no Receipt
        if question and question.node_id != envelope.sender:
            raise MessageRefusedError(f"'{envelope.sender}' answered a question to '{question.node_id}'.")
        if envelope.body.is_durable:
            self._commit(envelope, listener)
        if question:
            with self._changed:
                question.answer = Answer(envelope.body, time.monotonic() - question.asked_at)
                self._changed.notify_all()
        if listener:
            listener.arrived(envelope)

    def _commit(self, envelope: Envelope, listener: Listener | None) -> None:
        with writing(self.store) as connection:
            self._mailbox.accept(connection, envelope)
            if listener:
                listener.record(connection, envelope)
        self._mailbox.acknowledge(envelope)

    def _on_receipt(self, jti: str) -> None:
        with self._changed:
            listeners = [*self._listeners.values()]
        for listener in listeners:
            listener.received(jti)


def _as_failure(error: NewerMessageError) -> Envelope:
    """An answer that only a newer release can read, as the failure that it is to us: nobody waits for another."""
    said = error.envelope.body
    body = ErrorReply(
        code=error.code,
        message=error.message,
        experiment_id=getattr(said, "experiment_id", None),
        round=getattr(said, "round", None),
    )
    return replace(error.envelope, body=body)


def _home_folder(home: Path | str | None) -> Path:
    folder = home or os.environ.get(HOME_VARIABLE)
    if not folder:
        raise ConfigurationError(
            f"No researcher's folder is known: neither 'home' nor {HOME_VARIABLE} is set.",
            remedy=f"Pass Federation(home=...) or set {HOME_VARIABLE} to the folder that joining made.",
        )
    return Path(folder).expanduser()


def _minute(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _clock_words(ahead_s: float) -> str:
    way = "ahead of" if ahead_s > 0 else "behind"
    return f"its clock is {abs(ahead_s) / 60:.0f} min {way} ours"


def _presence_words(presence: Presence, now: float) -> tuple[str, str, str]:
    if presence.ahead_s is not None:
        return (_clock_words(presence.ahead_s), "", "")
    if presence.heard_at is None:
        return ("line broke?" if presence.is_line_broken else "not heard yet", "", "")
    state = "alive" if presence.is_alive(now) else "silent"
    if presence.is_line_broken:
        state += ", line broke?"
    heard = datetime.fromtimestamp(presence.heard_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (state, heard, str(presence.running_rounds))
