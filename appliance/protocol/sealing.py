"""Sealed files: encrypted once while they are written, opened only by the members named.

The file's fresh content key is sealed to each recipient with HPKE (RFC 9180, X25519 / HKDF-SHA256 / AES-256-GCM).
The content is cut into chunks of 1 MiB, each AES-256-GCM with a nonce of counter and last-chunk flag (the STREAM
construction: Hoang, Reyhanitabar, Rogaway and Vizár, CRYPTO 2015), so that chunks cannot be swapped, dropped or cut,
and memory stays flat. Who sealed it is not the seal's to say: the signed message that carries the key says it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from appliance.protocol.errors import SealError
from appliance.protocol.keys import b64url, unb64url, x25519_public

CHUNK_BYTES = 1 << 20
TAG_BYTES = 16
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_KEY_BYTES = 32


@dataclass(frozen=True)
class Sealed:
    """What ``seal`` wrote: the encrypted file's hash and size, and the key that opens it."""

    sha256: str
    size_bytes: int
    content_key: bytes

    def __repr__(self) -> str:
        return f"Sealed(sha256={self.sha256!r}, size_bytes={self.size_bytes})"  # never the key


def sealed_size(plain_bytes: int) -> int:
    """How large a file of ``plain_bytes`` is when sealed."""
    chunks = max(1, -(-plain_bytes // CHUNK_BYTES))
    return plain_bytes + chunks * TAG_BYTES


def seal(plain: BinaryIO, out: BinaryIO, *, key: bytes | None = None) -> Sealed:
    """Encrypt ``plain`` into ``out`` under a fresh key, hashing on the way.

    Args:
        plain: A file that can seek, read once from its beginning.
        out: Where the sealed bytes are written, in order.
        key: The one that sealed this very content before: then the sealed bytes are the same. None: a fresh one.
    """
    key = key or os.urandom(_KEY_BYTES)
    digest, size = hashlib.sha256(), 0
    for chunk in seal_chunks(plain, key):
        digest.update(chunk)
        out.write(chunk)
        size += len(chunk)
    return Sealed(digest.hexdigest(), size, key)


def seal_chunks(plain: BinaryIO, key: bytes) -> Iterator[memoryview]:
    """The sealed chunks of ``plain``, each good until the next is asked for. A key seals one file, ever."""
    cipher = AESGCM(key)
    left = plain.seek(0, os.SEEK_END)
    plain.seek(0)
    total = max(1, -(-left // CHUNK_BYTES))
    buffer, sealed = _buffer(CHUNK_BYTES), _buffer(CHUNK_BYTES + TAG_BYTES)
    for number in range(total):
        chunk = _filled(buffer[:left], plain)
        left -= len(chunk)
        out = sealed[: len(chunk) + TAG_BYTES]
        cipher.encrypt_into(_nonce(number, last=number == total - 1), chunk, None, out)
        yield out


def unseal(chunks: Iterable[memoryview], key: bytes, out: BinaryIO) -> int:
    """Decrypt sealed chunks (as cut by ``read_chunks``) into ``out``; returns the number of plain bytes.

    Every byte written is authentic, but only a normal return says that it is all of them: on an error throw
    ``out`` away.

    Raises:
        SealError: A chunk is altered, missing, added or in another place.
    """
    cipher, size, number = AESGCM(key), 0, 0
    plain = _buffer(CHUNK_BYTES)
    waiting: memoryview | None = None
    for chunk in chunks:
        if waiting is not None:
            size += out.write(_open(cipher, waiting, plain, number, last=False))
            number += 1
        waiting = chunk
    if waiting is None:
        raise SealError("The sealed file is empty.")
    return size + out.write(_open(cipher, waiting, plain, number, last=True))


def read_chunks(file: BinaryIO) -> Iterator[memoryview]:
    """Cut a sealed file into the chunks that ``unseal`` wants: each is good until the next but one is asked for."""
    now, later = (_buffer(CHUNK_BYTES + TAG_BYTES) for _ in range(2))
    while chunk := _filled(now, file):
        yield chunk
        now, later = later, now


def seal_key(content_key: bytes, recipient: str, *, context: str) -> str:
    """Seal a content key to a member.

    Args:
        content_key: What ``seal`` gave back.
        recipient: The member's X25519 public key, base64url.
        context: What the file is for; opening demands the same (HPKE's ``info``).
    """
    return b64url(_SUITE.encrypt(content_key, x25519_public(recipient), context.encode()))


def open_key(sealed: str, mine: X25519PrivateKey, *, context: str) -> bytes:
    """The content key in ``sealed``.

    Raises:
        SealError: Sealed to another member, for another purpose, or altered.
    """
    try:
        key = _SUITE.decrypt(unb64url(sealed), mine, context.encode())
    except (ValueError, InvalidTag) as error:
        raise SealError("The file's key was not sealed to this member for this purpose.") from error
    if len(key) != _KEY_BYTES:
        raise SealError(f"The file's key has {len(key)} bytes; {_KEY_BYTES} are expected.")
    return key


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _open(cipher: AESGCM, chunk: memoryview, plain: memoryview, number: int, *, last: bool) -> memoryview:
    out = plain[: max(0, len(chunk) - TAG_BYTES)]
    try:
        cipher.decrypt_into(_nonce(number, last=last), chunk, None, out)
    except (InvalidTag, ValueError) as error:
        raise SealError(f"Chunk {number + 1} of the sealed file is altered, missing or cut short.") from error
    return out


def _buffer(size: int) -> memoryview:
    """Memory of which a small file touches, and so costs, a page."""
    return memoryview(mmap.mmap(-1, size))


def _filled(buffer: memoryview, file: BinaryIO) -> memoryview:
    """As much of ``buffer`` as the file still fills."""
    size = 0
    while size < len(buffer) and (count := file.readinto(buffer[size:])):  # type: ignore[attr-defined] # of all we open
        size += count
    return buffer[:size]
