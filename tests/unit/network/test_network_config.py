"""network.toml."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from appliance.network.config import database_settings, read_config, secret_key, store_settings
from appliance.protocol.errors import ConfigurationError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a readable file of settings."""
    (tmp_path / "network.toml").write_text("quota_bytes = 5\n")
    return tmp_path


def test_the_file_is_read(home: Path) -> None:
    """And what it does not name keeps its default."""
    assert read_config(home).quota_bytes == 5
    assert read_config(home).database == "sqlite"


def test_the_environment_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image serves many hosts."""
    monkeypatch.setenv("FEDWARD_NETWORK__QUOTA_BYTES", "7")

    assert read_config(home).quota_bytes == 7


def test_the_settings_do_not_change_while_they_are_used(home: Path) -> None:
    """Threads share them."""
    with pytest.raises(ValueError, match="frozen"):
        read_config(home).quota_bytes = 1


@pytest.mark.parametrize("text", ["quota_byte = 5", "quota_bytes = 'many'", "quota_bytes =", "database = 'mysql://x'"])
def test_a_wrong_setting_is_named(text: str, home: Path) -> None:
    """File and setting, for whoever mends it."""
    (home / "network.toml").write_text(text)

    with pytest.raises(ConfigurationError, match=r"network\.toml"):
        read_config(home)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Rather than a host that starts with defaults nobody chose."""
    with pytest.raises(ConfigurationError, match=r"network\.toml"):
        read_config(tmp_path)


def test_a_password_in_the_file_makes_it_a_secret(home: Path) -> None:
    """Secrets are files with mode 0600."""
    file = home / "network.toml"
    file.write_text("database = 'postgresql://fedward:hunter2@db/fedward'")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="0600"):
        read_config(home)

    file.chmod(0o600)
    assert read_config(home).database.startswith("postgresql")


def test_the_secret_key_is_made_once_and_for_us_alone(home: Path) -> None:
    """At the first start, with mode 0600."""
    first = secret_key(home)

    assert secret_key(home) == first
    assert stat.S_IMODE((home / "secret.key").stat().st_mode) == 0o600


def test_sqlite_acknowledges_what_is_on_the_disk(home: Path) -> None:
    """A power cut must not take back an answer."""
    command = database_settings("sqlite", home)["OPTIONS"]["init_command"]

    assert "synchronous=FULL" in command
    assert "journal_mode=WAL" in command


def test_postgresql_is_one_setting(home: Path) -> None:
    """With libpq's own parameters, as for a password file."""
    settings = database_settings("postgresql://fed%40ward@db:5433/net?passfile=/run/pw&sslmode=verify-full", home)

    assert (settings["USER"], settings["HOST"], settings["PORT"], settings["NAME"]) == ("fed@ward", "db", "5433", "net")
    assert settings["OPTIONS"] == {"passfile": "/run/pw", "sslmode": "verify-full"}


def test_s3_is_one_setting_with_its_keys_in_a_secret_file(home: Path) -> None:
    """The keys are in no setting and in no environment."""
    keys = home / "s3.ini"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n")
    keys.chmod(0o600)

    options = store_settings("s3://bucket/folder?endpoint=http://127.0.0.1:1&region=eu", home)["OPTIONS"]

    assert (options["bucket_name"], options["location"], options["secret_key"]) == ("bucket", "folder", "b%c")


@pytest.mark.parametrize("text", ["", "[default]\naws_access_key_id = a\n", "nonsense"])
def test_a_faulty_key_file_is_named(text: str, home: Path) -> None:
    """And its content is not."""
    keys = home / "s3.ini"
    keys.write_text(text)
    keys.chmod(0o600)

    with pytest.raises(ConfigurationError, match=r"s3\.ini"):
        store_settings("s3://bucket", home)
