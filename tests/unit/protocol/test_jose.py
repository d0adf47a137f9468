"""Our JWS against a general library's: whoever reads the standard must be able to read us, and to write to us."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey

from appliance.protocol.jose import NotSignedError, read_jws, sign_text
from appliance.protocol.keys import MemberKeys, b64url

KEYS = MemberKeys.generate()
IDENTITY = KEYS.public.identity
THEIRS = OKPKey.import_key(
    {"kty": "OKP", "crv": "Ed25519", "x": IDENTITY, "d": b64url(KEYS._identity.private_bytes_raw())}
)
HEADER = {"alg": "Ed25519", "kid": "alice", "typ": "test+jws"}


@given(st.text(st.characters(codec="utf-8"), max_size=2000))
def test_a_library_reads_what_we_sign(payload: str) -> None:
    """RFC 7515 and RFC 9864, as others understand them."""
    text = sign_text(payload, KEYS, typ="test+jws", kid="alice")
    found = jws.deserialize_compact(text, THEIRS, algorithms=["Ed25519"])

    assert (found.headers(), found.payload) == (HEADER, payload.encode())


@given(st.binary(max_size=2000))
def test_we_read_what_a_library_signs(payload: bytes) -> None:
    """A member with software of its own is a member all the same."""
    found = read_jws(jws.serialize_compact(HEADER, payload, THEIRS, algorithms=["Ed25519"]))

    assert (found.header, found.payload_by(IDENTITY)) == (HEADER, payload)


def test_both_write_the_same() -> None:
    """Ed25519 draws nothing at random, so not a byte may differ."""
    ours = sign_text("payload", KEYS, typ="test+jws", kid="alice")

    assert ours == jws.serialize_compact(HEADER, "payload", THEIRS, algorithms=["Ed25519"])


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "alg": "EdDSA"},
        {**HEADER, "alg": "none"},
        {**HEADER, "b64": False, "crit": ["b64"]},
        {**HEADER, "jwk": {"kty": "OKP"}},
        {"kid": "alice", "typ": "test+jws"},
    ],
)
def test_a_signature_under_another_header_counts_for_nothing(header: dict[str, object]) -> None:
    """The bytes are signed, and yet the header says that they mean something else."""
    signed = f"{b64url(json.dumps(header).encode())}.{b64url(b'payload')}"
    text = f"{signed}.{b64url(KEYS.sign(signed.encode()))}"

    with pytest.raises(NotSignedError):
        read_jws(text).payload_by(IDENTITY)


def test_a_second_spelling_of_a_signature_is_refused() -> None:
    """The last character carries two bits that mean nothing: one message has one text."""
    text = sign_text("payload", KEYS, typ="test+jws", kid="alice")
    other = next(c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in "AQgw")

    with pytest.raises(NotSignedError):
        read_jws(text[:-1] + other)
