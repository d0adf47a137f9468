"""What of ours is on a host: only what has our name, or lies where only we put things."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.doctor.commands import CommandError, Run
from appliance.leaving.errors import LeavingError

INTERFACE = "fedward0"
TABLE = "inet fedward"
_CONTAINERS = frozenset({"fedward-warden", "fedward-runner", "fedward-gui", "fedward-kit"})
# The names of services on a member's host; their numbers are those in the containers, so that they say nothing.
_USERS = frozenset({"fedward-node", "fedward-researcher"})
_NETWORKS = frozenset({"fdw-warden", "fdw-gui", "fdw-kit"})
_PARTS = ("node", "researcher")
_UNITS = "etc/systemd/system"
_UNIT = re.compile(r"fedward-[a-z@-]+\.(service|timer|socket|path)")
# Settings of other programs that call ours: those programs would stumble over them once ours is gone.
_CALLERS = (f"{_UNITS}/*.d", "etc/apt/apt.conf.d", "etc/cron.d", "etc/sudoers.d", "etc/logrotate.d")
_CALLS = re.compile(
    r"/(?:opt|etc)/fedward/|/usr/local/(?:s?bin|lib)/fedward|\bfedward-[a-z@-]+\.(service|timer|socket|path)"
)
# What only our roles write, and only for our own use.
_PLACES = (
    "etc/fedward",
    "var/cache/fedward",
    "usr/local/lib/fedward",
    "run/fedward-network",
    "run/fedward",
    f"{_UNITS}/wg-quick@{INTERFACE}.service.d",
)
_PROGRAM = ("usr/local/bin/fedward", "opt/fedward")


@dataclass(frozen=True)
class Home:
    """A part's folder.

    Attributes:
        member: Whose it is, or None where that cannot be read.
        data: The folder of the hospital's data, as the node is set to read it.
        mounts: What is mounted inside of it.
    """

    path: Path
    member: str | None
    data: Path
    mounts: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Found:
    """What of ours is there. Empty in all its parts on a host that has left."""

    homes: tuple[Home, ...] = ()
    containers: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    units: tuple[Path, ...] = ()
    callers: tuple[Path, ...] = ()
    has_tunnel: bool = False
    tunnel_file: Path | None = None
    has_table: bool = False
    users: tuple[str, ...] = ()
    places: tuple[Path, ...] = ()
    program: tuple[Path, ...] = ()
    is_hub: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is left but, perhaps, the program itself."""
        return self == Found(program=self.program)

    @property
    def member(self) -> str | None:
        """Who leaves."""
        return next((home.member for home in self.homes if home.member), None)


def look(root: Path, run: Run) -> Found:
    """Look at a host; changes nothing.

    Raises:
        LeavingError: Docker is installed and does not answer: what runs in it cannot be known.
    """
    systemd = root / _UNITS
    containers = [name for name in _docker(run, "ps", "--all", "--format", "{{.Names}}") if name in _CONTAINERS]
    return Found(
        homes=tuple(_homes(root)),
        containers=tuple(sorted(containers)),
        networks=tuple(sorted(_NETWORKS & set(_docker(run, "network", "ls", "--format", "{{.Name}}")))),
        volumes=tuple(_ours(_docker(run, "volume", "ls", "--format", "{{.Name}}"), "fedward-")),
        images=tuple(_images(run)),
        units=tuple(sorted(path for path in systemd.glob("fedward-*") if _UNIT.fullmatch(path.name))),
        callers=tuple(_callers(root)),
        has_tunnel=_says(run, INTERFACE, "ip", "-o", "link", "show", "dev", INTERFACE),
        tunnel_file=_present(root / f"etc/wireguard/{INTERFACE}.conf"),
        has_table=_says(run, f"table {TABLE}", "nft", "list", "tables"),
        users=tuple(_users(root)),
        places=_all_present(root, (*_PLACES, *_names(root, "usr/local/sbin/fedward-*"))),
        program=_all_present(root, _PROGRAM),
        is_hub=(root / "var/lib/fedward/network").exists() or (root / "var/lib/fedward/authority").exists(),
    )


def _homes(root: Path) -> Iterable[Home]:
    for part in _PARTS:
        path = root / "var/lib/fedward" / part
        if path.is_dir() and not path.is_symlink():
            data = Path(str(_setting(path / "node.toml", "data_folder") or "/srv/fedward/data"))
            yield Home(path, _member(path), _inside(root, path, data), tuple(_mounts(root, path)))


def _member(home: Path) -> str | None:
    if found := _setting(home / "member.toml", "id"):
        return str(found)
    try:
        return str(json.loads((home / "join-request.json").read_text("utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _setting(path: Path, name: str) -> object:
    try:
        return tomllib.loads(path.read_text("utf-8")).get(name)
    except (OSError, ValueError):
        return None


def _inside(root: Path, home: Path, folder: Path) -> Path:
    """The folder that a setting names, on the machine that is looked at."""
    return (root / folder.relative_to("/") if folder.is_absolute() else home / folder).resolve()


def _mounts(root: Path, home: Path) -> Iterable[Path]:
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    inside = Path("/") / home.relative_to(root)
    points = {Path(line.split()[4].replace("\\040", " ")) for line in lines}
    yield from sorted(point for point in points if point != inside and point.is_relative_to(inside))


def _callers(root: Path) -> Iterable[Path]:
    for folder in _CALLERS:
        for path in sorted(root.glob(f"{folder}/*fedward*")):
            if path.is_file() and _CALLS.search(path.read_text("utf-8", errors="replace")):
                yield path


def _users(root: Path) -> Iterable[str]:
    try:
        lines = (root / "etc/passwd").read_text("utf-8").splitlines()
    except OSError:
        return []
    return sorted(_USERS & {line.partition(":")[0] for line in lines})


def _images(run: Run) -> Iterable[str]:
    for line in _docker(run, "image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"):
        name, _, number = line.partition(" ")
        if name.startswith("fedward/"):
            yield number if name.endswith(":<none>") else name


def _docker(run: Run, *words: str) -> list[str]:
    try:
        return run("docker", *words).splitlines()
    except CommandError as error:
        if error.is_missing:
            return []
        raise LeavingError(f"Docker does not say what runs in it: {error.text}.") from error


def _says(run: Run, text: str, *command: str) -> bool:
    try:
        return text in run(*command)
    except CommandError:  # the tool is not here, or there is no such thing
        return False


def _ours(names: Iterable[str], beginning: str) -> list[str]:
    return sorted(name for name in names if name.startswith(beginning))


def _names(root: Path, pattern: str) -> list[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob(pattern))]


def _all_present(root: Path, places: Iterable[str]) -> tuple[Path, ...]:
    return tuple(path for place in places if (path := _present(root / place)))


def _present(path: Path) -> Path | None:
    return path if os.path.lexists(path) else None
