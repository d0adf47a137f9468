"""Notices by e-mail (SMTP, RFC 5321; STARTTLS, RFC 3207; sign-in, RFC 4954)."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Any

from node_gui.notices.letter import Letter
from node_gui.notices.outward import NotDeliveredError, Problem, line_to, trust
from node_gui.notices.settings import MailServer, Security


def send_mail(server: MailServer, letter: Letter, recipients: Sequence[str]) -> bool:
    """Send a notice; returns once the mail server has taken it, with whether it did so for every address.

    Raises:
        NotDeliveredError: It did for none.
    """
    message = compose(server.sender, letter, recipients)
    with line_to(server.host, server.port, only_here=server.security is Security.PLAIN) as line:
        try:
            refused = _talk(server, line, message, recipients)
        except smtplib.SMTPNotSupportedError:
            raise NotDeliveredError(Problem.SIGN_IN) from None  # there is no way to sign in that both know
        except smtplib.SMTPAuthenticationError as error:
            raise NotDeliveredError(Problem.SIGN_IN, error.smtp_code) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise NotDeliveredError(Problem.ADDRESSES, next(iter(error.recipients.values()))[0]) from None
        except smtplib.SMTPResponseException as error:
            if error.smtp_code < 0:  # it was no answer of a mail server's
                raise NotDeliveredError(Problem.BROKEN) from None
            raise NotDeliveredError(Problem.REFUSED, error.smtp_code) from None
    return not refused


def _talk(server: MailServer, line: socket.socket, message: EmailMessage, recipients: Sequence[str]) -> Any:
    """Hand the message over; returns the addresses that were refused."""
    if server.security is Security.TLS:
        line = trust().wrap_socket(line, server_hostname=server.host)
    smtp = _Conversation(server, line)
    try:
        if server.security is Security.STARTTLS:
            smtp.ehlo_or_helo_if_needed()
            if not smtp.has_extn("starttls"):
                raise NotDeliveredError(Problem.NO_TLS)  # somebody on the way may have taken it out
            smtp.starttls(context=trust())
        if server.user:
            smtp.login(server.user, server.password)
        refused = smtp.send_message(message, server.sender, list(recipients))
        with suppress(smtplib.SMTPException, OSError):  # it has the message: what it says now changes nothing
            smtp.quit()
    finally:
        smtp.close()
    return refused


def compose(sender: str, letter: Letter, recipients: Sequence[str]) -> EmailMessage:
    """The message; a line end in a header raises ValueError."""
    message = EmailMessage(SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = letter.subject
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=_domain(sender))
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office note comes back
    message.set_content(letter.text(), cte="quoted-printable")  # not every server takes eight bits
    return message


class _Conversation(smtplib.SMTP):
    """SMTP on a line that is open already."""

    def __init__(self, server: MailServer, line: socket.socket) -> None:
        self._line = line
        # Its own name is what it would else ask the network for, which may take minutes.
        super().__init__(server.host, server.port, local_hostname=_domain(server.sender))

    def _get_socket(self, _host: str, _port: int, _timeout: float) -> socket.socket:
        return self._line


def _domain(address: str) -> str:
    return address.rpartition("@")[2]
