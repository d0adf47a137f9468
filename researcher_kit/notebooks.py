"""The notebook service's settings, its one-time links, and the tutorials.

HOME/
kit.toml          the settings; each key overridable as FEDWARD_KIT__KEY
kit/link.json     the SHA-256 of the one-time link that opens next, and when it ends (0600)
kit/tls/          the certificate that the service makes for itself
kit/cookies       what sessions are signed with (0600)
notebooks/        what the researcher writes; in tutorials/ the release's tutorials
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.protocol.files import replace_file
from appliance.protocol.settings import ComponentSettings, read_settings

LINK_FILE = "kit/link.json"
TUTORIALS = Path(__file__).with_name("tutorials")
_PLACED = ".placed.json"  # the SHA-256 of each tutorial as it was put there


class KitConfig(ComponentSettings):
    """How the notebook service runs. Paths are relative to the researcher's folder.

    Attributes:
        host: The address to listen on.
        port: The port.
        address: How the researcher reaches it, when that is another name than host and port.
        certificate: A certificate of the institution's (PEM, with its chain); the service's own if None.
        key: Its private key (PEM, mode 0600).
        invitation_hours: How long a one-time link opens.
        session_hours: A session ends after so long.
    """

    model_config = SettingsConfigDict(env_prefix="FEDWARD_KIT__")

    host: str = "127.0.0.1"
    port: int = Field(default=8888, ge=1, le=65535)
    address: str | None = Field(default=None, pattern=r"^https://[^/\s]+$")
    certificate: Path | None = None
    key: Path | None = None
    invitation_hours: float = Field(default=24, gt=0, le=168)
    session_hours: float = Field(default=12, gt=0, le=168)

    @property
    def shown_address(self) -> str:
        """What a person types."""
        return self.address or f"https://localhost:{self.port}"


def read_config(home: Path) -> KitConfig:
    """The settings of the notebook service in ``home``; a missing file means the defaults.

    Raises:
        ConfigurationError: A setting is unknown or has a wrong value; names file and setting.
    """
    return read_settings(home / "kit.toml", KitConfig, is_required=False)


class OneTimeLink:
    """The one link that opens a session, once. Only its hash lies on the disk."""

    def __init__(self, home: Path) -> None:
        self._path = home / LINK_FILE

    def make(self, hours: float) -> str:
        """A new token; the one before it opens no more."""
        token = secrets.token_urlsafe(32)
        replace_file(self._path, json.dumps({"sha256": _digest(token), "until": time.time() + 3600 * hours}))
        self._path.chmod(0o600)
        return token

    def redeem(self, token: str) -> bool:
        """Whether this token opens a session; it never does so again."""
        try:
            kept = json.loads(self._path.read_text())
            if time.time() >= kept["until"] or not hmac.compare_digest(kept["sha256"], _digest(token)):
                return False
            self._path.unlink()  # of two that come at once, one fails here
        except FileNotFoundError:
            return False
        return True


def place_tutorials(notebooks: Path) -> None:
    """Put this release's tutorials into ``tutorials`` there; one that the researcher changed stays as it is."""
    folder = notebooks / "tutorials"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        placed = dict(json.loads((folder / _PLACED).read_text()))
    except (FileNotFoundError, ValueError):
        placed = {}
    for tutorial in sorted(TUTORIALS.glob("*.ipynb")):
        text, mine = tutorial.read_text(), folder / tutorial.name
        if not mine.exists() or _digest(mine.read_text(errors="replace")) == placed.get(mine.name):
            replace_file(mine, text)
            placed[mine.name] = _digest(text)
    replace_file(folder / _PLACED, json.dumps(placed, indent=1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
