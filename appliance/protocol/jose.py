"""One way to sign and to check a text: JWS compact serialisation (RFC 7515) by an Ed25519 key, and no other algorithm.

The algorithm is named ``Ed25519`` (RFC 9864) alone: the older name ``EdDSA`` stands for several curves. With one
algorithm, one serialisation and no options left, the standard comes to three pieces of base64url, written out here:
every message is signed and checked once, and a general library takes most of that time for its choices. The tests hold
ours against such a library.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature

from appliance.protocol.keys import MemberKeys, b64url, ed25519_public, unb64url

ALGORITHM = "Ed25519"
MAX_TEXT_BYTES = 12 << 20  # a register of ten thousand members; messages have their own, lower limit


class NotSignedError(ValueError):
    """A text is no JWS of ours, or not by the key that was asked for."""


@dataclass(frozen=True)
class Jws:
    """A JWS as it came: believed by nobody until ``payload_by`` has checked it.

    Attributes:
        header: Good for finding the key and for nothing else.
    """

    header: dict[str, Any]
    _signed: bytes
    _payload: bytes
    _signature: bytes

    def payload_by(self, identity: str) -> bytes:
        """The payload, which ``identity`` signed (an Ed25519 public key in base64url).

        Raises:
            NotSignedError: Another key, another algorithm, or an altered text.
        """
        # A field that we do not know could change the meaning of what is signed, as RFC 7797's "b64" does.
        if self.header.get("alg") != ALGORITHM or not self.header.keys() <= {"alg", "kid", "typ"}:
            raise NotSignedError("signed in another way")
        try:
            ed25519_public(identity).verify(self._signature, self._signed)
        except (InvalidSignature, ValueError) as error:
            raise NotSignedError("not signed by this key") from error
        return self._payload


def sign_text(payload: str, keys: MemberKeys, *, typ: str, kid: str) -> str:
    """``payload`` in the signature of ``keys``."""
    header = write_json({"alg": ALGORITHM, "kid": kid, "typ": typ})
    signed = f"{b64url(header.encode())}.{b64url(payload.encode())}"
    return f"{signed}.{b64url(keys.sign(signed.encode('ascii')))}"


def read_jws(text: str | bytes) -> Jws:
    """The parts of a JWS, unchecked.

    Raises:
        NotSignedError: Not a JWS in compact serialisation.
    """
    try:
        if len(text) > MAX_TEXT_BYTES:
            raise ValueError("too long")  # noqa: TRY301 - as what else may be wrong with it
        compact = text if isinstance(text, str) else text.decode("ascii")
        signed, _, signature = compact.rpartition(".")
        header, payload = signed.split(".")
        fields = json.loads(unb64url(header))
        if not isinstance(fields, dict):
            raise TypeError("the header is no object")  # noqa: TRY301 - as above
        return Jws(fields, signed.encode("ascii"), unb64url(payload), unb64url(signature))
    except (ValueError, TypeError, RecursionError) as error:
        raise NotSignedError("not a JWS") from error


def read_json(payload: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, and no number so large that it reads as infinity; raises ValueError."""
    try:
        return json.loads(payload, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_json(value: Any) -> str:
    """Compact JSON; raises ValueError for NaN and infinity."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(name: str) -> float:
    raise ValueError(f"{name[:20]} is not a finite number")
