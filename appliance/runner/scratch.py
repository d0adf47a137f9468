"""A child's scratch folder: made empty, measured, and wiped whatever a plan has put into it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

MAX_ENTRIES = 10_000


def make_scratch(root: Path, name: str, uid: int | None) -> Path:
    """An empty folder for one child, which only its user may enter."""
    path = root / name
    path.mkdir(mode=0o700)
    if uid is not None:
        os.chown(path, uid, uid)
    return path


def is_within(folder: Path, limit_bytes: int) -> bool:
    """True when a scratch folder holds at most ``limit_bytes`` in at most ``MAX_ENTRIES`` files and folders."""
    used, entries, waiting = 0, 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    with suppress(FileNotFoundError):
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entries > MAX_ENTRIES or used > limit_bytes:
                        return False
        except FileNotFoundError:
            continue
        except OSError:  # a path too long to be honest
            return False
    return True


def wipe(folder: Path) -> None:
    """Remove a folder with all that is in it, at whatever depth; of a link in its place, only the link."""
    if folder.is_symlink():
        folder.unlink()
        return
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        _flatten(folder)


def _flatten(folder: Path) -> None:
    """Remove a tree too deep for a path or a stack: each folder is moved to the top before it is emptied."""
    top = folder.with_name(folder.name + ".wiped")
    top.mkdir(mode=0o700, exist_ok=True)
    waiting, moved = [top / "0"], 0
    folder.rename(waiting[0])
    while waiting:
        current = waiting.pop()
        current.chmod(0o700)
        for path in list(current.iterdir()):
            if path.is_dir() and not path.is_symlink():
                moved += 1
                waiting.append(top / str(moved))
                path.chmod(0o700)  # a folder without rights cannot be moved
                path.rename(waiting[-1])
            else:
                path.unlink()
        current.rmdir()
    top.rmdir()
