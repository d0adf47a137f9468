"""The connections that the GUI opens: to the mail server and the webhook that an administrator named, no others."""

from __future__ import annotations

import ipaddress
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from http.client import HTTPException

PATIENCE_S = 10.0  # for each answer
LIMIT_S = 30.0  # for all of a conversation


class Problem(StrEnum):
    """Why a notice did not arrive. What the other end said of it is a stranger's text, and is kept nowhere."""

    UNREACHABLE = "unreachable"
    NOT_HERE = "not-here"
    CERTIFICATE = "certificate"
    BROKEN = "broken"
    NO_TLS = "no-tls"
    SIGN_IN = "sign-in"
    ADDRESSES = "addresses"
    REFUSED = "refused"
    REDIRECT = "redirect"


class NotDeliveredError(Exception):
    """A notice did not arrive.

    Attributes:
        status: What the other end answered, as a number.
    """

    def __init__(self, problem: Problem, status: int | None = None) -> None:
        super().__init__(problem.value)
        self.problem, self.status = problem, status


@contextmanager
def line_to(host: str, port: int, *, only_here: bool) -> Iterator[socket.socket]:
    """A connection, cut after ``LIMIT_S`` whatever is still said on it.

    Args:
        only_here: Whether the other end must be on this machine: without TLS everybody on the way reads along.

    Raises:
        NotDeliveredError: Nobody answers, the certificate does not fit, or the line breaks while it is used.
    """
    try:
        line = socket.create_connection((host, port), timeout=PATIENCE_S)
    except (OSError, UnicodeError) as error:
        raise NotDeliveredError(Problem.UNREACHABLE) from error
    # A second descriptor of the connection, which stays when TLS takes the first one over.
    with line, line.dup() as cutter:
        if only_here and not ipaddress.ip_address(line.getpeername()[0]).is_loopback:
            raise NotDeliveredError(Problem.NOT_HERE)
        timer = threading.Timer(LIMIT_S, _cut, [cutter])
        timer.daemon = True
        timer.start()
        try:
            yield line
        except ssl.SSLCertVerificationError as error:
            raise NotDeliveredError(Problem.CERTIFICATE) from error
        except (OSError, HTTPException, smtplib.SMTPException, ValueError) as error:
            raise NotDeliveredError(Problem.BROKEN) from error
        finally:
            timer.cancel()
            timer.join()


def trust() -> ssl.SSLContext:
    """Whom TLS lines trust: the authorities of this machine, and the name that was entered."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _cut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
