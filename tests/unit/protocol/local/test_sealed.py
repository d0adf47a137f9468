"""Memory files that nobody can change any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.protocol.local.sealed import UnsealedError, create_memfd, require_sealed, sealed_memfd


def test_a_sealed_file_holds_its_content() -> None:
    """And says how large it is."""
    fd = sealed_memfd("parameters", b"tensors")

    assert (require_sealed(fd), os.pread(fd, 100, 0)) == (7, b"tensors")
    os.close(fd)


@pytest.mark.parametrize("change", [lambda fd: os.pwrite(fd, b"x", 0), lambda fd: os.ftruncate(fd, 3)])
def test_a_sealed_file_cannot_change(change: object) -> None:
    """What was checked is what is used."""
    fd = sealed_memfd("parameters", b"tensors")
    with pytest.raises(PermissionError):
        change(fd)
    os.close(fd)


def test_an_open_memory_file_is_refused() -> None:
    """Its sender could swap the content after the check."""
    fd = create_memfd("open")
    with pytest.raises(UnsealedError, match="not sealed"):
        require_sealed(fd)
    os.close(fd)


def test_an_ordinary_file_is_refused(tmp_path: Path) -> None:
    """Anybody who may write the file could change it."""
    with (tmp_path / "file").open("w") as file, pytest.raises(UnsealedError, match="not a memory file"):
        require_sealed(file.fileno())
