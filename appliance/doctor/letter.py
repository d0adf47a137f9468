"""The request to the hospital's firewall team, from this machine's own settings."""

from __future__ import annotations

import datetime as dt
import json
import socket
import tomllib
from dataclasses import dataclass
from urllib.parse import urlsplit

from appliance.doctor import sources
from appliance.doctor.host import Host, Kind
from appliance.doctor.names import addresses
from appliance.protocol.errors import ConfigurationError

_GUI_PORT = 8444
_KIT_PORT = 8888
_LETTER = """\
# Request to the firewall team: {machine}

- Date: {date}
- Machine: {machine} ({addresses})
- Owner: {institution}; {contact}

This machine takes part in a federated-learning consortium (FedWard). Patients' records stay on it; trained model
parameters leave it, encrypted, through one WireGuard tunnel that it opens itself. Please allow:

| direction | protocol | port | to | reason |
|---|---|---|---|---|
{rows}

- **From outside: nothing inbound.** No port is forwarded to this machine, and none is asked for.
- **From inside the hospital**: {inside}
- Answers to the UDP line must come back for 60 seconds after a packet: the tunnel sends one every 25 seconds.
- The tunnel's packets cannot be inspected and need no proxy; inside is TLS 1.3 with the consortium's certificates on
  both ends.
- No other destination is needed. The machine's own firewall refuses everything else from its containers.
"""


@dataclass(frozen=True)
class Line:
    """One line that is asked for: always from this machine outwards."""

    protocol: str
    port: str
    host: str
    reason: str


@dataclass(frozen=True)
class Owner:
    """Who answers for the machine."""

    institution: str = "(institution)"
    contact: str = "(name, telephone)"


def write(host: Host, *, today: dt.date, machine: str | None = None) -> str:
    """The letter, as Markdown that is read as plain text as well.

    Args:
        today: The letter's date.
        machine: What the machine is called; its own name without it.

    Raises:
        ConfigurationError: No hub is known.
    """
    if host.kind is Kind.HUB:
        raise ConfigurationError(
            "This host is the hub: its own firewall lets UDP in to the port in vpn.toml.",
            remedy="Write the letter on a hospital's or researcher's host, or say --as node and --hub.",
        )
    if not host.hubs and (closed := host.closed()):
        raise ConfigurationError(
            f"The hub is in {closed}, which only root may look into.", remedy="Say the command with sudo."
        )
    if not host.hubs:
        raise ConfigurationError(
            "No hub is known here yet.", remedy="Give its endpoint: fedward doctor --letter --hub vpn.example.org:51820"
        )
    owner = _owner(host)
    machine = machine or socket.gethostname()
    return _LETTER.format(
        machine=machine,
        date=today.isoformat(),
        addresses=", ".join(_own_addresses(host)) or "address: see below",
        institution=owner.institution,
        contact=owner.contact,
        rows="\n".join(
            f"| out | {line.protocol} | {line.port} | {line.host} | {line.reason} |" for line in lines(host)
        ),
        inside=_inside(host),
    )


def lines(host: Host) -> list[Line]:
    """What this machine needs outwards, as it is set today."""
    found = [
        Line("UDP", str(hub.port), _shown(hub.host), "VPN to the consortium's hub (WireGuard)") for hub in host.hubs
    ]
    found += [Line("UDP and TCP", "53", server, "DNS: the hub's and the mirrors' names")
              for server in sources.name_servers(host) if not server.startswith("127.")]  # fmt: skip
    found += [Line("UDP", "123", server, "NTP: messages more than two minutes off are refused")
              for server in sources.time_servers(host)]  # fmt: skip
    proxies = sources.proxies(host)
    found += [_tcp(proxy, "security updates (Debian packages), by the proxy") for proxy in proxies]
    if not proxies:
        found += [_tcp(mirror, "security updates (Debian packages)") for mirror in sources.mirrors(host)]
    return found


def _tcp(address: str, reason: str) -> Line:
    parts = urlsplit(address)
    return Line("TCP", str(parts.port or (443 if parts.scheme == "https" else 80)), parts.hostname or address, reason)


def _shown(name: str) -> str:
    """A name with its addresses of today, for firewalls that know addresses alone."""
    try:
        found = [each for each in addresses(name, 0) if each != name]
    except OSError:
        found = []
    return f"{name} (today {', '.join(found)})" if found else name


def _inside(host: Host) -> str:
    if host.kind is Kind.RESEARCHER:
        port = f"TCP {_KIT_PORT} (HTTPS, the researcher's notebooks) from the researchers' network"
    elif host.kind is Kind.FEDERATOR:
        return "SSH from the administrators'."
    else:
        port = f"TCP {_gui_port(host)} (HTTPS, the node's GUI) from the staff networks"
    return f"{port}; SSH from the administrators'."


def _gui_port(host: Host) -> int:
    if host.home is None:
        return _GUI_PORT
    try:
        return int(tomllib.loads((host.home / "gui.toml").read_text("utf-8")).get("port", _GUI_PORT))
    except (OSError, ValueError, TypeError):
        return _GUI_PORT


def _owner(host: Host) -> Owner:
    """As the join request says; there is none before the machine was prepared."""
    if host.home is None:
        return Owner()
    try:
        request = json.loads((host.home / "join-request.json").read_text("utf-8"))
        return Owner(str(request["institution"]), str(request["contact"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Owner()


def _own_addresses(host: Host) -> list[str]:
    """The address that this machine sends from, towards each hub."""
    found = []
    for hub in host.hubs:
        try:
            outside = addresses(hub.host, hub.port)[0]
            with socket.socket(socket.AF_INET6 if ":" in outside else socket.AF_INET, socket.SOCK_DGRAM) as line:
                line.connect((outside, hub.port))  # chooses a route; sends nothing
                found.append(str(line.getsockname()[0]))
        except OSError:
            continue
    return list(dict.fromkeys(found))
