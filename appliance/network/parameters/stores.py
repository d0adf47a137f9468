"""Where whole uploads lie: a Django storage that can also serve a range in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from django.core.files import File
from django.core.files.storage import FileSystemStorage, storages

from appliance.protocol.files import sync_folder

CHUNK_BYTES = 128 << 10


class Store(Protocol):
    """What the services need of a storage."""

    def save(self, name: str, content: File[bytes]) -> str:
        """Keep a file, in place of an older one of that name; it is durable when this returns."""

    def delete(self, name: str) -> None:
        """Drop a file, or do nothing when it is gone."""

    def names(self) -> Iterator[str]:
        """What is kept here."""

    def read_range(self, name: str, first: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``first`` on; raises FileNotFoundError before the first of them."""


class SpooledFile(File):  # type: ignore[type-arg] # generic in the stubs alone
    """A finished file of the spool; a storage on the same disk takes it over by renaming it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb"), name=path.name)
        self._path = path

    def temporary_file_path(self) -> str:
        """Where it lies; Django's storage moves a file that has one."""
        return str(self._path)


class DiskStore(FileSystemStorage):
    """Files in a folder, one an upload."""

    def __init__(self, location: Path) -> None:
        super().__init__(location, file_permissions_mode=0o600, directory_permissions_mode=0o700, allow_overwrite=True)

    def save(self, name: str, content: File[bytes]) -> str:  # type: ignore[override] # no storage of ours needs more
        """Keep a file; its name is durable when this returns, as its bytes were before."""
        saved = super().save(name, content)
        sync_folder(Path(self.location))
        return saved

    def names(self) -> Iterator[str]:
        """The files of the folder."""
        folder = Path(self.location)
        return (entry.name for entry in os.scandir(folder)) if folder.exists() else iter(())

    def read_range(self, name: str, first: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``first`` on. The file is open from here on: deleting it cuts nobody off."""
        chunks = self._chunks(name, first, length)
        next(chunks)
        return chunks

    def _chunks(self, name: str, first: int, length: int) -> Iterator[bytes]:
        with Path(self.path(name)).open("rb") as file:
            yield b""  # taken by read_range: a missing file is an error there, and no broken answer later
            file.seek(first)
            while length and (chunk := file.read(min(CHUNK_BYTES, length))):
                length -= len(chunk)
                yield chunk


def store() -> Store:
    """The storage of the settings."""
    return cast("Store", storages["parameters"])
