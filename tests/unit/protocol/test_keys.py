"""Keys: made here, kept here, and named by their thumbprint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.keys import (
    MemberKeys,
    b64url,
    ed25519_public,
    require_secret,
    thumbprint,
    unb64url,
    write_secret,
    x25519_public,
)

VECTORS = Path(__file__).parents[2] / "vectors"
RFC8037 = json.loads((VECTORS / "rfc8037-a.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a member's saved keys."""
    MemberKeys.generate().save(tmp_path / "keys")
    return tmp_path / "keys"


def unusable(folder: Path) -> ConfigurationError:
    """The error with which a folder of keys is refused."""
    with pytest.raises(ConfigurationError) as caught:
        MemberKeys.load(folder)
    assert caught.value.code is Code.KEY_UNUSABLE
    return caught.value


def test_the_thumbprint_is_the_standards() -> None:
    """RFC 8037, appendix A.3: other software must come to the same name for a key."""
    assert thumbprint(RFC8037["x"]) == RFC8037["thumbprint"]


def test_the_signature_is_the_standards() -> None:
    """RFC 8037, appendix A.4: the same key signs the same bytes with the same signature."""
    signing_input, _, signature = RFC8037["jws"].rpartition(".")
    key = Ed25519PrivateKey.from_private_bytes(unb64url(RFC8037["d"]))

    assert b64url(key.sign(signing_input.encode())) == signature


@given(st.binary(max_size=200))
def test_base64url_is_undone(raw: bytes) -> None:
    """Keys and sealed keys travel in it."""
    assert unb64url(b64url(raw)) == raw


@pytest.mark.parametrize("text", ["+/+/", "AA==", "A", "AB", "A A=", "é", "AAA\n", "!"])
def test_what_is_not_base64url_is_refused(text: str) -> None:
    """One value has one spelling: a second one would pass comparisons of texts."""
    with pytest.raises(ValueError):
        unb64url(text)


@pytest.mark.parametrize("reader", [ed25519_public, x25519_public])
@pytest.mark.parametrize("text", ["", "A" * 42, "A" * 44])
def test_a_public_key_of_another_length_is_refused(reader: object, text: str) -> None:
    """It comes from a register or a message."""
    with pytest.raises(ValueError):
        reader(text)


def test_saved_keys_are_loaded(tmp_path: Path) -> None:
    """A member is the same after a restart."""
    keys = MemberKeys.generate()
    keys.save(tmp_path)

    assert MemberKeys.load(tmp_path).public == keys.public


def test_no_two_members_draw_the_same_keys() -> None:
    """They come from the operating system's generator."""
    assert len({MemberKeys.generate().public for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["identity.pem", "sealing.pem"])
def test_key_files_are_the_owners_alone(folder: Path, name: str) -> None:
    """Other users of the machine must not read them, whatever the umask."""
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_saved_key_is_never_replaced(folder: Path) -> None:
    """A lost identity key is a lost member."""
    before = (folder / "identity.pem").read_bytes()

    with pytest.raises(FileExistsError):
        MemberKeys.generate().save(folder)
    assert (folder / "identity.pem").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(folder: Path, mode: int) -> None:
    """It may have been copied already, and staff should hear of it."""
    (folder / "identity.pem").chmod(mode)

    assert f"{mode:04o}" in unusable(folder).message


def test_a_missing_key_is_named(folder: Path) -> None:
    """The path tells which file to restore."""
    (folder / "sealing.pem").unlink()

    assert "sealing.pem" in unusable(folder).message


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_without_a_key_is_refused(folder: Path, content: bytes) -> None:
    """A disk that was full left an empty file."""
    (folder / "identity.pem").write_bytes(content)

    assert "PEM" in unusable(folder).message


def test_a_key_under_a_password_is_refused(folder: Path) -> None:
    """A service has nobody to ask, and must not end in a traceback."""
    encrypted = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (folder / "identity.pem").write_bytes(encrypted)

    assert "PEM" in unusable(folder).message


def test_keys_that_changed_places_are_refused(folder: Path) -> None:
    """A sealing key cannot sign."""
    (folder / "identity.pem").write_bytes((folder / "sealing.pem").read_bytes())

    assert "Ed25519" in unusable(folder).message


def test_no_private_half_is_shown() -> None:
    """Objects end up in logs."""
    keys = MemberKeys.generate()
    seed = keys._identity.private_bytes_raw()

    assert b64url(seed) not in repr(keys)
    assert seed.hex() not in repr(keys)


def test_a_secret_is_never_visible_to_others(tmp_path: Path) -> None:
    """Not for a moment: the mode is set as the file is made."""
    before = os.umask(0)
    try:
        write_secret(tmp_path / "secret", b"s")
    finally:
        os.umask(before)

    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_anothers_secret_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file can change it: it is not ours."""
    write_secret(tmp_path / "secret", b"s")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "secret").stat().st_uid + 1)

    with pytest.raises(ConfigurationError, match="another user"):
        require_secret(tmp_path / "secret")
