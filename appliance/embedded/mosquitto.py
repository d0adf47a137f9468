"""Where the broker's program comes from: this machine, else Debian's packages, unpacked without root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.embedded.errors import BrokerMissingError

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")  # not on an ordinary user's PATH
_DOWNLOAD_S = 120
_LEVELS = 4  # libraries need libraries: Debian 12 takes two steps


@dataclass(frozen=True)
class Program:
    """The broker's program.

    Attributes:
        path: The executable.
        libraries: Folders that the loader must search first; empty for an installed broker.
    """

    path: Path
    libraries: tuple[Path, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What the program needs beside the usual environment."""
        return {"LD_LIBRARY_PATH": ":".join(map(str, self.libraries))} if self.libraries else {}

    def version(self) -> str:
        """The version, such as ``2.0.11``; ``unknown`` if it does not say."""
        shown = _run([str(self.path), "-h"], environment=self.environment)
        found = re.search(r"version (\S+)", shown.stdout + shown.stderr)
        return found.group(1) if found else "unknown"


def cache_folder() -> Path:
    """Where it is kept for all consortia of this user (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedward/mosquitto"


def find_mosquitto(cache: Path, *, search: str | None = None) -> Program:
    """The broker's program.

    Args:
        cache: Where packages are unpacked if need be; the next call, of any process, finds them there.
        search: The folders to look in, as in PATH; the environment's and the usual ones if None.

    Raises:
        BrokerMissingError: Neither installed nor to be had.
    """
    places = os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)) if search is None else search
    installed = shutil.which("mosquitto", path=places)
    if installed:
        return Program(Path(installed))
    return _cached(cache) or _unpacked(cache)


def _unpacked(cache: Path) -> Program:
    """Fetch the package, then what its libraries lack, level by level; others may be doing the same."""
    tools = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
    if tools:
        raise BrokerMissingError(
            f"Mosquitto is not installed, and this machine has no {tools[0]} to fetch Debian's package with."
        )
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerMissingError(
            f"Mosquitto is not installed, and {cache.parent} cannot be made: {error.strerror}.",
            remedy="Install Mosquitto 2.0 or newer, or name a folder that can be written in XDG_CACHE_HOME.",
        ) from error
    with tempfile.TemporaryDirectory(prefix=f"{cache.name}-", dir=cache.parent) as folder:
        _fill(Path(folder) / "new")
        if cache.exists() and _cached(cache) is None:
            with suppress(OSError):  # moved aside at once: another process may be putting its own there
                cache.rename(Path(folder) / "old")
        with suppress(OSError):  # another process was faster
            (Path(folder) / "new").rename(cache)
    program = _cached(cache)
    if program is None:
        raise BrokerMissingError(f"Mosquitto was unpacked into {cache} and does not start there.")
    return program


def _fill(folder: Path) -> None:
    fetched: set[str] = set()
    wanted = ["mosquitto"]
    for _ in range(_LEVELS):
        for package in wanted:
            _fetch(package, folder)
        fetched.update(wanted)
        if _cached(folder) is not None:
            return
        wanted = sorted({need for package in wanted for need in _needs(package)} - fetched)
    raise BrokerMissingError("Mosquitto was unpacked from Debian's packages but does not start on this machine.")


def _cached(cache: Path) -> Program | None:
    """What was unpacked, if it starts: the loader has the last word on whether all libraries are there."""
    path = cache / "root/usr/sbin/mosquitto"
    libraries = tuple(sorted({file.parent for file in (cache / "root").rglob("lib*.so*")}))
    program = Program(path, libraries)
    return program if path.exists() and program.version() != "unknown" else None


def _fetch(package: str, cache: Path) -> None:
    """Fetch one package; apt checks it against the distribution's signed lists."""
    folder = cache / "packages" / package
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    got = _run(["apt-get", "download", "-qq", package], folder=folder)
    debs = list(folder.glob("*.deb"))
    if got.returncode or not debs:
        reason = (got.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BrokerMissingError(
            f"Mosquitto is not installed, and Debian's package '{package}' could not be fetched: {reason}"
        )
    unpacked = _run(["dpkg-deb", "-x", str(debs[0]), str(cache / "root")])
    if unpacked.returncode:
        raise BrokerMissingError(f"Debian's package '{package}' could not be unpacked: {unpacked.stderr.strip()}")


def _needs(package: str) -> list[str]:
    """The libraries that the package depends on and this machine lacks."""
    shown = _run(["apt-cache", "depends", "--important", package]).stdout
    names = re.findall(r"^ *Depends: (lib[a-z0-9.+-]+)$", shown, flags=re.MULTILINE)
    return [name for name in names if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    shown = _run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package])
    return shown.stdout == "installed"


def _run(
    command: list[str], *, folder: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - fixed programs, and package names from the package lists
            command,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", f"{type(error).__name__}")
