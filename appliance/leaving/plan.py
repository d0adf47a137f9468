"""In which order a host leaves: what runs ends first, what is kept is kept before anything goes, the program goes last.

The firewall stays until nothing is left that it holds back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from appliance.leaving.errors import LeavingError
from appliance.leaving.found import INTERFACE, TABLE, Found, Home
from appliance.leaving.steps import Command, Keep, Remove, Step

ARCHIVES = "var/lib/fedward-left"
_FIREWALL = "fedward-firewall.service"
_STOP_S = 30


def make(found: Found, *, root: Path, today: dt.date, erase: bool = False) -> list[Step]:
    """The steps, in their order; none on a host that has nothing of ours.

    Args:
        today: Stands in the archive's name.
        erase: Keep no archive.

    Raises:
        LeavingError: The host is the hub, or the hospital's own data lies in a folder that would go.
    """
    if found.is_hub:
        raise LeavingError(
            "This host is the consortium's hub: without it nobody trains.",
            remedy="A consortium is ended by its operator, who revokes its members and takes the hub down.",
        )
    for home in found.homes:
        _require_no_data(home)
    return [
        *_ended(found),
        *([] if erase else [Keep(home.path, _archive(root, home, today)) for home in found.homes]),
        *(Remove(home.path, f"Remove {home.path}, with its private keys") for home in found.homes),
        *(_without_folder(home.path.parent) for home in found.homes),
        *_docker(found),
        *(Remove(path) for path in (*found.places, *found.callers)),
        *(Command(("userdel", user), f"Remove the system user {user}") for user in found.users),
        *_firewall(found),
        *(Remove(path) for path in found.program),
    ]


def stays(found: Found) -> list[str]:
    """What is left on purpose: sentences."""
    data = sorted({str(home.data) for home in found.homes})
    return [
        *(f"The data folder {folder} is the hospital's own and is not touched." for folder in data),
        "Docker, the packages and the settings that harden this host (SSH, kernel, accounts, updates, proxy) stay.",
        "Backups stay, in /var/backups/fedward and wherever the hospital took them; they hold records, and no keys.",
    ]


def farewell(found: Found, today: dt.date) -> str:
    """What to send to the operator: only they can end what the others believe of this member."""
    who = found.member or "this member"
    return (
        f"To the consortium's operator: '{who}' left on {today.isoformat()}. "
        f"Please revoke it: fedward member revoke {found.member or 'ID'}"
    )


def _ended(found: Found) -> Iterator[Step]:
    # Timers first: one that starts its service meanwhile would cancel that service's end.
    for unit in sorted(found.units, key=lambda unit: (unit.suffix != ".timer", unit.name)):
        if unit.name != _FIREWALL:
            yield Command(("systemctl", "disable", "--now", unit.name), f"Stop {unit.name}")
    for name in found.containers:
        # It may end what it has begun; then Docker ends it.
        yield Command(("docker", "stop", "--time", str(_STOP_S), name), f"Stop the container {name}")
        yield Command(("docker", "rm", "--force", "--volumes", name), f"Remove the container {name}")
    if found.has_tunnel or found.tunnel_file:
        yield Command(("systemctl", "disable", "--now", f"wg-quick@{INTERFACE}.service"), "Stop the VPN")
    if found.has_tunnel:
        yield Command(("ip", "link", "delete", "dev", INTERFACE), f"Remove the interface {INTERFACE}", may_be_gone=True)
    if found.tunnel_file:
        yield Remove(found.tunnel_file, f"Remove {found.tunnel_file}, with the VPN's private key")


def _without_folder(folder: Path) -> Step:
    """What somebody else put in there stays, and the folder with it."""
    words = ("rmdir", "--ignore-fail-on-non-empty", str(folder))
    return Command(words, f"Remove {folder}, if it is empty", may_be_gone=True)


def _docker(found: Found) -> Iterator[Step]:
    for name in found.networks:
        yield Command(("docker", "network", "rm", name), f"Remove the Docker network {name}")
    for name in found.volumes:
        yield Command(("docker", "volume", "rm", name), f"Remove the Docker volume {name}")
    for name in found.images:
        yield Command(("docker", "image", "rm", "--force", name), f"Remove the image {name}")


def _firewall(found: Found) -> Iterator[Step]:
    names = {unit.name for unit in found.units}
    if _FIREWALL in names:
        yield Command(("systemctl", "disable", "--now", _FIREWALL), f"Stop {_FIREWALL}")
    if found.has_table:
        yield Command(
            ("nft", "delete", "table", *TABLE.split()), f"Remove the firewall's table '{TABLE}'", may_be_gone=True
        )
    for unit in found.units:
        yield Remove(unit)
    if found.units or found.callers:
        yield Command(("systemctl", "daemon-reload"), "Let systemd forget them")


def _archive(root: Path, home: Home, today: dt.date) -> Path:
    return root / ARCHIVES / f"{home.member or home.path.name}-{today.isoformat()}.tar.gz"


def _require_no_data(home: Home) -> None:
    remedy = "Move it elsewhere first, or unmount it; 'fedward leave' removes the whole folder."
    if home.data.exists() and home.data.is_relative_to(home.path.resolve()):
        raise LeavingError(f"The hospital's data lie in {home.data}, inside the node's own folder.", remedy=remedy)
    if (home.path / "data").is_dir() and any((home.path / "data").iterdir()):
        raise LeavingError(f"{home.path / 'data'} is not empty: it may hold the hospital's data.", remedy=remedy)
    if home.mounts:
        raise LeavingError(f"{home.mounts[0]} is mounted inside the node's own folder.", remedy=remedy)
