"""Delivery that outlives crashes: an outbox that ends with the recipient's Receipt, an inbox that acts once.

A durable message lies in the sender's store before it is published, and is published again, word for word, on each new
connection and after a growing delay, until the recipient's signed Receipt names it or its lifetime ends. (Only if our
clock was found to have been ahead, it is dated anew.) The recipient
commits before it sends that Receipt. A message that comes again is answered with a Receipt and nothing else.

What need not arrive (a question, its answer, progress) is not remembered: a question that comes again is answered
again, and to nobody but the member that signed it.

The tables live in the store of whoever uses them, so that a message and its cause are one transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from appliance.protocol.envelope import (
    CLOCK_LEEWAY_S,
    MAX_ENVELOPE_BYTES,
    Clock,
    Envelope,
    NewerMessageError,
    Signed,
    Signer,
    open_envelope,
)
from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.messages import Body, Receipt
from appliance.protocol.register import Register
from appliance.protocol.topics import Topic, parse_topic, require_route
from appliance.transport.mqtt import Arrived
from appliance.transport.sqlite import Statement

FIRST_REPEAT_S, LAST_REPEAT_S = 2.0, 60.0

metadata = sa.MetaData()

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("jti", sa.String(32), primary_key=True),
    sa.Column("recipient", sa.String(63), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
inbox = sa.Table(
    "inbox",
    metadata,
    # By sender too: whoever learns another's jti must not be able to use it up.
    sa.Column("sender", sa.String(63), primary_key=True),
    sa.Column("jti", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("expires_at", sa.Integer, nullable=False),
)

_KNOWN = Statement(
    sa.select(inbox.c.jti).where(inbox.c.sender == sa.bindparam("sender"), inbox.c.jti == sa.bindparam("jti"))
)
_TAKE_IN, _PUT_OUT = Statement(inbox.insert()), Statement(outbox.insert())
_ERASE = Statement(outbox.delete().where(outbox.c.jti == sa.bindparam("of")))

Publish = Callable[[str, str], None]


@dataclass
class _Waiting:
    topic: str
    text: str
    written_at: float
    expires_at: int
    due_at: float
    delay_s: float


class Mailbox:
    """One member's post: what must arrive, and what has arrived.

    Threads may share it: what waits is guarded by its own lock, what is stored by the caller's transaction.

    Args:
        engine: The store that holds the tables above.
        signer: Writes in our name.
        register: Gives the membership register of the moment.
        publish: Hands a topic and a text to the broker, or drops it when the line is down.
        clock: Seconds since the epoch.
        on_receipt: Hears the ``jti`` of each message of ours that arrived, for those who show progress.
    """

    def __init__(
        self,
        engine: sa.Engine,
        signer: Signer,
        register: Callable[[], Register],
        publish: Publish,
        *,
        clock: Clock = time.time,
        on_receipt: Callable[[str], None] = lambda _jti: None,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._register = register
        self._publish = publish
        self._clock = clock
        self._on_receipt = on_receipt
        self._lock = threading.RLock()
        self._waiting: dict[str, _Waiting] = {}
        self._settled: dict[str, sa.RootTransaction | None] = {}  # and the transaction that deleted its row
        self._load()

    # Sending

    def post(
        self,
        connection: sa.Connection,
        to: str,
        body: Body,
        *,
        in_reply_to: str | None = None,
        lifetime_s: int | None = None,
    ) -> Signed:
        """Put a durable message into the outbox, inside the caller's transaction.

        The caller hands the result to ``send`` once it has committed.

        Raises:
            FedWardError: MESSAGE_TOO_LARGE: no recipient would take it.
        """
        signed = self.sign(to, body, in_reply_to=in_reply_to, lifetime_s=lifetime_s)
        self._sweep(connection)
        _PUT_OUT.run(
            connection,
            jti=signed.envelope.jti,
            recipient=to,
            kind=body.kind,
            text=signed.text,
            expires_at=signed.envelope.expires_at,
            created_at=self._clock(),
        )
        return signed

    def send(self, signed: Signed) -> None:
        """Publish a posted message now, and again until its Receipt comes."""
        envelope = signed.envelope
        topic = _topic(envelope)
        now = time.monotonic()
        with self._lock:
            self._waiting[envelope.jti] = _Waiting(
                topic, signed.text, envelope.issued_at, envelope.expires_at, now + FIRST_REPEAT_S, FIRST_REPEAT_S
            )
        self._publish(topic, signed.text)

    def send_once(self, to: str, body: Body, *, in_reply_to: str | None = None) -> Signed:
        """Sign and publish a message that may be lost."""
        signed = self.sign(to, body, in_reply_to=in_reply_to)
        self.publish(signed)
        return signed

    def sign(self, to: str, body: Body, *, in_reply_to: str | None = None, lifetime_s: int | None = None) -> Signed:
        """A message that is to be recorded before it is published.

        Raises:
            FedWardError: MESSAGE_TOO_LARGE: no recipient would take it.
        """
        signed = self._signer.sign(to, body, in_reply_to=in_reply_to, lifetime_s=lifetime_s)
        if len(signed.text) > MAX_ENVELOPE_BYTES:
            raise FedWardError(
                f"The '{body.kind}' for '{to}' has {len(signed.text)} bytes; {MAX_ENVELOPE_BYTES} are allowed.",
                code=Code.MESSAGE_TOO_LARGE,
            )
        return signed

    def publish(self, signed: Signed) -> None:
        """Hand a signed message to the line, once; it may be lost."""
        self._publish(_topic(signed.envelope), signed.text)

    def repeat_all(self) -> None:
        """Publish everything that waits: the line is new, and the broker may have forgotten."""
        with self._lock:
            for waiting in self._waiting.values():
                waiting.delay_s = FIRST_REPEAT_S
                waiting.due_at = time.monotonic()
            self.repeat_due()

    def repeat_due(self) -> None:
        """Publish what waited long enough, and drop what has expired."""
        now = time.monotonic()
        with self._lock:
            self._forget([jti for jti, waiting in self._waiting.items() if waiting.expires_at < self._clock()])
            for waiting in self._waiting.values():
                if waiting.due_at <= now:
                    # Written while our clock was ahead: dated anew for this once, as now the clock may be behind.
                    is_ahead = waiting.written_at > self._clock() + CLOCK_LEEWAY_S
                    self._publish(waiting.topic, self._signer.redate(waiting.text) if is_ahead else waiting.text)
                    waiting.due_at = now + waiting.delay_s
                    waiting.delay_s = min(waiting.delay_s * 2, LAST_REPEAT_S)

    def next_due_s(self) -> float:
        """Seconds until something is to be repeated; a minute when nothing waits."""
        with self._lock:
            due_at = min((waiting.due_at for waiting in self._waiting.values()), default=None)
        return LAST_REPEAT_S if due_at is None else max(0.0, due_at - time.monotonic())

    def withdraw(self, jtis: Iterable[str]) -> None:
        """Stop sending messages that no longer matter; the caller has committed their ``erase``."""
        with self._lock:
            for jti in jtis:
                self._waiting.pop(jti, None)

    @property
    def waiting(self) -> int:
        """How many messages wait for their Receipt."""
        return len(self._waiting)

    # Receiving

    def open(self, arrived: Arrived) -> Envelope | None:
        """Check what arrived; Receipts and repeats are dealt with here.

        Returns:
            The envelope to act upon, or None when nothing is left to do.

        Raises:
            NewerMessageError: We cannot act upon it. Of one that must arrive (``is_durable``) the caller should tell
                its sender, who else goes on sending it; any other counts as refused.
            MessageRefusedError: Not a message that we accept; nothing was acted upon.
        """
        topic, newer = parse_topic(arrived.topic), None
        try:
            envelope = open_envelope(arrived.payload, self._register(), me=self._signer.member_id, clock=self._clock)
        except NewerMessageError as error:
            envelope, newer = error.envelope, error
        require_route(topic, to=envelope.to, sender=envelope.sender, kind=envelope.kind)
        if envelope.body.is_durable and self._is_known(envelope):
            self.acknowledge(envelope)
            return None
        if newer is not None:
            raise newer
        if isinstance(envelope.body, Receipt):
            self._settle(envelope.sender, envelope.body.received)
            return None
        return envelope

    def accept(self, connection: sa.Connection, envelope: Envelope) -> None:
        """Remember a durable message as received, inside the transaction that acts upon it."""
        _TAKE_IN.run(
            connection,
            sender=envelope.sender,
            jti=envelope.jti,
            kind=envelope.kind,
            expires_at=envelope.expires_at,
        )

    def acknowledge(self, envelope: Envelope) -> None:
        """Send the Receipt; the caller has committed."""
        self.send_once(envelope.sender, Receipt(received=envelope.jti), in_reply_to=envelope.jti)

    def forget_expired(self, connection: sa.Connection, *, slack_s: int = 3600) -> None:
        """Drop inbox rows whose messages could not act any more even with clocks an hour apart."""
        self._sweep(connection)
        connection.execute(inbox.delete().where(inbox.c.expires_at < self._clock() - slack_s))

    def _is_known(self, envelope: Envelope) -> bool:
        with self._engine.connect() as connection:
            return _KNOWN.first(connection, sender=envelope.sender, jti=envelope.jti) is not None

    def _settle(self, sender: str, jti: str) -> None:
        waiting = self._waiting.get(jti)
        if waiting is None:
            return
        if parse_topic(waiting.topic).to != sender:
            raise MessageRefusedError(f"'{sender}' sent a Receipt for a message that was not sent to it.")
        self._forget([jti])
        self._on_receipt(jti)

    def _forget(self, jtis: list[str]) -> None:
        # Deleted with the next post or the next housekeeping rather than at the price of a commit: a row that a crash
        # brings back is sent again, and answered with another Receipt.
        with self._lock:
            for jti in jtis:
                self._waiting.pop(jti, None)
                self._settled[jti] = None

    def _sweep(self, connection: sa.Connection) -> None:
        # This transaction may yet be undone: an id is forgotten when a later one finds no row of it.
        transaction = connection.get_transaction()
        with self._lock:
            settled = [jti for jti, swept_in in self._settled.items() if swept_in is not transaction]
        gone = {jti: not _ERASE.run(connection, of=jti).rowcount for jti in settled}
        with self._lock:
            self._settled |= dict.fromkeys(settled, transaction)
            self._settled = {jti: swept_in for jti, swept_in in self._settled.items() if not gone.get(jti)}

    def _load(self) -> None:
        now = time.monotonic()
        with self._engine.connect() as connection:
            for row in connection.execute(sa.select(outbox).order_by(outbox.c.created_at)):
                topic = str(Topic(row.recipient, self._signer.member_id, row.kind))
                times = row.created_at, row.expires_at
                self._waiting[row.jti] = _Waiting(topic, row.text, *times, now, FIRST_REPEAT_S)


def erase(connection: sa.Connection, jtis: Iterable[str]) -> None:
    """Delete messages that no longer matter from the outbox, in the caller's transaction; ``withdraw`` comes next."""
    for jti in jtis:
        _ERASE.run(connection, of=jti)


def _topic(envelope: Envelope) -> str:
    return str(Topic(envelope.to, envelope.sender, envelope.kind))
