"""Whether broker and REST service answer this member, over TLS 1.3 with its own certificate."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from appliance.doctor import clock
from appliance.doctor.finding import AS_ROOT, Finding, State, UnknowableError
from appliance.doctor.host import Host, Kind, is_there
from appliance.doctor.itself import own_version
from appliance.protocol.home import Endpoint, TlsFiles

LIMIT_S = 4.0
_MAX_BYTES = 4096
_ACCEPTED = b"\x20\x02\x00\x00"  # CONNACK, no session, accepted (MQTT 3.1.1, section 3.2)
_DISCONNECT = b"\xe0\x00"
_OURS = "Ask the operator whether this member is active, and its certificate in date and not revoked."
_TOPIC = "services"


def check(host: Host) -> Iterator[Finding]:
    """Each endpoint in member.toml, in its order."""
    if host.home is None or host.member is None:
        if host.kind in (Kind.NOTHING, Kind.OPERATOR):
            return
        if closed := host.closed():
            raise UnknowableError(f"{closed} is closed to this user", AS_ROOT)
        raise UnknowableError("this host has no member.toml that can be read: it has not joined", "Run the playbook.")
    context = _context(TlsFiles(host.home / "tls/ca.pem", host.home / "tls/cert.pem", host.home / "tls/key.pem"))
    for endpoint in host.endpoints:
        yield from _rest(endpoint, context)
        yield _broker(endpoint, context)


def _context(files: TlsFiles) -> ssl.SSLContext:
    if is_there(files.key) and not os.access(files.key, os.R_OK):
        raise UnknowableError("this member's key is closed to this user", AS_ROOT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    files.load_into(context)
    return context


def _rest(endpoint: Endpoint, context: ssl.SSLContext) -> Iterator[Finding]:
    parts = urlsplit(endpoint.rest_url)
    name = f"REST {parts.netloc}"
    line = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=LIMIT_S, context=context)
    try:
        line.request("GET", "/api/v1/health")
        answer = line.getresponse()
        body = answer.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        yield _failed(name, error)
        return
    finally:
        line.close()
    if answer.status != http.HTTPStatus.OK:
        because = f"answers {answer.status} {answer.reason}"
        yield Finding(_TOPIC, name, State.FAILED, because, "Ask the operator: the line is good, the service is not.")
        return
    yield _version(name, body)
    if date := answer.headers.get("Date"):
        yield clock.against_hub(parsedate_to_datetime(date).timestamp() - time.time())


def _version(name: str, body: bytes) -> Finding:
    try:
        theirs = str(json.loads(body)["version"])[:40]
    except (ValueError, KeyError, TypeError):
        return Finding(_TOPIC, name, State.WEAKER, "something answers that is no network host of ours")
    because = f"answers over TLS 1.3; its version is {theirs}"
    if theirs.split(".")[:2] == own_version().split(".")[:2]:
        return Finding(_TOPIC, name, State.OK, because)
    return Finding(_TOPIC, name, State.WEAKER, f"{because}, this host's {own_version()}", "Upgrade the older one.")


def _broker(endpoint: Endpoint, context: ssl.SSLContext) -> Finding:
    """A session of our own that is gone at once: the warden's, under another client id, notices nothing."""
    name = f"broker {endpoint.broker_host}:{endpoint.broker_port}"
    address = (endpoint.broker_host, endpoint.broker_port)
    try:
        with (
            socket.create_connection(address, timeout=LIMIT_S) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.broker_host) as line,
        ):
            line.sendall(_connect(f"doctor-{secrets.token_hex(4)}"))
            answer = line.recv(len(_ACCEPTED))
            line.sendall(_DISCONNECT)
    except OSError as error:
        return _failed(name, error)
    if answer == _ACCEPTED:
        return Finding(_TOPIC, name, State.OK, "accepts this member over TLS 1.3")
    return Finding(_TOPIC, name, State.FAILED, "refuses this member", _OURS)


def _connect(client_id: str) -> bytes:
    """CONNECT with a clean session and 10 s of keep-alive (MQTT 3.1.1, section 3.1)."""
    payload = len(client_id).to_bytes(2, "big") + client_id.encode("ascii")
    body = b"\x00\x04MQTT\x04\x02\x00\x0a" + payload
    return bytes([0x10, len(body)]) + body


def _failed(name: str, error: Exception) -> Finding:
    match error:
        case ssl.SSLCertVerificationError():
            because = f"its certificate is not accepted: {error.verify_message}"
            remedy = "Compare this machine's clock and tls/ca.pem with the operator's; no proxy may stand in between."
        case ssl.SSLError():
            because, remedy = f"TLS failed: {error.reason or error}", _OURS
        case ConnectionResetError() | BrokenPipeError():  # a refusal that what we had sent already overtook
            because, remedy = "it cut the line after the handshake", _OURS
        case TimeoutError():
            because, remedy = f"no answer within {LIMIT_S:g} s", "See the tunnel above; 'fedward vpn status' says more."
        case _:
            because = f"no answer: {getattr(error, 'strerror', None) or error or type(error).__name__}"
            remedy = "See the tunnel above; if it is up, ask the operator whether the hub's services run."
    return Finding(_TOPIC, name, State.FAILED, because, remedy)
