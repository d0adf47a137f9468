"""TLS files that are renewed while a member runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from appliance.protocol.home import TlsFiles
from appliance.transport.tls import ClientContexts
from tests.integration.network.hosts import Authority


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """North's."""
    return Authority(tmp_path).files("north")


def test_files_that_stay_need_no_new_context(files: TlsFiles) -> None:
    """A context a call would cost each call its connection."""
    assert ClientContexts(files).renewed() is None


def test_a_renewed_certificate_needs_one(files: TlsFiles, tmp_path: Path) -> None:
    """The old one ends some day, and the process may run for years."""
    contexts = ClientContexts(files)
    shutil.copy(files.certificate, tmp_path / "fresh")
    (tmp_path / "fresh").replace(files.certificate)

    assert contexts.renewed() is contexts.current


def test_files_that_do_not_fit_leave_the_old_context(files: TlsFiles, tmp_path: Path) -> None:
    """Half of a change may be there; the line must not break for it."""
    contexts = ClientContexts(files)
    before = contexts.current
    shutil.copy(Authority(tmp_path).files("south").certificate, files.certificate)

    assert (contexts.renewed(), contexts.current) == (None, before)
