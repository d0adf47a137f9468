"""WireGuard's keys: made on the machine that uses them, in files of root's alone, shown to nobody.

The ``wireguard-tools`` package has key code of its own, in plain Python and not in constant time by its own word, and
its keys show themselves in ``repr``. Here keys are made by ``cryptography``; the package gets their text and no more.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from appliance.vpn.errors import KeyFileError
from appliance.vpn.files import create_private

KEY_BYTES = 32
_MAX_FILE_BYTES = 256
_PROBE = X25519PrivateKey.from_private_bytes(b"\x42" * KEY_BYTES)  # no secret: finds public keys of small order


class SecretKey:
    """32 secret bytes. They leave the object through ``reveal`` alone, for WireGuard's own files and tools."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES or not any(raw):  # WireGuard takes zeros for no key
            raise KeyFileError(f"A key has {KEY_BYTES} bytes that are not all zero; this one has not.")
        self._raw = raw

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash((type(self), self._raw))

    def __reduce__(self) -> str:
        raise TypeError("A secret key is not copied into other processes.")

    def reveal(self) -> str:
        """The key as WireGuard writes it: base64, 44 characters. Never for people, logs or messages."""
        return base64.b64encode(self._raw).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The key that ``reveal`` wrote; raises KeyFileError on anything else, without repeating it."""
        return cls(_decoded(text))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key in a file that is ours alone.

        Raises:
            KeyFileError: It is missing, no plain file, another user's, open to others, or holds no key.
        """
        text = _read_secret(path)
        try:
            return cls.from_text(text)
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error.message}", remedy=error.remedy) from None

    def save(self, path: Path) -> None:
        """Write the key to a new file (mode 0600, in a folder of mode 0700); raises FileExistsError over another."""
        create_private(path, f"{self.reveal()}\n".encode("ascii"))


class PrivateKey(SecretKey):
    """A machine's private key (X25519).

    Attributes:
        public: Its public half, base64.
    """

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        public = X25519PrivateKey.from_private_bytes(raw).public_key()
        self.public = base64.b64encode(public.public_bytes_raw()).decode("ascii")

    def __repr__(self) -> str:
        return f"PrivateKey(of {self.public})"

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the operating system's generator."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())


class PresharedKey(SecretKey):
    """What hub and one member mix into their handshake beside X25519, against whoever records it for later."""

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the operating system's generator."""
        return cls(secrets.token_bytes(KEY_BYTES))


def require_public(text: str) -> str:
    """``text``, if it is a public key that a peer may have.

    Raises:
        KeyFileError: It is not the base64 of 32 bytes, or a point of small order, with which anybody knows the
            common secret (RFC 7748, section 6.1).
    """
    key = X25519PublicKey.from_public_bytes(_decoded(text))
    try:
        _PROBE.exchange(key)
    except ValueError:
        raise KeyFileError("The public key is of small order: it protects nothing.") from None
    return text


def make_private_key(path: Path) -> tuple[PrivateKey, bool]:
    """The private key in the file at ``path``, made if there is none; and whether it was made now.

    Raises:
        KeyFileError: There is a file that cannot be used.
    """
    if not path.is_symlink() and not path.exists():
        key = PrivateKey.generate()
        try:
            key.save(path)
        except FileExistsError:
            pass  # another made it in this moment: that one counts
        else:
            return key, True
    return PrivateKey.load(path), False


def _decoded(text: str) -> bytes:
    """32 bytes from the one spelling that WireGuard has for them; the fault is told without the text."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode("ascii") != text:
        raise KeyFileError("A WireGuard key is the base64 of 32 bytes, 44 characters; this is none.") from None
    return raw


def _read_secret(path: Path) -> str:
    """What is in a file that only its owner may open."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}.",
            remedy="A host's own key is made by 'fedward vpn keygen'; a preshared key is brought from the hub.",
        ) from error
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())  # of the file that is read, not of one put in its place since
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileError(f"{path}: not a plain file.")
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            raise KeyFileError(
                f"{path}: mode is {mode:04o}, expected 0600: others may have read this key.",
                remedy="Move the file away, make a new key ('fedward vpn keygen') and have its public half admitted.",
            )
        if os.geteuid() not in (0, found.st_uid):
            raise KeyFileError(f"{path}: belongs to another user.")
        content = file.read(_MAX_FILE_BYTES)
    return content.decode("ascii", errors="replace").removesuffix("\n")
