"""What is told to whom, and by which way. What an administrator enters is checked here, wherever it comes from."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from flask_babel import gettext
from flask_babel import lazy_gettext as _

from appliance.protocol.errors import FedWardError
from node_gui.forms import invalid

ADDRESSES_MOST = 10
KEY_LEAST, SECRET_MOST = 32, 256
_URL_MOST = 2000
# A valid e-mail address as the HTML standard has it (4.10.5.1.5), which browsers check by, too.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PRINTABLE = re.compile(r"[!-~]+")


class Kind(StrEnum):
    """What a notice is about. There is one notice a kind at a time, however much happened."""

    PLANS = "plans"
    FAILURES = "failures"
    ALERTS = "alerts"
    ENDINGS = "endings"
    APPROVAL_OFF = "approval-off"
    NODE_DOWN = "node-down"


KIND_NAMES = {
    Kind.PLANS: _("A training plan waits for review"),
    Kind.FAILURES: _("A round failed"),
    Kind.ALERTS: _("A dataset's files changed, the disk is nearly full, or the line to the network host is down"),
    Kind.ENDINGS: _("An approval, a permission or a certificate ends within 14 days, or has ended"),
    Kind.APPROVAL_OFF: _("Plan approval was switched off"),
    Kind.NODE_DOWN: _("The node does not answer"),
}


class Channel(StrEnum):
    """A way by which notices go."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class Security(StrEnum):
    """How the line to the mail server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    PLAIN = "plain"


@dataclass(frozen=True)
class MailServer:
    """The hospital's mail server.

    Attributes:
        sender: The address in whose name notices are sent.
        user: Whom to sign in as; empty: nobody.
        password: Fits this server and user alone.

    Raises:
        FedWardError: ARGUMENT_INVALID: a field cannot be used as it is.
    """

    host: str
    port: int
    security: Security
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        _require_host(self.host)
        if not 0 < self.port < 65536:
            raise invalid(gettext("A port is a number from 1 to 65535."), gettext("Mail servers use 587, 465 or 25."))
        if self.security not in set(Security):
            raise invalid(gettext("There is no such protection."), gettext("Choose one of the list."))
        if self.security == Security.PLAIN and not is_here(self.host):
            raise invalid(
                gettext("Without TLS notices go to a mail server on this machine only."),
                gettext("Choose STARTTLS or TLS, or enter localhost as the server."),
            )
        require_address(self.sender)
        for text in (self.user, self.password):
            if text and (len(text) > SECRET_MOST or not (text.isascii() and text.isprintable())):
                raise invalid(
                    gettext("User name and password hold at most 256 letters, digits and signs, no accented ones."),
                    gettext("Ask for an account of the mail server with such a name and password."),
                )
        if bool(self.user) != bool(self.password):
            raise invalid(
                gettext("User name and password belong together; one is missing."),
                gettext("Enter both. A password is kept only for the server and the user that it was entered for."),
            )

    def is_same(self, other: MailServer | None) -> bool:
        """Whether a password of one may be sent to the other."""
        mine = (self.host, self.port, self.security, self.user)
        return other is not None and mine == (other.host, other.port, other.security, other.user)


@dataclass(frozen=True)
class Webhook:
    """An address of the hospital's that takes notices as JSON.

    Attributes:
        url: May hold a secret in its path, as many such addresses do: it is shown by its ``origin`` alone.
        key: What notices are signed with; fits this address alone.

    Raises:
        FedWardError: ARGUMENT_INVALID: a field cannot be used as it is.
    """

    url: str = field(repr=False)
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = self._split()
        if parts.scheme != "https" and not (parts.scheme == "http" and is_here(parts.hostname or "")):
            raise invalid(
                gettext("The webhook's address must begin with https://; plain http:// goes to this machine only."),
                gettext("Ask whoever runs the webhook for its address with https."),
            )
        if not (KEY_LEAST <= len(self.key) <= SECRET_MOST and self.key.isascii() and self.key.isprintable()):
            raise invalid(
                gettext("The signing key must have 32 to 256 letters, digits and signs, no accented ones."),
                gettext(
                    "'openssl rand -hex 32' makes a good one. A key is kept only for the address it was entered for."
                ),
            )

    @property
    def host(self) -> str:
        """The name to connect to."""
        return str(self._split().hostname)

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self._split().port or (443 if self.has_tls else 80)

    @property
    def has_tls(self) -> bool:
        """False on this machine alone."""
        return self._split().scheme == "https"

    @property
    def target(self) -> str:
        """What is asked for there."""
        parts = self._split()
        return f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"

    @property
    def origin(self) -> str:
        """The address without what may be secret."""
        parts = self._split()
        return f"{parts.scheme}://{parts.netloc}"

    def _split(self) -> SplitResult:
        refusal = invalid(
            gettext("This is no address that notices can be sent to."),
            gettext("Write it as https://host.example/path, without user name, password or #."),
        )
        if len(self.url) > _URL_MOST or not _PRINTABLE.fullmatch(self.url) or set(self.url) & set("\\#@<>\"'"):
            raise refusal
        try:
            parts = urlsplit(self.url)
            has_port = parts.port != 0
        except ValueError:
            raise refusal from None
        if not has_port or not parts.hostname:
            raise refusal
        _require_host(parts.hostname)
        return parts


@dataclass(frozen=True)
class Settings:
    """What an administrator chose.

    Attributes:
        revision: Counts the changes.
        since: When something was chosen for the first time (seconds since the epoch): no older failure is told.
        reviewers: The e-mail addresses that are told of plans.
        others: Those that are told of all else.
    """

    revision: int = 0
    since: float = 0.0
    language: str = "en"
    kinds: frozenset[Kind] = frozenset(Kind)
    reviewers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    mail: MailServer | None = None
    webhook: Webhook | None = None

    def __post_init__(self) -> None:
        for address in (*self.reviewers, *self.others):
            require_address(address)
        if max(len(self.reviewers), len(self.others)) > ADDRESSES_MOST:
            raise invalid(
                gettext("At most 10 addresses can be told."), gettext("Use a mailing list of the hospital's for more.")
            )

    def recipients(self, kind: Kind) -> tuple[str, ...]:
        """Who is told of it by e-mail."""
        return self.reviewers if kind is Kind.PLANS else self.others

    def ways(self, kind: Kind) -> list[Channel]:
        """By which ways it is told."""
        if kind not in self.kinds:
            return []
        by_mail = self.mail is not None and self.recipients(kind)
        return ([Channel.EMAIL] if by_mail else []) + ([Channel.WEBHOOK] if self.webhook is not None else [])


def addresses(text: str) -> tuple[str, ...]:
    """The e-mail addresses in a text, each once; between them blanks, commas, semicolons or line ends.

    Raises:
        FedWardError: One is none.
    """
    found = tuple(dict.fromkeys(re.split(r"[\s,;]+", text.strip()))) if text.strip() else ()
    for address in found:
        require_address(address)
    return found


def require_address(address: str) -> None:
    """Raise FedWardError unless this is an e-mail address, in letters that every mail server takes."""
    if len(address) > 254 or not _ADDRESS.fullmatch(address):
        raise invalid(
            gettext("“%(address)s” is no e-mail address.", address=address[:60]),
            gettext("Write it as anna.weiss@hospital.example."),
        )


def is_here(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _require_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # All digits and dots would be read as an address by some, in ways that differ.
        is_number = host.rpartition(".")[2].isdigit() or host.lower().startswith("0x")
        if len(host) > 253 or is_number or not _HOST.fullmatch(host):
            raise _no_host(host) from None


def _no_host(host: str) -> FedWardError:
    return invalid(
        gettext("“%(host)s” is no name of a server.", host=host[:60]), gettext("Write it as mail.hospital.example.")
    )
