"""A broker that does what a test says, packet by packet: as much MQTT 3.1.1 as it takes to say it."""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass

from appliance.protocol.home import TlsFiles
from appliance.transport.mqtt import Event, MqttLink

HOST = "127.0.0.1"
WAIT_S = 20.0
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, DISCONNECT = 1, 3, 4, 8, 14


@dataclass(frozen=True)
class Packet:
    """What a member sent."""

    head: int
    body: bytes

    @property
    def kind(self) -> int:
        """The packet type of the standard."""
        return self.head >> 4

    @property
    def is_repeat(self) -> bool:
        """Of a PUBLISH: it was sent before."""
        return bool(self.head & 8)

    @property
    def payload(self) -> bytes:
        """Of a PUBLISH."""
        topic = struct.unpack_from(">H", self.body)[0]
        return self.body[2 + topic + (2 if self.head & 6 else 0) :]


class ScriptedBroker:
    """Waits for members; what then happens on each line is the test's to say."""

    def __init__(self, tls: TlsFiles) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(tls.certificate, tls.key)
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(WAIT_S)
        self._lines: list[Line] = []
        self.port: int = self._listener.getsockname()[1]

    def accept(self) -> Line:
        """The next line that a member opens; it has said CONNECT."""
        raw, _ = self._listener.accept()
        raw.settimeout(WAIT_S)
        line = Line(self._context.wrap_socket(raw, server_side=True))
        self._lines.append(line)
        assert line.read().kind == CONNECT
        return line

    def welcome(self) -> Line:
        """The next line, accepted and subscribed."""
        line = self.accept()
        line.send(b"\x20\x02\x00\x00")
        line.confirm(line.read())
        return line

    def close(self) -> None:
        """Break every line."""
        self._listener.close()
        for line in self._lines:
            line.close()


class Line:
    """One member's line, seen from the broker."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def send(self, packets: bytes) -> None:
        """Send bytes, in one piece."""
        self._sock.sendall(packets)

    def confirm(self, subscribe: Packet) -> None:
        """Answer a SUBSCRIBE to one topic."""
        assert subscribe.kind == SUBSCRIBE
        self.send(b"\x90\x03" + subscribe.body[:2] + b"\x01")

    def read(self) -> Packet:
        """The next packet that the member sent."""
        head, size, shift = self._exactly(1)[0], 0, 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return Packet(head, self._exactly(size))

    def close(self) -> None:
        """Break the line."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._sock.recv(min(size - len(data), 1 << 16))
            assert part, "the member broke the line"
            data += part
        return bytes(data)


def delivery(topic: bytes, payload: bytes) -> bytes:
    """A PUBLISH of fewer than 128 bytes, with QoS 0."""
    body = struct.pack(">H", len(topic)) + topic + payload
    assert len(body) < 128
    return bytes([PUBLISH << 4, len(body)]) + body


class Owner:
    """The thread that owns a link, and what it received."""

    def __init__(self, link: MqttLink) -> None:
        self._link = link
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def next(self) -> Event:
        """The next event."""
        return self._heard.get(timeout=WAIT_S)

    def close(self) -> None:
        """Close the link; returns when that is done."""
        self._is_over.set()
        self._link.wake()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._link.open()
        while not self._is_over.is_set():
            for event in self._link.receive(WAIT_S):
                self._heard.put(event)
        self._link.close()
