"""A member's two private keys: Ed25519 to sign (its identity), X25519 to open what is sealed to it.

Both are made on the member's own machine and stay there; only ``PublicKeys`` travel.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.files import sync_folder

_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_KNOWN_KEYS = 1024  # read once each; a consortium has fewer members


def b64url(raw: bytes) -> str:
    """Base64url without padding, as JOSE writes it (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """The bytes behind ``b64url``; raises ValueError on anything else."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64url(raw) != text:  # Python's decoder skips what it does not know and ignores stray last bits
        raise ValueError("not base64url without padding")
    return raw


@lru_cache(_KNOWN_KEYS)
def thumbprint(identity: str) -> str:
    """The RFC 7638 thumbprint of an Ed25519 public key given in base64url (section 3)."""
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": identity}, separators=(",", ":"), sort_keys=True)
    return b64url(hashlib.sha256(canonical.encode("ascii")).digest())


@dataclass(frozen=True)
class PublicKeys:
    """What others know of a member's keys: two base64url strings of 43 characters."""

    identity: str
    sealing: str


@lru_cache(_KNOWN_KEYS)
def ed25519_public(identity: str) -> Ed25519PublicKey:
    """A key that verifies the member's signatures; raises ValueError on a malformed key."""
    return Ed25519PublicKey.from_public_bytes(unb64url(identity))


@lru_cache(_KNOWN_KEYS)
def x25519_public(sealing: str) -> X25519PublicKey:
    """A key to seal to; raises ValueError on a malformed key."""
    return X25519PublicKey.from_public_bytes(unb64url(sealing))


class MemberKeys:
    """A member's private keys, held by the one process that signs and opens for it."""

    def __init__(self, identity: Ed25519PrivateKey, sealing: X25519PrivateKey) -> None:
        self._identity = identity
        self.sealing = sealing
        self.public = PublicKeys(
            identity=b64url(identity.public_key().public_bytes(*_RAW)),
            sealing=b64url(sealing.public_key().public_bytes(*_RAW)),
        )

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of ``data`` (RFC 8032, 64 bytes)."""
        return self._identity.sign(data)

    def __repr__(self) -> str:
        return f"MemberKeys({thumbprint(self.public.identity)[:8]}…)"  # never a private half

    @classmethod
    def generate(cls) -> MemberKeys:
        """Fresh keys from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def load(cls, folder: Path) -> MemberKeys:
        """The keys in ``folder``.

        Raises:
            ConfigurationError: A file is missing, readable by others, or holds no key.
        """
        identity = _load(folder / "identity.pem")
        if not isinstance(identity, Ed25519PrivateKey):
            raise _wrong_kind(folder / "identity.pem", "Ed25519")
        sealing = _load(folder / "sealing.pem")
        if not isinstance(sealing, X25519PrivateKey):
            raise _wrong_kind(folder / "sealing.pem", "X25519")
        return cls(identity, sealing)

    def save(self, folder: Path) -> None:
        """Write both keys to ``folder`` (mode 0700), each file with mode 0600; never over an existing key."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, key in (("identity.pem", self._identity), ("sealing.pem", self.sealing)):
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_secret(folder / name, pem)


def write_secret(path: Path, content: bytes) -> None:
    """Create ``path`` with mode 0600; raises FileExistsError rather than replace a secret."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)  # without it a power cut may take the name, and a lost key cannot be made again


def require_secret(path: Path) -> bytes:
    """The content of a secret file that is ours alone.

    Raises:
        ConfigurationError: The file is missing, unreadable, another user's, or others may read it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())  # of the file that is read, not of one put in its place since
            content = file.read()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}.", code=Code.KEY_UNUSABLE) from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise ConfigurationError(f"{path}: mode is {mode:04o}, expected 0600.", code=Code.KEY_UNUSABLE)
    if os.geteuid() not in (0, status.st_uid):
        raise ConfigurationError(f"{path}: belongs to another user.", code=Code.KEY_UNUSABLE)
    return content


def _load(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(require_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it wants a password
        raise ConfigurationError(f"{path}: not a private key in plain PEM form.", code=Code.KEY_UNUSABLE) from error


def _wrong_kind(path: Path, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{path}: not an {expected} private key.", code=Code.KEY_UNUSABLE)
