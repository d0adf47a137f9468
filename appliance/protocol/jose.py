"""One way to sign and to check a text: JWS compact serialisation (RFC 7515) by an Ed25519 key, and no other algorithm.

The algorithm is named ``Ed25519`` (RFC 9864) alone: the older name ``EdDSA`` stands for several curves.
"""

from __future__ import annotations

import json
import math
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from appliance.protocol.keys import MemberKeys, ed25519_public

MAX_PAYLOAD_BYTES = 8 << 20  # a register of ten thousand members; messages have their own, lower limit
_REGISTRY = jws.JWSRegistry(algorithms=["Ed25519"])
_REGISTRY.max_payload_length = MAX_PAYLOAD_BYTES  # the library's own limit of 128 kB is below a plan's text


class NotSignedError(ValueError):
    """A text is no JWS of ours, or not by the key that was asked for."""


def sign_text(payload: str, keys: MemberKeys, *, typ: str, kid: str) -> str:
    """``payload`` in the signature of ``keys``."""
    header = {"alg": "Ed25519", "kid": kid, "typ": typ}
    return jws.serialize_compact(header, payload, keys.signing_key, registry=_REGISTRY)


def read_header(text: str | bytes) -> dict[str, Any]:
    """The header of a JWS, unchecked: good for finding the key and for nothing else.

    Raises:
        NotSignedError: Not a JWS.
    """
    try:
        return dict(jws.extract_compact(_ascii(text), registry=_REGISTRY).headers())
    except (JoseError, ValueError, RecursionError) as error:
        raise NotSignedError("not a JWS") from error


def verify_text(text: str | bytes, identity: str) -> bytes:
    """The payload of a JWS signed by ``identity`` (an Ed25519 public key in base64url).

    Raises:
        NotSignedError: Another key, another algorithm, or an altered text.
    """
    try:
        return jws.deserialize_compact(_ascii(text), ed25519_public(identity), registry=_REGISTRY).payload
    except (JoseError, ValueError, RecursionError) as error:
        raise NotSignedError("not signed by this key") from error


def read_json(payload: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, and no number so large that it reads as infinity; raises ValueError."""
    try:
        return json.loads(payload, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_json(value: Any) -> str:
    """Compact JSON; raises ValueError for NaN and infinity."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _ascii(text: str | bytes) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else text


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(name: str) -> float:
    raise ValueError(f"{name[:20]} is not a finite number")
