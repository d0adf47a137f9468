"""A line to the broker that does what its holder wants, not what our own client would do."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from appliance.protocol.envelope import MESSAGE_TYPE, Envelope, Signer, open_envelope
from appliance.protocol.errors import MessageRefusedError
from appliance.protocol.home import Endpoint, MemberHome, TlsFiles
from appliance.protocol.jose import sign_text, write_json
from appliance.protocol.messages import Body, Receipt
from appliance.protocol.register import Register, key_id
from appliance.protocol.topics import Topic, inbox_filter
from appliance.transport.mqtt import Arrived
from appliance.transport.tls import client_context

WAIT_S = 60.0


class Post:
    """A connection with a member's certificate. MQTT 5, for there the broker says what it refuses."""

    def __init__(self, endpoint: Endpoint, tls: TlsFiles, client_id: str | None = None, *, keeps: bool = False) -> None:
        self._changed = threading.Condition()
        self._answers: dict[int, list[str]] = {}
        self.heard: list[Arrived] = []
        self.was_cut = threading.Event()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or secrets.token_hex(16),
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.tls_set_context(client_context(tls))
        client.on_connect = lambda *_: self._note(0, "connected")
        client.on_publish = lambda _c, _u, mid, reason, _p: self._note(mid, str(reason))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._note(mid, str(reasons[0]))
        client.on_disconnect = lambda *_: self.was_cut.set()
        client.on_message = self._on_message
        client.connect(endpoint.broker_host, endpoint.broker_port, clean_start=not keeps)
        client.loop_start()
        self._answer(0)

    def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: str | bytes) -> str:
        """The broker's word on it: ``Success`` or ``Not authorized``, among others."""
        return self._answer(self._client.publish(topic, payload, qos=1).mid)

    def subscribe(self, *filters: str) -> None:
        """Returns when the broker has answered, whatever it said: only deliveries tell."""
        for filter_ in filters:
            mid = self._client.subscribe(filter_, qos=1)[1]
            assert mid is not None
            self._answer(mid)

    def hear(self, is_it: Callable[[Arrived], bool]) -> Arrived:
        """The first arrival of that kind, past ones included."""
        found: list[Arrived] = []

        def is_here() -> bool:
            found[:] = [arrived for arrived in self.heard if is_it(arrived)]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(is_here, WAIT_S), [arrived.topic for arrived in self.heard]
        return found[0]

    def _answer(self, mid: int) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: mid in self._answers, WAIT_S), "the broker did not answer"
            return self._answers[mid][-1]

    def _note(self, mid: int, said: str) -> None:
        with self._changed:
            self._answers.setdefault(mid, []).append(said)
            self._changed.notify_all()

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.heard.append(Arrived(message.topic, bytes(message.payload)))
            self._changed.notify_all()


class Person:
    """Someone with keys and a certificate, who says what they want and hears the answers."""

    def __init__(self, home: MemberHome, register: Register) -> None:
        self.id = home.member_id
        self.home = home
        self.keys = home.keys()
        self.signer = Signer(self.id, self.keys)
        self.endpoint = home.settings.endpoints[0]
        self._register = register
        self.post = Post(self.endpoint, home.tls)
        self.post.subscribe(inbox_filter(self.id))

    def close(self) -> None:
        """Leave."""
        self.post.close()

    def forged(self, to: str, body: Body, **changes: object) -> str:
        """A message with claims of one's own choice, in one's own signature; None takes a claim out."""
        now = int(time.time())
        claims: dict[str, object] = {
            "v": "1.0",
            "jti": secrets.token_hex(16),
            "to": to,
            "kind": body.kind,
            "iat": now,
            "exp": now + 60,
            "re": None,
            "body": body.model_dump(mode="json"),
        }
        return self.signed(write_json(claims | changes))

    def signed(self, payload: str) -> str:
        """Any text in one's own signature."""
        kid = key_id(self.id, self.keys.public.identity)
        return sign_text(payload, self.keys, typ=MESSAGE_TYPE, kid=kid)

    def send(self, to: str, kind: str, text: str | bytes) -> str:
        """Publish on one's own topic."""
        return self.post.publish(str(Topic(to, self.id, kind)), text)

    def ask(self, to: str, body: Body) -> Envelope:
        """Say something properly and hear the answer, with a Receipt for it."""
        signed = self.signer.sign(to, body)
        assert self.send(to, body.kind, signed.text) == "Success"
        return self.answer_to(signed.envelope.jti)

    def answer_to(self, jti: str) -> Envelope:
        """What was answered to a message, other than a Receipt."""
        answers: list[Envelope] = []

        def is_answer(arrived: Arrived) -> bool:
            try:
                envelope = open_envelope(arrived.payload, self._register, me=self.id)
            except MessageRefusedError:
                return False
            if envelope.in_reply_to != jti or isinstance(envelope.body, Receipt):
                return False
            answers.append(envelope)
            return True

        self.post.hear(is_answer)
        if answers[0].body.is_durable:
            receipt = self.signer.sign(answers[0].sender, Receipt(received=answers[0].jti))
            self.send(answers[0].sender, Receipt.kind, receipt.text)
        return answers[0]
