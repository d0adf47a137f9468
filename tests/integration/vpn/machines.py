"""Machines for the VPN's tests: network namespaces of this one, on one wire, each with real WireGuard.

Every name carries our process id, for WireGuard's control sockets lie in one folder for all namespaces.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from click.testing import Result
from typer.testing import CliRunner

from appliance.cli.main import app

TOOLS = ("ip", "wg", "wg-quick", "wireguard-go")
CONTROL = Path("/run/wireguard")
NETWORKS = ("100.80.0.0/24", "fd42:6665:6477::/64")
WAIT_S = 45
_CLONE_NEWNET = 0x40000000
_PREFIX = f"fw{os.getpid()}"
_libc = ctypes.CDLL(None, use_errno=True)

_R = TypeVar("_R")


def command(*words: str) -> str:
    """What a tool prints; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def eventually(look: Callable[[], _R], what: str) -> _R:
    """What ``look`` gives as soon as it is true."""
    deadline = time.monotonic() + WAIT_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_S} s: {what}")
        time.sleep(0.05)
    return found


class Machine:
    """A machine with an address outside, number ``number`` on the wire."""

    def __init__(self, name: str, number: int, home: Path) -> None:
        self.name = name
        self.space = f"{_PREFIX}-{name}"
        self.interface = f"w{os.getpid()}{chr(ord('a') + number)}"
        self.home = home
        self.outside = f"198.51.100.{number}"
        self.outside_v6 = f"2001:db8:5::{number:x}"
        home.mkdir(mode=0o700)

    def plug_in(self, wire: str) -> None:
        """Make the machine, with a cable to the wire."""
        cable = f"v-{self.name}"
        command("ip", "netns", "add", self.space)
        command("ip", "-n", self.space, "link", "add", "eth0", "type", "veth", "peer", "name", cable, "netns", wire)
        command("ip", "-n", wire, "link", "set", cable, "master", "wire", "up")
        self.ip("address", "add", f"{self.outside}/24", "dev", "eth0")
        self.ip("address", "add", f"{self.outside_v6}/64", "dev", "eth0", "nodad")
        for device in ("lo", "eth0"):
            self.ip("link", "set", device, "up")
        self.forward(False)

    def forward(self, is_on: bool) -> None:
        """Whether this machine passes on what is not for itself, as Docker would have it."""
        value = "1" if is_on else "0"
        for path in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"):
            self.inside(lambda path=path: Path(path).write_text(value))

    def inside(self, work: Callable[[], _R]) -> _R:
        """Do work, and start programs, in this machine; sockets made there stay there."""

        def enter() -> _R:
            descriptor = os.open(f"/run/netns/{self.space}", os.O_RDONLY)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                return work()
            finally:
                os.close(descriptor)

        with ThreadPoolExecutor(1) as thread:  # it alone is in there, and ends
            return thread.submit(enter).result()

    def ip(self, *words: str) -> str:
        """``ip`` in this machine."""
        return command("ip", "-n", self.space, *words)

    def fedward(self, *words: str) -> Result:
        """``fedward vpn …`` on this machine."""
        environment = {"FEDWARD_VPN_HOME": str(self.home), "COLUMNS": "200"}
        return self.inside(lambda: CliRunner().invoke(app, ["vpn", *words], env=environment))

    def does(self, *words: str) -> str:
        """``fedward vpn …`` on this machine, which must succeed; its standard output."""
        result = self.fedward(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def peer(self, public_key: str) -> list[str]:
        """A peer's line of ``wg show dump`` behind its key: preshared key, endpoint, addresses, handshake, bytes."""
        lines = command("ip", "netns", "exec", self.space, "wg", "show", self.interface, "dump").splitlines()[1:]
        return next((line.split("\t")[1:] for line in lines if line.startswith(public_key)), [])

    def configure(self, part: str) -> None:
        """Write vpn.toml; ``part`` is its [hub] or [member]."""
        (self.home / "vpn.toml").write_text(
            f'interface = "{self.interface}"\nnetworks = {list(NETWORKS)}\nwg_quick_folder = "{self.home}"\n{part}'
        )

    def up(self) -> None:
        """Start the interface as systemd does at boot."""
        command("ip", "netns", "exec", self.space, "wg-quick", "up", str(self.home / f"{self.interface}.conf"))

    def reboot(self) -> None:
        """Take the interface away, and start it as at boot: by wg-quick and its file, with nothing of ours."""
        self.ip("link", "delete", "dev", self.interface)
        eventually(lambda: not _pids(self.interface), f"wireguard-go of {self.name} has ended")
        self.up()

    def udp(self, address: str, port: int = 0) -> socket.socket:
        """A UDP socket in this machine."""
        return self.inside(lambda: _bound(address, port, socket.SOCK_DGRAM))

    def tcp(self, address: str, port: int = 0) -> socket.socket:
        """A TCP socket in this machine."""
        return self.inside(lambda: _bound(address, port, socket.SOCK_STREAM))

    def switch_off(self) -> None:
        """End its wireguard-go, by its pid, and remove it."""
        for pid in _pids(self.interface):
            os.kill(pid, signal.SIGTERM)
        try:
            eventually(lambda: not _pids(self.interface), f"wireguard-go of {self.name} has ended")
        except AssertionError:
            for pid in _pids(self.interface):
                os.kill(pid, signal.SIGKILL)
        finally:
            (CONTROL / f"{self.interface}.sock").unlink(missing_ok=True)
            command("ip", "netns", "delete", self.space)


def _bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.settimeout(1)
    made.bind((address, port))
    return made


def _pids(interface: str) -> list[int]:
    """Our daemons: wireguard-go leaves its parent, so it is found by the interface's name, which carries our pid."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if words[0].endswith(b"wireguard-go") and interface.encode() in words:
            found.append(int(path.parent.name))
    return found


class Wire:
    """One wire with machines on it."""

    def __init__(self, folder: Path) -> None:
        self.space = f"{_PREFIX}-wire"
        self._folder = folder
        self.machines: list[Machine] = []

    def plug_in(self) -> None:
        """Make it."""
        command("ip", "netns", "add", self.space)
        command("ip", "-n", self.space, "link", "add", "wire", "type", "bridge")
        command("ip", "-n", self.space, "link", "set", "wire", "up")

    def machine(self, name: str) -> Machine:
        """A further machine."""
        made = Machine(name, len(self.machines) + 1, self._folder / name)
        self.machines.append(made)
        made.plug_in(self.space)
        return made

    def close(self) -> None:
        """Remove all that is there; what resists does not keep the others."""
        for machine in self.machines:
            with suppress(OSError, RuntimeError):
                machine.switch_off()
        with suppress(RuntimeError):
            command("ip", "netns", "delete", self.space)


def why_not_here() -> str:
    """Why this machine can make no such machines; empty if it can. It makes one, with nothing of ours inside."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory() as folder:
        wire = Wire(Path(folder))
        try:
            wire.plug_in()
            probe = wire.machine("probe")
            addresses = "".join(f"Address = {network}\n" for network in ("100.80.0.1/24", "fd42:6665:6477::1/64"))
            file = probe.home / f"{probe.interface}.conf"
            file.write_text(f"[Interface]\nPrivateKey = {command('wg', 'genkey')}{addresses}Table = off\n")
            file.chmod(0o600)
            probe.up()
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            return f"no network namespaces with WireGuard, IPv4 and IPv6 here ({error})"
        finally:
            wire.close()
    return ""
