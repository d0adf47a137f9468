"""Hands a member's request for a further certificate in to the authority, over its Unix socket.

We pass on and believe nothing: the authority checks the member's signature itself, and the member its certificate.
"""

from __future__ import annotations

import json
import socket
from http import HTTPStatus
from pathlib import Path
from typing import Any

from appliance.network.errors import NetworkError
from appliance.protocol.errors import Code

_PATIENCE_S = 20.0
_MAX_ANSWER_BYTES = 1 << 16


class CertificateRefusedError(NetworkError):
    """The authority said no, with its own reason."""

    code = Code.ENROLMENT_REFUSED
    status = HTTPStatus.FORBIDDEN


class AuthorityAbsentError(NetworkError):
    """The authority does not answer; it may later."""

    code = Code.NETWORK_UNREACHABLE
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("The transport authority does not answer.", remedy="Try again later, or tell the operator.")


def certificate_ask(path: Path, request: dict[str, Any]) -> str:
    """The further certificate, in PEM form.

    Raises:
        CertificateRefusedError: The authority refused.
        AuthorityAbsentError: It does not answer, or not as it should.
    """
    try:
        answer = json.loads(_exchange(path, json.dumps(request).encode()))
        if "certificate" in answer:
            return str(answer["certificate"])
        message, remedy = str(answer["message"]), str(answer["remedy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuthorityAbsentError from error
    raise CertificateRefusedError(message, remedy=remedy)


def _exchange(path: Path, asked: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_PATIENCE_S)
        line.connect(str(path))
        line.sendall(asked)
        line.shutdown(socket.SHUT_WR)
        heard = bytearray()
        while len(heard) <= _MAX_ANSWER_BYTES and (piece := line.recv(1 << 14)):
            heard += piece
    return bytes(heard)
