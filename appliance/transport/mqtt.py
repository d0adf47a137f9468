"""The line to the broker: plain MQTT 3.1.1, TLS with our own certificate.

The link promises little on purpose: it connects again by itself and hands over what arrives. That nothing is lost
is the mailbox's promise, which rests on signed Receipts and not on the broker. So only messages that must arrive go
with QoS 1, by which the broker keeps them for a member that is away. The others, of which there are more, go with QoS 0
and spare both ends and the broker an acknowledgement on each line.
"""

from __future__ import annotations

import queue
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from appliance.protocol.home import Endpoint, TlsFiles
from appliance.protocol.messages import BODIES
from appliance.protocol.topics import inbox_filter, last_will_topic, presence_filter
from appliance.transport.tls import client_context

KEEPALIVE_S = 20
MAX_QUEUED = 10_000
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
DRAIN_AT_MOST = 100  # events, before the caller looks after its own business again
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


_Event = TypeVar("_Event")


class MqttLink:
    """A line to the broker that mends itself.

    Args:
        endpoint: Where the broker is.
        member_id: Our own member id; our certificate must carry the same name.
        client_id: A secret random text kept by the member: whoever knows it could end our session.
        tls: Our transport identity.
        hears_presence: Subscribe to everybody's heartbeats as well.
        events: Where arrivals and changes of the line are put, in their order.
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
        events: queue.SimpleQueue[Any],
        hears_presence: bool = False,
        keeps_session: bool = True,
    ) -> None:
        self._endpoint = endpoint
        self._events = events
        self._filters = [inbox_filter(member_id)] + [presence_filter()] * hears_presence
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv311,
            clean_session=not keeps_session,
        )
        client = self._client
        client.tls_set_context(client_context(tls))
        client.will_set(last_will_topic(member_id), b"", qos=0, retain=False)
        client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        client.max_queued_messages_set(MAX_QUEUED)  # counts those under way too; more is the mailbox's to repeat
        client.max_inflight_messages_set(200)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.on_message = self._on_message
        client.on_socket_open = _send_at_once

    def open(self) -> None:
        """Start to connect, in the background, until ``close``."""
        self._client.connect_async(self._endpoint.broker_host, self._endpoint.broker_port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def close(self) -> None:
        """Say goodbye to the broker and end the background thread."""
        with suppress(ValueError):
            self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_up(self) -> bool:
        """Whether the line stands at this moment."""
        return self._client.is_connected()

    def publish(self, topic: str, payload: str) -> None:
        """Hand a message to the broker if the line stands; the mailbox repeats what matters."""
        if self.is_up:
            qos = 1 if topic.rpartition("/")[2] in _MUST_ARRIVE else 0
            self._client.publish(topic, payload.encode("ascii"), qos=qos)

    def _on_connect(
        self, client: paho.Client, _userdata: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            _log.warning("broker refused the connection", reason=str(reason))
            return
        client.subscribe([(filter_, 1) for filter_ in self._filters])

    def _on_subscribe(self, *_: object) -> None:
        self._events.put(LinkUp())

    def _on_connect_fail(self, _client: paho.Client, _userdata: object) -> None:
        # Called while the error is handled. Of a certificate it says whether it is not yet valid, or no more.
        _log.warning("no line to the broker; trying again", reason=str(sys.exc_info()[1]))

    def _on_disconnect(
        self, _client: paho.Client, _userdata: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            _log.info("line to the broker broke", reason=str(reason))
        self._events.put(LinkDown())

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        self._events.put(Arrived(message.topic, bytes(message.payload)))


def drain(events: queue.SimpleQueue[_Event], timeout_s: float | None) -> Iterator[_Event]:
    """The next event, waiting up to ``timeout_s``, and those that wait behind it: so many that a flood leaves time."""
    try:
        yield events.get(timeout=timeout_s)
        for _ in range(DRAIN_AT_MOST - 1):
            yield events.get_nowait()
    except queue.Empty:
        return


def _send_at_once(_client: paho.Client, _userdata: object, sock: Any) -> None:
    # Without this a small message waits 40 ms for the one before to be acknowledged.
    with suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
