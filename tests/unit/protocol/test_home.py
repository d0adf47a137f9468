"""A member's folder: refused with the file and the reason, never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.home import MemberHome, Route
from appliance.protocol.keys import write_secret
from appliance.protocol.register import sign_register
from tests.conftest import Members

ENDPOINT = '[[endpoints]]\nbroker_host = "127.0.0.1"\nbroker_port = 8883\nrest_url = "https://127.0.0.1:8443"\n'


@pytest.fixture
def root(tmp_path: Path, members: Members) -> Path:
    """North's folder."""
    operator = members.operator.public.identity
    (tmp_path / "member.toml").write_text(f'id = "north"\noperator = "{operator}"\n\n{ENDPOINT}')
    (tmp_path / "register.jws").write_text(sign_register(members.register, members.operator))
    members.keys["north"].save(tmp_path / "keys")
    (tmp_path / "tls").mkdir()
    write_secret(tmp_path / "tls/key.pem", b"key")
    return tmp_path


def unusable(root: Path) -> ConfigurationError:
    """The error with which the folder is refused."""
    with pytest.raises(ConfigurationError) as caught:
        MemberHome(root).register()
    return caught.value


def test_a_folder_says_who_it_is(root: Path, members: Members) -> None:
    """Id, keys, and whom it believes."""
    home = MemberHome(root)

    assert home.member_id == "north"
    assert home.keys().public == members.keys["north"].public
    assert home.register() == members.register


def test_endpoints_are_a_list_in_their_order(root: Path) -> None:
    """A second way to the network host is tried when the first fails."""
    with (root / "member.toml").open("a") as file:
        file.write("\n" + ENDPOINT + 'route = "tcp443"\n')

    assert [endpoint.route for endpoint in MemberHome(root).settings.endpoints] == [Route.DIRECT, Route.TCP443]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "id"),
        ("id = = 1", "line 1"),
        ('id = "North"', "id"),
        ("é = 1".encode("latin-1"), "UTF-8"),
        ('id = "north"\nnaem = 1', "naem"),
    ],
)
def test_a_wrong_settings_file_is_named_with_its_fault(root: Path, content: str | bytes, match: str) -> None:
    """Whoever edited it has to find the place."""
    path = root / "member.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    message = unusable(root).message
    assert str(path) in message
    assert match in message


@pytest.mark.parametrize("url", ["http://127.0.0.1", "ftp://x", "", " https://x"])
def test_an_endpoint_without_tls_is_refused(root: Path, url: str) -> None:
    """There is no option to do without."""
    path = root / "member.toml"
    path.write_text(path.read_text().replace("https://127.0.0.1:8443", url))

    assert "rest_url" in unusable(root).message


@pytest.mark.parametrize("name", ["member.toml", "register.jws", "tls/key.pem"])
def test_a_missing_file_is_named(root: Path, name: str) -> None:
    """The path tells what to restore."""
    (root / name).unlink()

    assert name in unusable(root).message


def test_a_register_that_is_not_text_is_refused(root: Path) -> None:
    """Half a disk block, say."""
    (root / "register.jws").write_bytes(b"\xff\xfe\x00")

    assert "UTF-8" in unusable(root).message


def test_a_register_by_somebody_else_is_refused(root: Path, members: Members) -> None:
    """Whoever can write this file cannot sign it."""
    (root / "register.jws").write_text(sign_register(members.register, members.keys["mallory"]))

    assert "not signed" in unusable(root).message


def test_a_tls_key_that_others_may_read_is_refused(root: Path) -> None:
    """It opens the member's line."""
    (root / "tls/key.pem").chmod(0o644)

    assert unusable(root).code is Code.KEY_UNUSABLE


def test_a_subfolder_is_the_owners_alone(root: Path) -> None:
    """Spools hold parameters."""
    assert MemberHome(root).folder("spool").stat().st_mode & 0o777 == 0o700
