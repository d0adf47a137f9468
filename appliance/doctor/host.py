"""What this machine is, by what lies on it.

/etc/fedward/vpn/vpn.toml     its end of the VPN
/var/lib/fedward/PART         a part's folder: network (at the hub), node, researcher
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.doctor.commands import Run, run
from appliance.protocol.errors import ConfigurationError, FedWardError
from appliance.protocol.home import Endpoint, MemberSettings
from appliance.protocol.settings import read_settings

if TYPE_CHECKING:  # needs the package wireguard-tools, which only a site's hosts have
    from appliance.vpn.config import Endpoint as HubEndpoint
    from appliance.vpn.config import VpnSettings


class Kind(StrEnum):
    """What a host is in the consortium."""

    HUB = "hub"
    NODE = "node"
    RESEARCHER = "researcher"
    FEDERATOR = "federator"
    OPERATOR = "operator"
    NOTHING = "nothing yet"


_PARTS = {Kind.HUB: "network", Kind.NODE: "node", Kind.RESEARCHER: "researcher", Kind.FEDERATOR: "federator"}
OPERATOR_HOME = "FEDWARD_OPERATOR_HOME"


@dataclass(frozen=True)
class Host:
    """A machine, as the checks see it.

    Attributes:
        root: Its file system.
        home: The folder of its part; None before the installation.
        member: What ``member.toml`` in there says, once it has joined.
        vpn: Its end of the VPN, once it is set up.
        asked_hubs: The hub's endpoints as the caller gave them, for a machine that does not know them yet.
        faults: Settings that are there and cannot be read: where, and why.
        run: Runs the machine's own tools.
        environment: The variables that were set for the caller.
    """

    kind: Kind
    root: Path = Path("/")
    home: Path | None = None
    member: MemberSettings | None = None
    vpn: VpnSettings | None = None
    asked_hubs: tuple[HubEndpoint, ...] = ()
    faults: tuple[tuple[Path, str], ...] = ()
    run: Run = run
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_site(self) -> bool:
        """Whether the deployment set it up, or its VPN at least."""
        return self.vpn is not None or (self.home is not None and self.home == self._usual_home())

    @property
    def hubs(self) -> tuple[HubEndpoint, ...]:
        """Where the hub is looked for from outside (UDP)."""
        if self.vpn is not None and self.vpn.member is not None:
            return self.vpn.member.hub_endpoints
        return self.asked_hubs

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where broker and REST service are."""
        return self.member.endpoints if self.member else ()

    def path(self, place: str) -> Path:
        """A place on this machine: ``etc/fedward``."""
        return self.root / place

    def closed(self) -> Path | None:
        """A folder of ours that this user may not look into, so that what is in it is not known."""
        places = (self.path("etc/fedward/vpn"), self.path("var/lib/fedward"), *([self.home] if self.home else []))
        return next((place for place in places if is_closed(place)), None)

    def texts(self, *patterns: str) -> list[str]:
        """The texts of the files that patterns such as ``etc/apt/*.list`` name; what cannot be read is left out."""
        found = []
        for pattern in patterns:
            for path in sorted(self.root.glob(pattern)):
                try:
                    found.append(path.read_text("utf-8", errors="replace"))
                except OSError:
                    continue
        return found

    def _usual_home(self) -> Path | None:
        return self.path(f"var/lib/fedward/{_PARTS[self.kind]}") if self.kind in _PARTS else None


def find_host(
    root: Path = Path("/"),
    *,
    kind: Kind | None = None,
    home: Path | None = None,
    hubs: Sequence[str] = (),
    run: Run = run,
    environment: Mapping[str, str] = os.environ,
) -> Host:
    """Find out what a machine is.

    Args:
        kind: What it is or shall be, where it cannot or need not be found out.
        home: The folder of its part, where it is not the usual one.
        hubs: The hub's endpoints, ``vpn.example.org:51820``, for a machine that does not know them yet.

    Raises:
        ConfigurationError: An endpoint in ``hubs`` is none, or the VPN's library is not installed.
    """
    faults: list[tuple[Path, str]] = []
    vpn = _read_vpn(root / "etc/fedward/vpn/vpn.toml", faults)
    kind = kind or _kind(root, vpn, home, environment)
    home = home or _home(root, kind)
    return Host(
        kind=kind,
        root=root,
        home=home,
        member=_read_member(home, faults),
        vpn=vpn,
        asked_hubs=tuple(_hub(text) for text in hubs),
        faults=tuple(faults),
        run=run,
        environment=environment,
    )


def is_there(path: Path) -> bool:
    """Whether it exists, as far as this user may see."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where a folder is closed to us


def is_closed(path: Path) -> bool:
    """Whether it is there and this user may not look into it."""
    return is_there(path) and not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)


def _kind(root: Path, vpn: VpnSettings | None, home: Path | None, environment: Mapping[str, str]) -> Kind:
    if home is not None:
        return Kind.HUB if is_there(home / "network.toml") else Kind.NODE
    if vpn is not None and vpn.hub is not None:
        return Kind.HUB
    for kind in _PARTS:
        if _home(root, kind):
            return kind
    return Kind.OPERATOR if environment.get(OPERATOR_HOME) else Kind.NOTHING


def _home(root: Path, kind: Kind) -> Path | None:
    if kind not in _PARTS:
        return None
    path = root / "var/lib/fedward" / _PARTS[kind]
    return path if is_there(path) else None


def _read_vpn(path: Path, faults: list[tuple[Path, str]]) -> VpnSettings | None:
    if not is_there(path):
        return None
    try:
        from appliance.vpn.config import VpnSettings  # noqa: PLC0415 - as above

        return read_settings(path, VpnSettings)
    except ModuleNotFoundError:
        faults.append((path, "the VPN's library is not installed here: pip install 'fedward[site]'"))
    except ConfigurationError as error:
        faults.append((path, error.message))
    return None


def _read_member(home: Path | None, faults: list[tuple[Path, str]]) -> MemberSettings | None:
    if home is None or not is_there(path := home / "member.toml"):
        return None
    try:
        return read_settings(path, MemberSettings)
    except FedWardError as error:
        faults.append((path, error.message))
    return None


def _hub(text: str) -> HubEndpoint:
    try:
        from appliance.vpn.config import Endpoint as HubEndpoint  # noqa: PLC0415 - as above

        return HubEndpoint.parse(text)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "The VPN's library is not installed here.", remedy="Install FedWard with its extra 'site'."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"--hub: {error}.", remedy="Give it as --hub vpn.example.org:51820") from error
