"""The network host's settings: ``network.toml`` in its folder, each key overridable as ``FEDWARD_NETWORK__KEY``.

HOME/
network.toml    these settings
register.jws    the membership register as the operator brought it; a newer one counts from the next call on
secret.key      Django's secret (0600; made at the first start)
metrics.token   opens /metrics, for monitoring that wants it (0600)
tls/            ca.pem, cert.pem, key.pem (0600)
store/          network.sqlite3, uploads/, parameters/
run/            rest.port
"""

from __future__ import annotations

import configparser
import secrets
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import TlsFiles
from appliance.protocol.keys import require_secret, write_secret
from appliance.protocol.register import KeyText
from appliance.protocol.settings import ComponentSettings, read_settings

FILE_NAME = "network.toml"
_MIB, _GIB, _DAY = 1 << 20, 1 << 30, 86_400
Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class NetworkConfig(ComponentSettings):
    """How the network host runs.

    Attributes:
        operator: The operator's Ed25519 public key (base64url), by which the register is believed.
        database: ``sqlite``, or ``postgresql://USER@HOST/NAME`` with libpq's parameters (``?passfile=FILE``).
        parameters: ``disk``, or ``s3://BUCKET?endpoint=URL&region=NAME&credentials=FILE``.
        max_upload_bytes: The largest single upload.
        quota_bytes: What one member's uploads may take up together.
        keep_s: How long a whole upload is kept.
        keep_unfinished_s: How long an upload that does not grow is kept.
        reserve_bytes: Disk space that uploads leave free.
        max_job_bytes: The largest job specification.
        collect_every_s: Seconds between two collections of what has expired.
        workers: Processes that answer calls.
        threads: Calls that one process answers at once; a transfer holds one of them.
        patience_s: How long a connection may stand still in the middle of a call.
        authority_socket: Where the transport authority listens for requests for further certificates.
    """

    model_config = SettingsConfigDict(env_prefix="FEDWARD_NETWORK__")

    operator: KeyText | None = None
    database: str = Field(default="sqlite", pattern=r"^(sqlite|postgresql://.+)$")
    parameters: str = Field(default="disk", pattern=r"^(disk|s3://.+)$")
    max_upload_bytes: Bytes = 16 * _GIB
    quota_bytes: Bytes = 64 * _GIB
    keep_s: Seconds = 7 * _DAY
    keep_unfinished_s: Seconds = _DAY
    reserve_bytes: int = Field(default=256 * _MIB, ge=0)
    max_job_bytes: Bytes = 256 << 10
    collect_every_s: Seconds = 3600
    workers: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=32, ge=2, le=512)
    patience_s: Seconds = 20
    authority_socket: Path = Path("/run/fedward-authority.sock")


def read_config(home: Path) -> NetworkConfig:
    """The settings of the network host in ``home``.

    Raises:
        ConfigurationError: The file is missing, a setting is unknown or has a wrong value; names file and setting.
    """
    path = home / FILE_NAME
    config = read_settings(path, NetworkConfig)
    if _password(config.database):
        require_secret(path)
    return config


def tls_files(home: Path) -> TlsFiles:
    """The network host's transport identity."""
    return TlsFiles(home / "tls/ca.pem", home / "tls/cert.pem", home / "tls/key.pem")


def secret_key(home: Path) -> str:
    """Django's secret, made at the first start.

    Raises:
        ConfigurationError: The file is unreadable, or others may read it.
    """
    path = home / "secret.key"
    if not path.exists():
        try:
            write_secret(path, secrets.token_urlsafe(48).encode("ascii"))
        except FileExistsError:
            pass  # another process of ours was faster
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}.") from error
    return require_secret(path).decode("ascii")


def database_settings(url: str, home: Path) -> dict[str, Any]:
    """Django's entry for the database that ``url`` names."""
    if url == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": home / "store/network.sqlite3",
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",  # two writers wait for each other instead of failing half-way
                "timeout": 10,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
            },
        }
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": _password(url),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": dict(parse_qsl(parts.query)),
    }


def store_settings(url: str, home: Path) -> dict[str, Any]:
    """Django's entry for the storage that ``url`` names.

    Raises:
        ConfigurationError: The credentials file is unreadable, open to others, or not as expected.
    """
    if url == "disk":
        folder = home / "store/parameters"
        return {"BACKEND": "appliance.network.parameters.stores.DiskStore", "OPTIONS": {"location": folder}}
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    options = {
        "bucket_name": parts.hostname,
        "location": parts.path.strip("/"),
        "endpoint_url": query.get("endpoint"),
        "region_name": query.get("region"),
        **_credentials(home / query.get("credentials", "s3.ini")),
    }
    return {"BACKEND": "appliance.network.parameters.bucket.BucketStore", "OPTIONS": options}


def _credentials(path: Path) -> dict[str, str]:
    """The first section of a file in the form that S3 tools share."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(require_secret(path).decode())
        section = parser[parser.sections()[0]]
        return {"access_key": section["aws_access_key_id"], "secret_key": section["aws_secret_access_key"]}
    except (configparser.Error, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: expected aws_access_key_id and aws_secret_access_key in a section."
        ) from error


def _password(url: str) -> str:
    return unquote(urlsplit(url).password or "")
