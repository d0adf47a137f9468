"""A real Mosquitto with the configuration that we write: who gets in, and who hears what."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from appliance.embedded.mosquitto import cache_folder, find_mosquitto
from appliance.network.broker import MAX_MESSAGE_BYTES, Broker, render_acl, render_config
from appliance.protocol.home import TlsFiles
from appliance.transport.tls import client_context
from tests.integration.network.hosts import Authority, wait_until

HOST = "127.0.0.1"


class Member:
    """One who connects with a certificate, and notes what it hears."""

    def __init__(self, name: str, port: int, tls: TlsFiles) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._answers: queue.Queue[object] = queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"{name}-1", protocol=paho.MQTTv311)
        self.client.tls_set_context(client_context(tls))
        self.client.on_message = lambda _client, _data, message: self.heard.put((message.topic, message.payload))
        self.client.on_connect = lambda *args: self._answers.put(args[3])
        self.client.on_subscribe = lambda *args: self._answers.put(args[2])
        self.client.on_publish = lambda *args: self._answers.put(args[2])
        self.client.connect(HOST, port)
        self.client.loop_start()
        assert not self._answers.get(timeout=20).is_failure

    def subscribe(self, topic: str) -> None:
        """Returns when the broker has answered."""
        self.client.subscribe(topic, qos=1)
        self._answers.get(timeout=20)

    def publish(self, topic: str, payload: bytes) -> None:
        """Returns when the broker has answered."""
        self.client.publish(topic, payload, qos=1)
        self._answers.get(timeout=20)

    def close(self) -> None:
        """Say goodbye."""
        self.client.disconnect()
        self.client.loop_stop()


class Running:
    """The broker, and those who are connected."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        with socket.create_server((HOST, 0)) as sock:
            self.port = sock.getsockname()[1]
        broker = Broker(
            hosts=(HOST,),
            port=self.port,
            tls=self.authority.files("network", host=HOST),
            acl_file=folder / "acl",
            store=folder,
            user="root" if os.geteuid() == 0 else None,
        )
        broker.acl_file.write_text(render_acl())
        broker.acl_file.chmod(0o600)
        (folder / "mosquitto.conf").write_text(render_config(broker))
        self.log = folder / "log"
        program = find_mosquitto(cache_folder())
        command, environment = [str(program.path), "-c", str(folder / "mosquitto.conf")], program.environment
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **environment})
        self.members: list[Member] = []
        wait_until(self._is_listening)

    def member(self, name: str) -> Member:
        """Connect as ``name``."""
        self.members.append(Member(name, self.port, self.authority.files(name)))
        return self.members[-1]

    def stop(self) -> None:
        """End everything."""
        for member in self.members:
            member.close()
        self.process.terminate()
        self.process.wait(timeout=20)

    def _is_listening(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex((HOST, self.port)) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Running]:
    """A fresh one for each test."""
    running = Running(tmp_path)
    yield running
    running.stop()


def test_a_message_reaches_whom_it_is_for(broker: Running) -> None:
    """The counterpart of the refusals below."""
    north, alice = broker.member("north"), broker.member("alice")
    north.subscribe("to/north/from/+/+")

    alice.publish("to/north/from/alice/ping", b"hello")

    assert north.heard.get(timeout=20) == ("to/north/from/alice/ping", b"hello")


def test_presence_reaches_everybody(broker: Running) -> None:
    """Heartbeats are addressed to the consortium."""
    north, alice = broker.member("north"), broker.member("alice")
    alice.subscribe("to/consortium/from/+/+")

    north.publish("to/consortium/from/north/heartbeat", b"here")

    assert alice.heard.get(timeout=20)[1] == b"here"


@pytest.mark.parametrize("topic", ["to/north/from/alice/ping", "to/consortium/from/alice/heartbeat", "elsewhere"])
def test_nobody_writes_in_anothers_name(topic: str, broker: Running) -> None:
    """A forbidden publication is acknowledged and dropped: only non-delivery shows it."""
    north, mallory = broker.member("north"), broker.member("mallory")
    north.subscribe("to/north/from/+/+")
    north.subscribe("to/consortium/from/+/+")

    mallory.publish(topic, b"forged")
    mallory.publish("to/north/from/mallory/ping", b"after")

    assert north.heard.get(timeout=20)[1] == b"after"
    assert north.heard.empty()


@pytest.mark.parametrize("filter_", ["to/north/from/+/+", "#", "to/+/from/+/+", "to/#", "$SYS/#"])
def test_nobody_hears_what_is_for_another(filter_: str, broker: Running) -> None:
    """A forbidden subscription is answered as granted, and then delivers nothing."""
    north, mallory, alice = broker.member("north"), broker.member("mallory"), broker.member("alice")
    north.subscribe("to/north/from/+/+")
    mallory.subscribe(filter_)
    mallory.subscribe("to/mallory/from/+/+")

    alice.publish("to/north/from/alice/ping", b"secret")
    north.heard.get(timeout=20)
    alice.publish("to/mallory/from/alice/ping", b"hers")

    assert mallory.heard.get(timeout=20)[1] == b"hers"
    assert b"secret" not in {payload for _, payload in mallory.heard.queue}


def test_a_message_beyond_the_limit_is_not_carried(broker: Running) -> None:
    """Large values go through the parameter store."""
    north, alice = broker.member("north"), broker.member("alice")
    north.subscribe("to/north/from/+/+")

    alice.client.publish("to/north/from/alice/ping", b"x" * (MAX_MESSAGE_BYTES + 1), qos=1)
    broker.member("south").publish("to/north/from/south/ping", b"small")

    assert north.heard.get(timeout=20)[1] == b"small"


def test_what_waits_survives_the_broker(broker: Running, tmp_path: Path) -> None:
    """With a store, a broker that is stopped properly keeps its sessions."""
    alice = broker.member("alice")
    alice.publish("to/north/from/alice/ping", b"x")
    broker.stop()
    broker.members.clear()

    assert (tmp_path / "mosquitto.db").exists()


def test_a_client_without_certificate_is_refused(broker: Running) -> None:
    """With TLS 1.3 the refusal comes at the first read."""
    context = ssl.create_default_context(cafile=str(broker.authority.ca))

    with pytest.raises((ssl.SSLError, ConnectionError)):
        hello(broker, context)


def test_tls_1_2_is_refused(broker: Running) -> None:
    """It would show the certificates to whoever listens."""
    files = broker.authority.files("north")
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises((ssl.SSLError, ConnectionError)):
        hello(broker, context)


def test_the_log_holds_no_payload(broker: Running) -> None:
    """The broker's log is read by people who may not read messages."""
    north, alice = broker.member("north"), broker.member("alice")
    north.subscribe("to/north/from/+/+")
    alice.publish("to/north/from/alice/ping", b"payload-text")
    north.heard.get(timeout=20)

    assert b"payload-text" not in broker.log.read_bytes()


def hello(broker: Running, context: ssl.SSLContext) -> Any:
    """A CONNECT packet, and whatever comes back."""
    with (
        socket.create_connection((HOST, broker.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as sock,
    ):
        sock.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab")
        answer = sock.recv(100)
        if not answer:
            raise ConnectionResetError
        return answer
