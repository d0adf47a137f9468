"""Signed envelopes: a JWS (RFC 7515) by the author's identity key around every message, and bearer tokens.

The receiver checks, in this order, and parses no further than it must: size, form, signature by an active member
of the register, address, time, version, role, and only then the body. Replay is the mailbox's to judge, for it
remembers.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.protocol.errors import REMEDIES, Code, MessageRefusedError, TimeRefusedError
from appliance.protocol.jose import NotSignedError, read_json, read_jws, sign_text, write_json
from appliance.protocol.keys import MemberKeys
from appliance.protocol.messages import VERSION, Body, is_newer_minor, parse_body
from appliance.protocol.register import CONSORTIUM, Member, Register, key_id

MESSAGE_TYPE = "fedward+jws"
TOKEN_TYPE = "fedward-token+jws"  # noqa: S105 - a media type, not a secret
MAX_ENVELOPE_BYTES = 1 << 20
CLOCK_LEEWAY_S = 120
TOKEN_LIFETIME_S = 300
MAX_LIFETIME_S = 30 * 86_400  # a receiver remembers a message for as long as it may act
MAX_TIME = 1 << 40  # seconds since the epoch; what lies beyond is a mistake, and fits no database
_CLAIMS = frozenset({"v", "jti", "to", "kind", "iat", "exp", "re", "body", "crit"})
_JTI = re.compile(r"[0-9a-f]{32}")
_MAX_STEPS = 32  # of a dotted name; bodies are not nested so deep
_KID = re.compile(r"[a-z0-9-]{1,63}:[A-Za-z0-9_-]{43}")

Clock = Callable[[], float]


@dataclass(frozen=True)
class Envelope:
    """A message that was checked, or is about to be sent."""

    jti: str
    sender: str
    to: str
    version: str
    issued_at: int
    expires_at: int
    in_reply_to: str | None
    body: Body

    @property
    def kind(self) -> str:
        """The body's kind."""
        return self.body.kind


@dataclass(frozen=True)
class Signed:
    """An envelope and its text as it travels; the same text is sent again when it must be."""

    envelope: Envelope
    text: str


class Signer:
    """Writes envelopes and tokens in one member's name."""

    def __init__(self, member_id: str, keys: MemberKeys, clock: Clock = time.time) -> None:
        self.member_id = member_id
        self.keys = keys
        self._clock = clock
        self._kid = key_id(member_id, keys.public.identity)
        self._last_at = 0

    def sign(self, to: str, body: Body, *, in_reply_to: str | None = None, lifetime_s: int | None = None) -> Signed:
        """An envelope for ``to``.

        Args:
            to: A member id, or ``consortium`` for presence.
            body: What to say.
            in_reply_to: The ``jti`` of the message that this one answers.
            lifetime_s: How long it may act; the kind's own lifetime if None.
        """
        now = self._later()
        expires_at = now + (body.lifetime_s if lifetime_s is None else lifetime_s)
        envelope = Envelope(new_jti(), self.member_id, to, VERSION, now, expires_at, in_reply_to, body)
        claims = {
            "v": VERSION,
            "jti": envelope.jti,
            "to": to,
            "kind": body.kind,
            "iat": now,
            "exp": expires_at,
            "re": in_reply_to,
            "body": body.model_dump(mode="json"),
        }
        if critical := body.critical():
            claims["crit"] = [*critical]
        return Signed(envelope, self._serialize(MESSAGE_TYPE, claims))

    def sign_statement(self, typ: str, statement: dict[str, object]) -> str:
        """A statement that is no message (JWS); its ``typ`` keeps it from being taken for one."""
        return self._serialize(typ, statement)

    def _later(self) -> int:
        """Now, and never earlier than what was signed before when the clock is set back by as little as others bear.

        Whether a Stop means a request, the two dates tell.
        """
        now = int(self._clock())
        if now < self._last_at <= now + CLOCK_LEEWAY_S // 2:
            return self._last_at
        self._last_at = now
        return now

    def redate(self, text: str) -> str:
        """A message of ours, written while our clock was ahead, as written now; its ``jti`` stays, so it acts once.

        One that is not in our present key's signature stays as it is.
        """
        try:
            claims = read_json(read_jws(text).payload_by(self.keys.public.identity))
        except NotSignedError:
            return text
        now = int(self._clock())
        claims |= {"iat": now, "exp": now + claims["exp"] - claims["iat"]}
        return self._serialize(MESSAGE_TYPE, claims)

    def token(self, audience: str = "network") -> tuple[str, float]:
        """A bearer token for REST calls, and when it ends (seconds since the epoch)."""
        now = int(self._clock())
        claims = {"aud": audience, "iat": now, "exp": now + TOKEN_LIFETIME_S, "jti": new_jti()}
        return self._serialize(TOKEN_TYPE, claims), now + TOKEN_LIFETIME_S

    def _serialize(self, typ: str, claims: dict[str, Any]) -> str:
        return sign_text(write_json(claims), self.keys, typ=typ, kid=self._kid)


class NewerMessageError(MessageRefusedError):
    """A newer minor version marks as critical what we do not know: to act without it would be to misunderstand.

    Attributes:
        envelope: What we do understand: enough to tell the sender, never to act upon.
    """

    code = Code.MESSAGE_VERSION

    def __init__(self, envelope: Envelope, missing: str) -> None:
        # The name comes from the message: cut short and escaped, for this goes into logs.
        name = missing.encode("unicode_escape").decode()[:100]
        super().__init__(
            f"The '{envelope.kind}' of protocol {envelope.version} cannot be understood without its '{name}';"
            f" this side speaks {VERSION}."
        )
        self.envelope = envelope


def new_jti() -> str:
    """128 random bits, as hex."""
    return secrets.token_hex(16)


def open_envelope(text: str | bytes, register: Register, *, me: str, clock: Clock = time.time) -> Envelope:
    """Check an envelope and read it.

    Args:
        text: As it arrived.
        register: The membership register that we trust.
        me: Our own member id; also messages to ``consortium`` are for us.
        clock: Seconds since the epoch.

    Raises:
        NewerMessageError: All is in order but that it says more than we can understand.
        MessageRefusedError: With the code of the first check that failed.
    """
    if len(text) > MAX_ENVELOPE_BYTES:
        raise MessageRefusedError(
            f"The message has {len(text)} bytes; {MAX_ENVELOPE_BYTES} are allowed.", code=Code.MESSAGE_TOO_LARGE
        )
    sender, claims = open_statement(text, MESSAGE_TYPE, register)
    try:
        version, to, kind = (_text(claims[name]) for name in ("v", "to", "kind"))
        jti, in_reply_to = _jti(claims["jti"]), None if claims["re"] is None else _jti(claims["re"])
        issued_at, expires_at = _moment(claims["iat"]), _moment(claims["exp"])
        body_data, critical = claims["body"], _names(claims.get("crit", []))
    except (KeyError, TypeError) as error:
        raise MessageRefusedError("The message lacks a claim, or one has the wrong type.") from error
    unknown = claims.keys() - _CLAIMS
    if unknown and not is_newer_minor(version):
        raise MessageRefusedError(f"The message has an unknown claim {min(unknown)[:40]!r}.")
    if to not in (me, CONSORTIUM):
        raise MessageRefusedError(f"The message is for {to[:64]!r}, not for '{me}'.", code=Code.MESSAGE_MISADDRESSED)
    _require_time(sender, issued_at, expires_at, clock(), lifetime_s=MAX_LIFETIME_S)
    body, left_out = parse_body(kind, body_data, version=version)
    if to == CONSORTIUM and not body.is_broadcast:
        raise MessageRefusedError(f"'{kind}' is for one member, not for all.", code=Code.MESSAGE_MISADDRESSED)
    _require_role(sender, register.find(me), body)
    envelope = Envelope(jti, sender.id, to, version, issued_at, expires_at, in_reply_to, body)
    for name in (*sorted(unknown), *left_out):
        if name in critical:
            raise NewerMessageError(envelope, name)
    return envelope


def verify_token(text: str, register: Register, *, audience: str = "network", clock: Clock = time.time) -> Member:
    """The member that a bearer token speaks for; raises MessageRefusedError."""
    if len(text) > 4096:
        raise MessageRefusedError("The token is too long.", code=Code.MESSAGE_TOO_LARGE)
    member, claims = open_statement(text, TOKEN_TYPE, register)
    try:
        issued_at, expires_at = _moment(claims["iat"]), _moment(claims["exp"])
    except (KeyError, TypeError) as error:
        raise MessageRefusedError("The token lacks its times.") from error
    if claims.get("aud") != audience:
        raise MessageRefusedError("The token is for another service.", code=Code.MESSAGE_MISADDRESSED)
    try:
        _require_time(member, issued_at, expires_at, clock(), lifetime_s=TOKEN_LIFETIME_S)
    except TimeRefusedError as error:  # it was not under way for long: whoever sends an old one is given a second try
        error.code = Code.CLOCK_WRONG
        error.remedy = REMEDIES[error.code]
        raise
    return member


def open_statement(text: str | bytes, typ: str, register: Register) -> tuple[Member, dict[str, Any]]:
    """Who signed a statement of a type (``Signer.sign_statement``), and its claims; those are the caller's to check.

    Raises:
        MessageRefusedError: Not of that type, or not in the signature of an active member's present key.
    """
    try:
        jws = read_jws(text)
    except NotSignedError as error:
        raise MessageRefusedError("The message is not a JWS.") from error
    header = jws.header
    if header.keys() != {"alg", "kid", "typ"} or header["typ"] != typ:
        raise MessageRefusedError(f"The message's header is not that of a {typ}.")
    # What is written here goes into logs: nothing unbounded, and no line breaks.
    if not isinstance(header["kid"], str) or not _KID.fullmatch(header["kid"]):
        raise MessageRefusedError("The message's header names no key.")
    sender = register.by_kid(header["kid"])
    try:
        claims = read_json(jws.payload_by(sender.identity))
    except NotSignedError as error:
        raise MessageRefusedError(f"The signature is not by '{sender.id}'.", code=Code.MESSAGE_UNSIGNED) from error
    except ValueError as error:
        raise MessageRefusedError("The message's payload is not JSON.") from error
    if not isinstance(claims, dict):
        raise MessageRefusedError("The message's payload is not a JSON object.")
    return sender, claims


def _require_time(sender: Member, issued_at: int, expires_at: int, now: float, *, lifetime_s: int) -> None:
    ahead_s = issued_at - now
    if ahead_s > CLOCK_LEEWAY_S:
        message = f"It was written {ahead_s:.0f} s in the future: the clock of '{sender.id}' is wrong, or ours."
        raise TimeRefusedError(message, code=Code.CLOCK_WRONG, sender=sender.id, ahead_s=ahead_s)
    if expires_at + CLOCK_LEEWAY_S < now:
        message = f"It expired {now - expires_at:.0f} s ago, by our clock."
        raise TimeRefusedError(message, code=Code.MESSAGE_EXPIRED, sender=sender.id, ahead_s=ahead_s)
    if not 0 <= expires_at - issued_at <= lifetime_s:
        raise MessageRefusedError(f"It claims to live {expires_at - issued_at} s; {lifetime_s} are allowed.")


def _require_role(sender: Member, me: Member | None, body: Body) -> None:
    my_role = me.role if me else None
    if not any(route == (sender.role, my_role) for route in body.routes):
        raise MessageRefusedError(
            f"A {sender.role} may not send '{body.kind}' to {my_role or 'no member'}.", code=Code.SENDER_ROLE
        )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise TypeError("expected a short text")
    return value


def _jti(value: object) -> str:
    if not isinstance(value, str) or not _JTI.fullmatch(value):
        raise TypeError("expected 32 hexadecimal digits")
    return value


def _moment(value: object) -> int:
    if type(value) is not int or not 0 <= value < MAX_TIME:
        raise TypeError("expected whole seconds since the epoch")
    return value


def _names(value: object) -> frozenset[str]:
    """Dotted names, and each beginning of them: who lacks the whole lacks its parts."""
    if not isinstance(value, list):
        raise TypeError("expected a list of names")
    found: set[str] = set()
    for name in map(_text, value):
        steps = name.split(".")[:_MAX_STEPS]
        found.update(".".join(steps[: n + 1]) for n in range(len(steps)))
    return frozenset(found)
