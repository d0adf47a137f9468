"""Keys: made here, kept here, shown to nobody."""

from __future__ import annotations

import base64
import copy
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.vpn.errors import KeyFileError
from appliance.vpn.keys import PresharedKey, PrivateKey, SecretKey, make_private_key, require_public

# RFC 7748, section 6.1: Alice's keys.
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
KINDS = [PrivateKey, PresharedKey]


def unusable(path: Path) -> KeyFileError:
    """The error with which a key file is refused."""
    with pytest.raises(KeyFileError) as caught:
        PrivateKey.load(path)
    return caught.value


def test_the_public_half_is_the_standards() -> None:
    """RFC 7748, section 6.1: WireGuard at the other end must come to the same."""
    assert base64.b64decode(PrivateKey(ALICE).public) == ALICE_PUBLIC


@given(st.binary(min_size=32, max_size=32).filter(any))
def test_a_key_is_read_as_it_was_written(raw: bytes) -> None:
    """Whatever its bytes."""
    for kind in KINDS:
        assert kind.from_text(kind(raw).reveal()) == kind(raw)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_shows_a_secret(kind: type[SecretKey]) -> None:
    """Objects end up in logs and tracebacks."""
    key = kind.generate()
    shown = [repr(key), str(key), f"{key}", repr([key]), repr({"key": key}), repr(vars(key).keys())]

    assert [text for text in shown if key.reveal() in text or base64.b64decode(key.reveal()).hex() in text] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copier", [pickle.dumps, copy.deepcopy])
def test_a_secret_is_not_copied(kind: type[SecretKey], copier) -> None:
    """A copy would be in a file or in another process."""
    with pytest.raises(TypeError, match="not copied"):
        copier(kind.generate())


def test_keys_of_two_kinds_are_two() -> None:
    """A private key in the preshared key's place would be no secret of two."""
    assert PrivateKey(b"k" * 32) != PresharedKey(b"k" * 32)
    assert PrivateKey(b"k" * 32) == PrivateKey(b"k" * 32)
    assert len({PrivateKey.generate() for _ in range(20)} | {PresharedKey.generate() for _ in range(20)}) == 40


@pytest.mark.parametrize(
    "text", ["", "A" * 43, "A" * 44, "A" * 43 + "=", "é" * 44, "a" * 64, " " + "B" * 43, "-" * 43 + "="]
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    """A secret with a slip in it is a secret still. Zeros mean no key to WireGuard, and hexadecimal is not its way."""
    with pytest.raises(KeyFileError) as caught:
        PresharedKey.from_text(text)
    assert not text or text not in caught.value.message


def test_one_key_has_one_spelling() -> None:
    """Else two entries with the same key would not look the same."""
    text = PrivateKey(b"k" * 32).public
    other = text[:-2] + chr(ord(text[-2]) + 1) + "="

    assert base64.b64decode(other) == base64.b64decode(text)
    with pytest.raises(KeyFileError, match="44 characters"):
        require_public(other)


@pytest.mark.parametrize("point", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_a_public_key_of_small_order_is_refused(point: int) -> None:
    """With it the common secret is zero, whoever computes it (RFC 7748, section 6.1)."""
    with pytest.raises(KeyFileError, match="small order"):
        require_public(base64.b64encode(point.to_bytes(32, "little")).decode())


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_a_key_file_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    """Whatever the umask, not for a moment otherwise; and no half file stays."""
    before = os.umask(umask)
    try:
        key = PrivateKey.generate()
        (tmp_path / "keys").mkdir(mode=0o777)
        (tmp_path / "keys").chmod(0o700)
        key.save(tmp_path / "keys/private.key")
    finally:
        os.umask(before)

    assert (tmp_path / "keys/private.key").stat().st_mode & 0o7777 == 0o600
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["private.key"]
    assert PrivateKey.load(tmp_path / "keys/private.key") == key


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """A playbook runs often: a second key would cut the member off."""
    first, is_new = make_private_key(tmp_path / "private.key")

    assert is_new
    assert make_private_key(tmp_path / "private.key") == (first, False)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    """Also by one who does not look first."""
    first, _ = make_private_key(tmp_path / "private.key")

    with pytest.raises(FileExistsError):
        PrivateKey.generate().save(tmp_path / "private.key")
    assert PrivateKey.load(tmp_path / "private.key") == first
    assert [path.name for path in tmp_path.iterdir()] == ["private.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """It may have been copied already: a new one must be made."""
    key, _ = make_private_key(tmp_path / "private.key")
    (tmp_path / "private.key").chmod(mode)
    error = unusable(tmp_path / "private.key")

    assert f"mode is {mode:04o}, expected 0600" in error.message
    assert "fedward vpn keygen" in error.remedy
    assert key.reveal() not in error.message


@pytest.mark.parametrize("content", [b"", b"\xff" * 44, b"hello\n", b"\0" * 5000])
def test_a_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    """A disk that was full left an empty file."""
    (tmp_path / "private.key").write_bytes(content)
    (tmp_path / "private.key").chmod(0o600)

    assert "private.key: A WireGuard key is the base64 of 32 bytes" in unusable(tmp_path / "private.key").message


def test_only_a_plain_file_is_opened(tmp_path: Path) -> None:
    """A link leads to who knows what, and a pipe would keep us waiting."""
    PrivateKey.generate().save(tmp_path / "real.key")
    (tmp_path / "link.key").symlink_to(tmp_path / "real.key")
    os.mkfifo(tmp_path / "pipe.key", 0o600)

    assert "symbolic links" in unusable(tmp_path / "link.key").message
    assert "not a plain file" in unusable(tmp_path / "pipe.key").message
    assert "No such file" in unusable(tmp_path / "none.key").message


def test_anothers_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file can change it: it is not ours."""
    PrivateKey.generate().save(tmp_path / "private.key")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "private.key").stat().st_uid + 1)

    assert "another user" in unusable(tmp_path / "private.key").message
