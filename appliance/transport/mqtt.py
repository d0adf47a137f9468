"""The line to the broker: plain MQTT 3.1.1, TLS with our own certificate.

The link promises little on purpose: it connects again by itself and hands over what arrives. That nothing is lost
is the mailbox's promise, which rests on signed Receipts and not on the broker. So only messages that must arrive go
with QoS 1, by which the broker keeps them for a member that is away. The others, of which there are more, go with QoS 0
and spare both ends and the broker an acknowledgement on each line.

What arrives is read by the thread that acts upon it: one in between costs a hand-over for each message, in and out. So
paho's own loop is not used, and its client is called under one lock, but for the making of a new line, which may take
seconds and has a thread for as long as it takes.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from appliance.protocol.home import Endpoint, TlsFiles
from appliance.protocol.messages import BODIES
from appliance.protocol.topics import inbox_filter, last_will_topic, presence_filter
from appliance.transport.tls import ClientContexts

KEEPALIVE_S = 20
MAX_QUEUED = 10_000
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
CLOSE_S = 2.0
LOOK_AFTER_S = KEEPALIVE_S / 10  # how often a silent line is asked for signs of life
RECEIVE_AT_MOST = 100  # events, before the caller looks after its own business again
_MUST_ARRIVE = frozenset(kind for kind, body in BODIES.items() if body.is_durable)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Arrived:
    """A message as it came in, not yet checked."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class LinkUp:
    """The line stands, and what we subscribe to is subscribed."""


@dataclass(frozen=True)
class LinkDown:
    """The line broke; the link is trying again."""


Event = Arrived | LinkUp | LinkDown


class MqttLink:
    """A line to the broker that mends itself.

    One thread owns it: opens it, receives, and closes it. Any thread may publish, and wake the owner.

    Args:
        endpoint: Where the broker is.
        member_id: Our own member id; our certificate must carry the same name.
        client_id: A secret random text kept by the member: whoever knows it could end our session.
        tls: Our transport identity.
        hears_presence: Subscribe to everybody's heartbeats as well.
        keeps_session: Ask the broker to keep what arrives while we are away. Not for a client id that lives as long
            as its process: nobody would ever fetch what is kept.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        member_id: str,
        client_id: str,
        tls: TlsFiles,
        hears_presence: bool = False,
        keeps_session: bool = True,
    ) -> None:
        self._filters = [inbox_filter(member_id)] + [presence_filter()] * hears_presence
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv311,
            clean_session=not keeps_session,
            reconnect_on_failure=False,  # ours to do: paho would connect in the thread that reads
        )
        client = self._client
        self._contexts = ClientContexts(tls)
        client.tls_set_context(self._contexts.current)
        client.will_set(last_will_topic(member_id), b"", qos=0, retain=False)
        client.max_queued_messages_set(MAX_QUEUED)  # counts those under way too; more is the mailbox's to repeat
        client.max_inflight_messages_set(200)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = _send_at_once
        client.connect_async(endpoint.broker_host, endpoint.broker_port, keepalive=KEEPALIVE_S)
        self._lock = threading.Lock()  # the client is whose holds it, or the connector's while that runs
        self._events: deque[Event] = deque()
        self._line: Any = None  # the socket, from its handshake on until it broke
        self._is_closing = threading.Event()
        self._connector: threading.Thread | None = None
        self._pause_s = 0.0
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)

    def open(self) -> None:
        """Start to connect, in the background, until ``close``."""
        self._connector = threading.Thread(target=self._connect, name="fedward-connect", daemon=True)
        self._connector.start()

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._is_closing.set()
        if self._connector is not None:
            self._connector.join()
        with self._lock:
            if self._line is not None:
                line, number = self._line, self._line.fileno()
                self._client.disconnect()
                self._write_out(number)
                line.close()
        self._waker.close()
        self._woken.close()

    @property
    def is_up(self) -> bool:
        """Whether the line stands at this moment."""
        return self._line is not None and self._client.is_connected()

    def publish(self, topic: str, payload: str) -> None:
        """Hand a message to the broker if the line stands; the mailbox repeats what matters."""
        with self._lock:
            if not self.is_up:
                return
            qos = 1 if topic.rpartition("/")[2] in _MUST_ARRIVE else 0
            try:
                self._client.publish(topic, payload.encode("ascii"), qos=qos)
            except BaseException:  # Ctrl-C in the midst of a packet: what follows would be taken for its rest
                self._break()
                raise
            is_left = self._line is None or self._client.want_write()
        if is_left:  # the owner waits for another line, or only for what comes in
            self.wake()

    def wake(self) -> None:
        """End the owner's wait in ``receive``; a signal handler may call it too."""
        with suppress(OSError):  # full: it is being woken already; closed: nobody waits any more
            self._waker.send(b"\0")

    def receive(self, timeout_s: float) -> Iterator[Event]:
        """What happens, in its order, waiting up to ``timeout_s`` for the first: so many that a flood leaves time.

        Each is yielded before the next is looked for. Nothing may come before the time is over: the owner was woken.
        """
        for number in range(RECEIVE_AT_MOST):
            if not self._events:
                self._attend(0.0 if number else timeout_s)
            if not self._events:
                return
            yield self._events.popleft()

    # The owner's side

    def _attend(self, timeout_s: float) -> None:
        """Wait until the line has something, or ``wake`` is called, and do what the line needs."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        with self._lock:
            line, number, has_more = self._line, -1, False
            if line is not None:
                number, has_more = line.fileno(), line.pending() > 0  # deciphered already: no poll tells of it
                poll.register(number, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if line is None and not self._is_connecting:
            self.open()
        ready = {fd for fd, _ in poll.poll(0 if has_more else 1000 * min(timeout_s, LOOK_AFTER_S))}
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        with self._lock:
            if line is not None and line is self._line:
                self._serve(is_readable=has_more or number in ready)

    def _serve(self, *, is_readable: bool) -> None:
        try:
            if is_readable:
                self._client.loop_read()
            if self._client.want_write():
                self._client.loop_write()
            if not is_readable:  # else the sign of life that it misses may lie there unread
                self._client.loop_misc()
        except Exception:  # noqa: BLE001 - whatever comes from there, the next line is made
            _log.exception("what came from the broker cannot be read")
            self._break()

    def _write_out(self, number: int) -> None:
        """What was handed over, and the goodbye, as far as a slow line takes them in a moment."""
        poll, deadline = select.poll(), time.monotonic() + CLOSE_S
        poll.register(number, select.POLLOUT)
        while self._client.want_write() and poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            if self._client.loop_write() != paho.MQTT_ERR_SUCCESS:
                return

    # While there is no line

    @property
    def _is_connecting(self) -> bool:
        return self._connector is not None and self._connector.is_alive()

    def _connect(self) -> None:
        while not self._is_closing.wait(self._pause_s):
            self._pause_s = min(max(RECONNECT_MIN_S, 2 * self._pause_s), RECONNECT_MAX_S)
            if (renewed := self._contexts.renewed()) is not None:
                self._client._ssl_context = renewed  # noqa: SLF001 - paho takes one by its method only once
            try:
                self._client.reconnect()
            except (OSError, ValueError) as error:
                # Of a certificate it says whether it is not yet valid, or no more.
                _log.warning("no line to the broker; trying again", reason=str(error))
                continue
            self._line = self._client.socket()
            if self._line is not None:  # else it broke at once
                self.wake()
                return

    def _break(self) -> None:
        if self._line is not None:
            self._line.close()
            self._fall()

    def _fall(self) -> None:
        self._line = None
        self._events.append(LinkDown())

    # What paho calls, while the lock is held or by the connector

    def _on_connect(
        self, client: paho.Client, _userdata: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            _log.warning("broker refused the connection", reason=str(reason))
            return
        self._pause_s = RECONNECT_MIN_S
        client.subscribe([(filter_, 1) for filter_ in self._filters])

    def _on_subscribe(self, *_: object) -> None:
        self._events.append(LinkUp())

    def _on_disconnect(
        self, _client: paho.Client, _userdata: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            _log.info("line to the broker broke", reason=str(reason))
        self._fall()

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        self._events.append(Arrived(message.topic, bytes(message.payload)))


def _send_at_once(_client: paho.Client, _userdata: object, sock: Any) -> None:
    # Without this a small message waits 40 ms for the one before to be acknowledged.
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
