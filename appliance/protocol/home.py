"""A member's folder: who it is, whom it believes, where the network host is.

HOME/
member.toml     id, the operator's pinned key, the network host's endpoints
register.jws    the membership register, in the operator's signature
keys/           identity.pem, sealing.pem (0600; made here, never copied)
tls/            ca.pem, cert.pem, key.pem (0600)
images.toml     what the parts run from, as the deployment writes it; absent where they run from no images
store/ spool/ run/ data/     as the component needs them
"""

from __future__ import annotations

import hashlib
import ssl
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, Field

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.files import locked, replace_file
from appliance.protocol.keys import MemberKeys, require_secret
from appliance.protocol.register import KeyText, MemberId, Register, open_register
from appliance.protocol.settings import read_settings, read_text

_log = structlog.get_logger(__name__)


class Route(StrEnum):
    """How an endpoint is reached."""

    DIRECT = "direct"  # no VPN: loopback
    UDP = "udp"  # through WireGuard
    TCP443 = "tcp443"  # through the relay on TCP 443


class Endpoint(BaseModel):
    """One way to the network host. Members try them in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    route: Route = Route.DIRECT
    broker_host: str
    broker_port: int = Field(ge=1, le=65535)
    rest_url: str = Field(pattern=r"^https://")


class MemberSettings(BaseModel):
    """``member.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: MemberId
    operator: KeyText
    endpoints: tuple[Endpoint, ...] = Field(min_length=1)


class ImageSettings(BaseModel):
    """``images.toml``: ``[images]`` with an image's id for each part, such as ``warden = "sha256:…"``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: dict[str, str] = {}


@dataclass(frozen=True)
class TlsFiles:
    """The files of a member's transport identity."""

    ca: Path
    certificate: Path
    key: Path

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let a context show this identity, and believe the consortium's CA and no other.

        Raises:
            ConfigurationError: A file is missing or is not what it should be.
        """
        try:
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"{self.certificate.parent}: the TLS files cannot be used ({type(error).__name__}).",
                code=Code.KEY_UNUSABLE,
            ) from error


class MemberHome:
    """Reads a member's folder.

    Raises:
        ConfigurationError: A file is missing, malformed, or a secret that others may read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = read_settings(root / "member.toml", MemberSettings)
        self.tls = TlsFiles(root / "tls/ca.pem", root / "tls/cert.pem", root / "tls/key.pem")
        require_secret(self.tls.key)

    @property
    def member_id(self) -> str:
        """Whose folder this is."""
        return self.settings.id

    def keys(self) -> MemberKeys:
        """The member's private keys."""
        return MemberKeys.load(self.root / "keys")

    def register(self, *, newer_than: int = 0) -> Register:
        """The membership register, checked against the pinned operator key."""
        text = read_text(self.root / "register.jws")
        return open_register(text, self.settings.operator, newer_than=newer_than)

    def register_digest(self) -> str:
        """SHA-256 (hex) of the register's signed text, by which a network host knows whether we have its own."""
        return hashlib.sha256(read_text(self.root / "register.jws").strip().encode()).hexdigest()

    def take_register(self, text: str) -> bool:
        """Put a newer register in the place of the one held; says whether it was newer. Processes take turns.

        Raises:
            ConfigurationError: Not signed by the pinned operator, or older than the one held.
        """
        with locked(self.root):
            held = self.register()
            is_newer = open_register(text, self.settings.operator, newer_than=held.version).version > held.version
            if is_newer:
                replace_file(self.root / "register.jws", text)
        return is_newer

    def folder(self, name: str) -> Path:
        """A subfolder with mode 0700, made when it is missing."""
        path = self.root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


class RegisterFile:
    """The membership register, read again when its file has changed; an older version is never taken back."""

    def __init__(self, home: MemberHome) -> None:
        self._home = home
        self._path = home.root / "register.jws"
        self._lock = threading.Lock()
        self._register = home.register()
        self._seen = self._stamp()

    def __call__(self) -> Register:
        """The register in force."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._reload()
            return self._register

    def _stamp(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def _reload(self) -> None:
        try:
            self._register = self._home.register(newer_than=self._register.version)
        except ConfigurationError as error:
            _log.warning("the new membership register was refused", reason=error.message)
