"""What is served and what it is served with: vendored files, the certificate, the settings."""

from __future__ import annotations

import hashlib
import re
import shutil
import ssl
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

import node_gui
from appliance.protocol.errors import ConfigurationError
from node_gui.access import Role
from node_gui.certificate import fingerprint, ready_tls_files, server_context
from node_gui.config import GuiConfig, read_config
from node_gui.serve import invite_first
from tests.unit.node_gui.conftest import Gui

STATIC = Path(node_gui.__file__).parent / "static"
VENDORED = tomllib.loads((STATIC / "vendor/files.toml").read_text())["file"]


@pytest.mark.parametrize("file", VENDORED, ids=lambda file: file["name"])
def test_a_vendored_file_is_the_one_that_was_taken(file: dict[str, str]) -> None:
    """It runs in staff's browsers; nobody reads it in a review."""
    assert hashlib.sha256((STATIC / "vendor" / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert file["licence"]


def test_every_vendored_file_is_listed() -> None:
    """With its origin and its licence."""
    assert {path.name for path in (STATIC / "vendor").iterdir()} == {file["name"] for file in VENDORED} | {"files.toml"}


def test_no_page_loads_anything_from_elsewhere() -> None:
    """A hospital's node has no line to the world, and nobody shall learn who opens it."""
    files = [*STATIC.glob("*.*"), *(STATIC.parent / "templates").rglob("*.html")]
    found = {path.name: re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()) for path in files}
    found["icon.svg"] = []  # names its XML namespace

    assert {name: links for name, links in found.items() if links} == {}


def test_the_gui_makes_a_certificate_of_its_own(tmp_path: Path) -> None:
    """HTTPS from the first start on; the node's key stays the warden's."""
    pair = ready_tls_files(tmp_path, GuiConfig(address="https://node.hospital.example"))
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "node.hospital.example"}
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert ready_tls_files(tmp_path, GuiConfig()).certificate.read_bytes() == pair.certificate.read_bytes()
    assert server_context(pair).minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("lost", ["key.pem", "cert.pem"])
def test_a_key_and_a_certificate_of_different_starts_are_made_anew(tmp_path: Path, lost: str) -> None:
    """A machine that stopped between the two writes leaves such a pair, and no browser would ever come in."""
    pair = ready_tls_files(tmp_path / "one", GuiConfig())
    other = ready_tls_files(tmp_path / "other", GuiConfig())
    (other.key.parent / lost).replace(pair.key.parent / lost)

    assert server_context(ready_tls_files(tmp_path / "one", GuiConfig()))


def test_the_certificate_is_the_server_s_to_make(make_gui: Callable[..., Gui]) -> None:
    """A page that looks at it only looks: it would be another one than is served."""
    gui = make_gui()
    shutil.rmtree(gui.home / "gui/tls")

    assert gui.signed_in(Role.ADMINISTRATOR).get("/health/").status_code == 200
    assert not (gui.home / "gui/tls").exists()


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    """Whoever has it can be the GUI."""
    pair = ready_tls_files(tmp_path, GuiConfig())
    pair.key.chmod(0o640)

    with pytest.raises(ConfigurationError, match="0640"):
        server_context(pair)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    """And not silently replaced by one of our own."""
    with pytest.raises(ConfigurationError, match="belong together"):
        ready_tls_files(tmp_path, GuiConfig(certificate=Path("own.pem")))


def test_the_first_link_names_the_certificate(tmp_path: Path) -> None:
    """The browser asks about it, and the answer must not be a guess."""
    first = invite_first(tmp_path)

    assert first.link.startswith(f"{first.address}/invitation/")
    assert first.address == "https://127.0.0.1:8444"
    assert first.fingerprint == fingerprint(ready_tls_files(tmp_path, GuiConfig()).certificate)


@pytest.mark.parametrize("line", ["port = 70000", 'address = "http://plain.example"', "idle_minutes = 0", "prot = 1"])
def test_a_wrong_setting_is_named(tmp_path: Path, line: str) -> None:
    """With its file."""
    (tmp_path / "gui.toml").write_text(line)

    with pytest.raises(ConfigurationError, match=line.split(" ", 1)[0]):
        read_config(tmp_path)
