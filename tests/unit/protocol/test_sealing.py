"""Sealed files: every cut, swap and flip is refused, and only the recipient opens them."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol import sealing
from appliance.protocol.errors import Code, SealError
from appliance.protocol.keys import MemberKeys, b64url, unb64url
from appliance.protocol.sealing import (
    TAG_BYTES,
    Sealed,
    open_key,
    read_chunks,
    seal,
    seal_chunks,
    seal_key,
    sealed_size,
    unseal,
)
from tests.conftest import Members
from tests.memory import HighWater

VECTORS = Path(__file__).parents[2] / "vectors"
CONTEXT = "update e-1 1"
CHUNK = 64


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code on chunks of 64 bytes, so that a file of many is small."""
    monkeypatch.setattr(sealing, "CHUNK_BYTES", CHUNK)


def sealed(plain: bytes) -> tuple[bytes, Sealed]:
    """A sealed file, and what tells of it."""
    out = io.BytesIO()
    told = seal(io.BytesIO(plain), out)
    return out.getvalue(), told


def opened(raw: bytes, key: bytes) -> bytes:
    """The plain bytes of a sealed file."""
    out = io.BytesIO()
    unseal(read_chunks(io.BytesIO(raw)), key, out)
    return out.getvalue()


def refused(raw: bytes, key: bytes) -> bool:
    """Whether the file is refused as broken, rather than opened or fallen over."""
    with pytest.raises(SealError) as caught:
        opened(raw, key)
    return caught.value.code is Code.SEAL_BROKEN


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 7])
def test_a_sealed_file_opens(size: int) -> None:
    """At every size around a chunk's end."""
    plain = bytes(range(256)) * 2
    raw, told = sealed(plain[:size])

    assert opened(raw, told.content_key) == plain[:size]


@given(st.binary(max_size=500))
def test_any_file_opens(plain: bytes) -> None:
    """Whatever it holds."""
    raw, told = sealed(plain)

    assert opened(raw, told.content_key) == plain


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 10 * CHUNK])
def test_size_and_hash_are_told_truly(size: int) -> None:
    """The network host checks both at completion."""
    raw, told = sealed(b"x" * size)

    assert len(raw) == told.size_bytes == sealed_size(size)
    assert hashlib.sha256(raw).hexdigest() == told.sha256


def test_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of gigabytes is sealed and opened by a warden that may have 64 MB more than when it is idle."""
    monkeypatch.setattr(sealing, "CHUNK_BYTES", 1 << 20)
    size = 128 << 20
    with (
        (tmp_path / "plain").open("w+b") as plain,
        (tmp_path / "sealed").open("w+b") as raw,
        Path("/dev/null").open("wb") as void,
    ):
        plain.truncate(size)
        high = HighWater()
        told = seal(plain, raw)
        raw.seek(0)

        assert unseal(read_chunks(raw), told.content_key, void) == size
        assert high.rise() < 32 << 20


def test_no_key_seals_two_files() -> None:
    """Two files under one key and nonce show their difference."""
    assert len({sealed(b"same")[1].content_key for _ in range(50)}) == 50


def test_no_plain_text_is_left() -> None:
    """The network host spies."""
    raw, _ = sealed(b"weights of north" * 20)

    assert b"weights" not in raw


def test_the_key_is_not_shown() -> None:
    """Objects end up in logs."""
    _, told = sealed(b"x")

    assert repr(told.content_key) not in repr(told)
    assert told.content_key.hex() not in repr(told)


def test_every_flipped_byte_is_refused() -> None:
    """The network host may write into what it stores."""
    raw, told = sealed(b"n" * (2 * CHUNK + 5))

    for place in range(len(raw)):
        assert refused(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :], told.content_key)


def test_every_cut_is_refused() -> None:
    """Also one at a chunk's end, which leaves whole chunks."""
    raw, told = sealed(b"n" * (2 * CHUNK + 5))

    for size in range(len(raw)):
        assert refused(raw[:size], told.content_key)


def test_added_bytes_are_refused() -> None:
    """Nothing can be hidden behind the end."""
    raw, told = sealed(b"n" * CHUNK)

    assert refused(raw + b"x", told.content_key)
    assert refused(raw + raw, told.content_key)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 0, 2), (0, 2), (1, 2), (0, 1, 1, 2), (2, 1, 0)])
def test_moved_chunks_are_refused(order: tuple[int, ...]) -> None:
    """Each chunk is authentic by itself; its place is part of the seal."""
    plain = io.BytesIO(b"a" * CHUNK + b"b" * CHUNK + b"c" * CHUNK)
    chunks = [bytes(chunk) for chunk in seal_chunks(plain, b"k" * 32)]

    assert refused(b"".join(chunks[number] for number in order), b"k" * 32)


def test_another_files_key_is_refused() -> None:
    """Keys and files come by different ways and may be confused."""
    raw, _ = sealed(b"x")

    assert refused(raw, sealed(b"x")[1].content_key)


def test_a_key_opens_for_its_recipient(members: Members) -> None:
    """Alice alone opens what is sealed to alice."""
    text = seal_key(b"k" * 32, members.keys["alice"].public.sealing, context=CONTEXT)

    assert open_key(text, members.keys["alice"].sealing, context=CONTEXT) == b"k" * 32


def test_a_key_opens_for_nobody_else(members: Members) -> None:
    """Mallory and the network host have the text as well."""
    text = seal_key(b"k" * 32, members.keys["alice"].public.sealing, context=CONTEXT)

    with pytest.raises(SealError):
        open_key(text, members.keys["mallory"].sealing, context=CONTEXT)


def test_a_key_opens_for_its_purpose_only(members: Members) -> None:
    """An update of one round must not pass for another's."""
    text = seal_key(b"k" * 32, members.keys["alice"].public.sealing, context=CONTEXT)

    with pytest.raises(SealError):
        open_key(text, members.keys["alice"].sealing, context="update e-1 2")


def test_every_flipped_bit_of_a_sealed_key_is_refused(members: Members) -> None:
    """It lies in a message that others carry."""
    alice = members.keys["alice"]
    raw = unb64url(seal_key(b"k" * 32, alice.public.sealing, context=CONTEXT))

    for place in range(len(raw)):
        flipped = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(SealError):
            open_key(b64url(flipped), alice.sealing, context=CONTEXT)


@given(st.binary(max_size=120).map(b64url) | st.text(max_size=20))
def test_no_text_ends_in_anything_but_a_refusal(text: str) -> None:
    """It comes from a member, who may lie."""
    with pytest.raises(SealError):
        open_key(text, MALLORY.sealing, context=CONTEXT)


def test_a_key_of_another_length_is_refused(members: Members) -> None:
    """A well-sealed short key would choose a weaker cipher."""
    alice = members.keys["alice"]

    with pytest.raises(SealError, match="16 bytes"):
        open_key(seal_key(b"k" * 16, alice.public.sealing, context=CONTEXT), alice.sealing, context=CONTEXT)


def test_the_same_key_is_sealed_anew_each_time(members: Members) -> None:
    """Equal texts would show that two messages carry one file."""
    recipient = members.keys["alice"].public.sealing

    assert seal_key(b"k" * 32, recipient, context="") != seal_key(b"k" * 32, recipient, context="")


def test_our_reading_of_the_standard_opens_the_standards_example() -> None:
    """RFC 9180, A.1.1: this proves the reading that the next test leans on."""
    vector = json.loads((VECTORS / "rfc9180-a1.json").read_text())
    enc, info, ct, aad = (bytes.fromhex(vector[name]) for name in ("enc", "info", "ct", "aad"))
    mine = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["skRm"]))

    plain = hpke_open(enc, ct, mine, info, aad, aead_id=vector["aead_id"], key_bytes=16)
    assert plain.hex() == vector["pt"]


def test_a_sealed_key_is_what_the_standard_says(members: Members) -> None:
    """Any other HPKE of the same suite opens it: AES-256-GCM is number 2."""
    alice = members.keys["alice"]
    raw = unb64url(seal_key(b"k" * 32, alice.public.sealing, context=CONTEXT))

    plain = hpke_open(raw[:32], raw[32:], alice.sealing, CONTEXT.encode(), b"", aead_id=2, key_bytes=32)
    assert plain == b"k" * 32


def test_a_chunk_holds_no_more_than_its_tag() -> None:
    """The quota of the network host counts on it."""
    assert len(next(seal_chunks(io.BytesIO(), b"k" * 32))) == TAG_BYTES


MALLORY = MemberKeys.generate()


def hpke_open(
    enc: bytes, ct: bytes, mine: X25519PrivateKey, info: bytes, aad: bytes, *, aead_id: int, key_bytes: int
) -> bytes:
    """Open(enc, ct) in base mode, sequence 0, as RFC 9180 writes it (sections 4.1, 5.1 and 5.2)."""
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01" + aead_id.to_bytes(2, "big")
    shared = mine.exchange(X25519PublicKey.from_public_bytes(enc))
    eae = _extract(kem, b"", b"eae_prk", shared)
    secret = _expand(kem, eae, b"shared_secret", enc + mine.public_key().public_bytes_raw(), 32)
    context = b"\x00" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    prk = _extract(suite, secret, b"secret", b"")
    key, nonce = _expand(suite, prk, b"key", context, key_bytes), _expand(suite, prk, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ct, aad)


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labelled + b"\x01", "sha256")[:size]
