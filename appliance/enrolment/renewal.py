"""The authority as a service: further certificates for members whose first one the operator let it issue.

The REST service hands requests in over a Unix socket and is not believed: a request carries its member's own signature,
which is checked against the register in the operator's signature. One connection, one question:

    {join request}                    ──►
    {"certificate": "PEM"}            ◄──  or {"code": …, "message": …, "remedy": …}
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from appliance.enrolment.authority import Authority, Issued
from appliance.enrolment.authority_home import AuthorityHome
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import MAX_DOCUMENT_CHARACTERS, JoinRequest, require_listed
from appliance.protocol.errors import ConfigurationError, FedWardError
from appliance.protocol.files import locked
from appliance.protocol.keys import thumbprint

RENEWALS_PER_DAY = 8  # for each member: a daily timer needs one in weeks
PATIENCE_S = 5.0
_FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)
_log = structlog.get_logger(__name__)


class RenewalDesk:
    """Answers requests for further certificates.

    Args:
        folder: The authority's folder.
        clock: The time, in UTC.
    """

    def __init__(self, folder: Path, clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> None:
        self._home = AuthorityHome(folder)
        self._authority = Authority.open(folder, self._home.register().consortium)
        self._clock = clock

    def renew(self, request: JoinRequest) -> str:
        """A further certificate, under the same names and for as long as the last.

        Raises:
            EnrolmentError: Not signed by an active member's identity key, never issued one before, or too often.
        """
        with locked(self._home.folder):
            require_listed(request, self._home.register())
            key = thumbprint(request.identity)
            earlier = [each for each in self._authority.issued() if (each.member, each.key) == (request.id, key)]
            self._require_moderate(request.id, earlier)
            last = earlier[-1]
            days = max(1, round((last.until - last.at) / dt.timedelta(days=1)))
            return self._authority.issue(
                request.csr, request.id, identity=request.identity, names=last.names, days=days
            )

    def _require_moderate(self, member_id: str, earlier: list[Issued]) -> None:
        if not earlier:
            raise EnrolmentError(
                f"'{member_id}' has had no certificate for these keys.",
                remedy="The operator issues the first one: 'fedward authority issue'.",
            )
        since = self._clock() - dt.timedelta(days=1)
        if sum(each.at > since for each in earlier) >= RENEWALS_PER_DAY:
            raise EnrolmentError(
                f"'{member_id}' had {RENEWALS_PER_DAY} certificates within a day.",
                remedy="Wait a day; if the member did not ask for them, tell the operator.",
            )


def inherited_socket() -> socket.socket:
    """The socket that systemd listens on for us (sd_listen_fds(3)); raises ConfigurationError if there is not one."""
    if os.environ.get("LISTEN_FDS") != "1" or os.environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        raise ConfigurationError(
            "No socket was handed over.", remedy="Let systemd start it: systemctl start fedward-authority.socket."
        )
    return socket.socket(fileno=_FIRST_DESCRIPTOR)


def serve(desk: RenewalDesk, listener: socket.socket) -> None:
    """Answer one connection after the other; returns when the listener is closed. One that is slow is dropped."""
    listener.settimeout(None)
    while True:
        try:
            line, _ = listener.accept()
        except OSError:
            return
        with line:
            line.settimeout(PATIENCE_S)
            try:
                line.sendall(_answer(desk, _read(line)))
            except OSError as error:
                _log.warning("a caller went away", reason=str(error))


def _read(line: socket.socket) -> bytes:
    """All that the caller says until it closes its side, or a little more than is allowed."""
    heard = bytearray()
    while len(heard) <= MAX_DOCUMENT_CHARACTERS and (piece := line.recv(1 << 16)):
        heard += piece
    return bytes(heard)


def _answer(desk: RenewalDesk, asked: bytes) -> bytes:
    try:
        request = JoinRequest.read(asked.decode("utf-8", "replace"))
        said = {"certificate": desk.renew(request)}
        _log.info("certificate renewed", member=request.id)
    except FedWardError as error:
        said = {"code": str(error.code), "message": error.message, "remedy": error.remedy}
        _log.warning("renewal refused", reason=error.message)
    except OSError as error:
        broken = EnrolmentError(f"The authority could not write: {error.strerror}.", remedy="Tell the operator.")
        said = {"code": str(broken.code), "message": broken.message, "remedy": broken.remedy}
        _log.error("renewal failed", reason=str(error))
    return json.dumps(said).encode()
