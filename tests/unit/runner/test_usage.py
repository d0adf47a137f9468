"""What a process holds in files without a name, whatever it calls them."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.runner.usage import nameless

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
LIMIT = 1 << 40


def map_one_page(fd: int) -> int:
    """Of a file; unlike Python's own mapping it keeps no descriptor."""
    return int(_libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0))


@pytest.mark.parametrize("name", ["plain", "a\x0cb", "a\x1cb c", "a\u2028b", "a\nb", "x (deleted)"])
def test_a_deleted_file_of_which_one_page_is_mapped_is_beyond_any_limit(tmp_path: Path, name: str) -> None:
    """Its size is hidden, and its name is the plan's to choose: neither may hide it or end the supervisor."""
    path = tmp_path / name
    with path.open("w+b") as file:
        file.truncate(64 << 20)
        page = map_one_page(file.fileno())
    path.unlink()

    held = nameless([os.getpid()], tmp_path)
    _libc.munmap(page, mmap.PAGESIZE)

    assert held.disk_bytes > LIMIT
    assert nameless([os.getpid()], tmp_path).disk_bytes < LIMIT


def test_a_memory_file_of_which_one_page_is_mapped_is_beyond_any_limit(tmp_path: Path) -> None:
    """All of it stays in memory, and no descriptor says how much that is."""
    fd = os.memfd_create("any")
    os.truncate(fd, 64 << 20)
    page = map_one_page(fd)
    os.close(fd)

    held = nameless([os.getpid()], tmp_path)
    _libc.munmap(page, mmap.PAGESIZE)

    assert held.memory_bytes > LIMIT


@pytest.mark.parametrize("is_late", [True, False], ids=["opened behind", "closed before"])
def test_a_file_that_is_open_while_it_is_mapped_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """As the training process maps the parameters it is given, and is looked at in that moment."""
    fd = os.memfd_create("parameters")
    os.truncate(fd, mmap.PAGESIZE)
    pages = [] if is_late else [map_one_page(fd)]
    look = os.scandir

    def at_that_moment(path: str) -> Iterator[os.DirEntry[str]]:
        entries = [entry for entry in look(path) if entry.name != str(fd)]
        if is_late:
            pages.append(map_one_page(fd))
        else:
            _libc.munmap(pages.pop(), mmap.PAGESIZE)
        return iter(entries)

    monkeypatch.setattr(os, "scandir", at_that_moment)
    held = nameless([os.getpid()], tmp_path)
    os.close(fd)
    for page in pages:
        _libc.munmap(page, mmap.PAGESIZE)

    assert held.memory_bytes < LIMIT


def test_a_scratch_folder_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    """A plan may remove its own."""
    assert nameless([os.getpid()], tmp_path / "gone").disk_bytes < LIMIT
