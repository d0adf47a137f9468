"""Notices by webhook: a JSON document in an HTTP POST, signed with HMAC-SHA256 (RFC 2104)."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import asdict
from http.client import HTTPConnection

from node_gui.notices.letter import Letter
from node_gui.notices.outward import PATIENCE_S, NotDeliveredError, Problem, line_to, trust
from node_gui.notices.settings import Webhook

VERSION = 1
TIMESTAMP, SIGNATURE = "FedWard-Timestamp", "FedWard-Signature"


def call_webhook(webhook: Webhook, letter: Letter) -> None:
    """Send a notice; returns once it was answered with 2xx. Redirects are not followed, proxies not asked.

    Raises:
        NotDeliveredError: It was not.
    """
    body = document(letter)
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "FedWard",
        TIMESTAMP: str(timestamp),
        SIGNATURE: f"sha256={signature(webhook.key, timestamp, body)}",
    }
    with line_to(webhook.host, webhook.port, only_here=not webhook.has_tls) as line:
        protected = trust().wrap_socket(line, server_hostname=webhook.host) if webhook.has_tls else line
        connection = HTTPConnection(webhook.host, webhook.port, timeout=PATIENCE_S)
        connection.sock = protected  # it opens none of its own
        connection.auto_open = 0
        try:
            connection.request("POST", webhook.target, body, headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    if not 200 <= status < 300:
        raise NotDeliveredError(Problem.REDIRECT if 300 <= status < 400 else Problem.REFUSED, status)


def document(letter: Letter) -> bytes:
    """A notice for machines, as it is signed."""
    text = asdict(letter)
    return json.dumps({"version": VERSION, **text}, ensure_ascii=False, separators=(",", ":")).encode()


def signature(key: str, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 over ``<timestamp>.<body>``, in hexadecimal digits: a notice that was caught cannot be dated anew."""
    return hmac.new(key.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
