#!/usr/bin/python3 -I
"""Back up this host's stores and settings, or restore them.

    fedward-backup                   as /etc/fedward/backup.json says
    fedward-restore ARCHIVE

A store is copied by SQLite while its service writes to it, under its owner's user and not root's: what its service
wrote is parsed with its service's rights. Files are taken a folder at a time, all of it or nothing: a service may put
a newer folder in its place meanwhile, which is found then.
"""

import glob
import json
import mmap
import os
import pwd
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

SETTINGS = Path("/etc/fedward/backup.json")
SECRET = re.compile(rb"PRIVATE KEY-----|^\s*(PrivateKey|PresharedKey)\s*=", re.MULTILINE)
COPY = """
import sqlite3, sys
source = sqlite3.connect(f"file:{sys.argv[1]}?mode=rw", uri=True, timeout=60)
copy = sqlite3.connect(sys.argv[2])
source.backup(copy)
copy.execute("PRAGMA journal_mode = DELETE")
found = copy.execute("PRAGMA quick_check").fetchone()[0]
sys.exit(None if found == "ok" else f"{sys.argv[1]}: {found}")
"""


def backup() -> None:
    """Write one archive, and remove the oldest beyond the number that is kept."""
    settings = json.loads(SETTINGS.read_text())
    folder = Path(settings["folder"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(".*.part"):
        left.unlink()
    archive = folder / datetime.now(UTC).strftime("fedward-%Y%m%dT%H%M%S%fZ.tar.gz")
    part = folder / f".{archive.name}.part"
    try:
        _write(part, settings)
        part.rename(archive)
    finally:
        part.unlink(missing_ok=True)
    for old in sorted(folder.glob("fedward-*.tar.gz"))[: -settings["kept"]]:
        old.unlink()
    print(f"{archive}: {archive.stat().st_size} bytes")


def _write(archive: Path, settings: dict) -> None:
    """Write an archive of what the settings name."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        Path(temporary).chmod(0o711)
        with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz") as tar:
                for number, path in enumerate(_found(settings["stores"])):
                    described = tar.gettarinfo(path, str(path))
                    with _open(_copied(path, Path(temporary, str(number)))) as copy:
                        _add(tar, described, copy, may_hold_keys=True)  # as bytes of messages
                for folder in _folders(settings["files"]):
                    _add_folder(tar, folder, settings["files"])
            file.flush()
            os.fsync(file.fileno())


def _found(patterns: list[str]) -> list[Path]:
    """The regular files that the patterns name; a link could lead to a key."""
    names = {name for pattern in patterns for name in glob.glob(pattern)}  # noqa: PTH207 - patterns are absolute
    return [path for path in map(Path, sorted(names)) if path.is_file() and not path.is_symlink()]


def _folders(patterns: list[str]) -> Iterator[Path]:
    """The folders of the files that the patterns name, those included that come while others are read."""
    read: set[Path] = set()
    while left := {path.parent for path in _found(patterns)} - read:
        read |= left
        yield from sorted(left)


def _add_folder(tar: tarfile.TarFile, folder: Path, patterns: list[str]) -> None:
    """Add the files of a folder that the patterns name; none of them if it goes while they are opened."""
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(_open(path)) for path in _found(patterns) if path.parent == folder]
        except FileNotFoundError:
            return
        for file in opened:
            _add(tar, tar.gettarinfo(fileobj=file), file)


def _copied(store: Path, folder: Path) -> Path:
    """A copy of a store as it is at one instant, made by its owner."""
    owner = store.stat()
    folder.mkdir(mode=0o700)
    os.chown(folder, owner.st_uid, owner.st_gid)
    command = [sys.executable, "-I", "-c", COPY, str(store), str(folder / "copy")]
    subprocess.run(command, check=True, user=owner.st_uid, group=owner.st_gid, extra_groups=[], cwd="/", env={})
    return folder / "copy"


def _open(path: Path) -> BinaryIO:
    """A file that no link stands for."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW))


def _add(tar: tarfile.TarFile, described: tarfile.TarInfo, content: BinaryIO, *, may_hold_keys: bool = False) -> None:
    """Add a file under its own name, owner and mode.

    The bytes that were looked at are the bytes that are stored.
    """
    with tempfile.TemporaryFile(dir="/var/tmp") as held:
        shutil.copyfileobj(content, held)
        described.size = held.tell()
        held.flush()
        if described.size and not may_hold_keys:
            with closing(mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ)) as text:  # it may be a large model
                if SECRET.search(text):
                    sys.exit(f"/{described.name} holds a private key: it is in no backup; no pattern may name it.")
        held.seek(0)
        tar.addfile(described, held)


def restore(archive: str) -> None:
    """Put every file of an archive in its place; one after the other, each whole or not at all."""
    with tarfile.open(archive) as tar:
        for one in tar:
            place = Path("/", one.name)
            if not one.isfile() or ".." in place.parts:
                sys.exit(f"{archive} is no backup of ours: it holds {one.name}")
            _make_folder(place.parent, one)
            fresh = place.with_name(f".{place.name}.restored")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
                shutil.copyfileobj(tar.extractfile(one), file)
                os.fchown(file.fileno(), one.uid, one.gid)
                os.fchmod(file.fileno(), one.mode)
                os.fsync(file.fileno())
            for journal in ("-wal", "-shm", "-journal"):  # of the store that is replaced
                Path(f"{place}{journal}").unlink(missing_ok=True)
            fresh.rename(place)
            print(place)


def _make_folder(folder: Path, one: tarfile.TarInfo) -> None:
    """Make a folder in its owner's own home, where it may have gone with the machine; no other."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    if not missing:
        return
    if one.uid == 0 or missing[-1].parent.stat().st_uid != one.uid:
        sys.exit(f"There is no {folder} here: deploy this host first, then restore.")
    for path in reversed(missing):
        path.mkdir(mode=0o700)
        os.chown(path, one.uid, one.gid)


def main() -> None:
    """Called by either name."""
    if os.geteuid() != 0:
        sys.exit(f"Only root does this, not {pwd.getpwuid(os.geteuid()).pw_name}.")
    os.umask(0o077)
    if Path(sys.argv[0]).name == "fedward-restore":
        if len(sys.argv) != 2:
            sys.exit("fedward-restore ARCHIVE")
        restore(sys.argv[1])
    else:
        backup()


if __name__ == "__main__":
    main()
