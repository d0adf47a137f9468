"""Test hosts: machines with systemd, sshd and Docker of their own, each in a container of this machine.

    python -m tests.site.hosts boot NAME [--suite trixie] [--ip 10.90.0.11] [--image IMAGE]
    python -m tests.site.hosts reboot NAME...
    python -m tests.site.hosts remove NAME...

FEDWARD_TEST_PREFIX names their network, FEDWARD_TEST_SUBNET is its range; two checkouts with different ones do not
meet. Removing a host leaves nothing of it: no container, volume or cgroup; the last one takes the network along.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = os.environ.get("FEDWARD_TEST_PREFIX", "fedward")
SUBNET = os.environ.get("FEDWARD_TEST_SUBNET", "10.90.0.0/24")
NETWORK = f"{PREFIX}-wan"
SUITES = ("bookworm", "trixie")
CGROUPS = Path("/sys/fs/cgroup")
BOOT_S = 60
_RUN = (
    # Mounts and networks of its own, and no more: these machines are not privileged.
    *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE"),
    *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
    # A writable /proc/sys, and an unmasked /proc, without which Docker inside has no user namespaces.
    "--security-opt=systempaths=unconfined",
    "--device=/dev/net/tun",
    # systemd and the Docker inside both manage cgroups.
    *("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp"),
    "--stop-signal=SIGRTMIN+3",
)


class TestHostError(Exception):
    """A test host cannot be made; the message is what Docker said."""

    __test__ = False


def docker(*words: str, timeout_s: float = 120) -> str:
    """What the docker client prints.

    Raises:
        TestHostError: It failed.
    """
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise TestHostError(f"docker {' '.join(words[:3])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def make_image(suite: str) -> None:
    """Make the hosts' image, where this machine has none yet (a minute)."""
    with suppress(TestHostError):
        docker("image", "inspect", f"fedward-testhost:{suite}")
        return
    subprocess.run([Path(__file__).with_name("mkhost"), suite], check=True, timeout=900)


@contextmanager
def _network_lock() -> Iterator[None]:
    """Nobody removes the network between its making and its first host."""
    with Path(tempfile.gettempdir(), f"{NETWORK}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_network() -> None:
    """Make the network that stands for the Internet."""
    try:
        docker("network", "create", "--subnet", SUBNET, NETWORK)
    except TestHostError as error:
        if "already exists" not in str(error):
            raise


def boot(name: str, *, suite: str = "trixie", ip: str = "", image: str = "") -> None:
    """Boot a host, and wait until its systemd has started everything.

    Args:
        image: What it boots from, as ``keep`` made it; a bare machine when empty.

    Raises:
        TestHostError: It did not come up within `BOOT_S` seconds.
    """
    if not image:
        make_image(suite)
        image = f"fedward-testhost:{suite}"
    # overlay2 does not stack on overlay2: the Docker inside has a volume.
    places = [f"--name={name}", f"--hostname={name}", f"--network={NETWORK}", f"--volume={name}-docker:/var/lib/docker"]
    address = [f"--ip={ip}"] if ip else []
    with _network_lock():
        make_network()
        docker("run", "--detach", *places, *address, *_RUN, image, "/lib/systemd/systemd")
    wait_until_running(name)


def wait_until_running(name: str) -> None:
    """Wait for the end of a host's boot: the first seconds have no bus, and /tmp is still being cleaned.

    Raises:
        TestHostError: It took longer than `BOOT_S` seconds.
    """
    end = time.monotonic() + BOOT_S
    state = ""
    while time.monotonic() < end:
        asked = ["docker", "exec", name, "systemctl", "is-system-running", "--wait"]
        with suppress(subprocess.TimeoutExpired):
            state = subprocess.run(asked, capture_output=True, text=True, timeout=BOOT_S, check=False).stdout.strip()
        if state in {"running", "degraded"}:
            return
        time.sleep(0.3)
    raise TestHostError(f"{name} did not boot: systemd says {state or 'nothing'}")


def reboot(name: str) -> None:
    """Shut a host down in order, and boot it again.

    Raises:
        TestHostError: It did not come up.
    """
    docker("restart", "--time=30", name)
    wait_until_running(name)


def keep(name: str, image: str) -> None:
    """Shut a host down, and keep its disk as an image that others boot from, each as a machine of its own."""
    docker("exec", name, "sh", "-c", "rm -f /etc/ssh/ssh_host_*; : > /etc/machine-id")
    docker("stop", "--time=30", name)
    docker("commit", name, image)


def remove(names: Iterable[str]) -> None:
    """Remove hosts with all that they left, and the network after the last of them."""
    for name in names:
        groups = _cgroups(name)
        for words in (("rm", "--force", "--volumes", name), ("volume", "rm", f"{name}-docker")):
            with suppress(TestHostError):
                docker(*words)
        _remove_cgroups(groups)
    with _network_lock(), suppress(TestHostError):  # others are still on it
        docker("network", "rm", NETWORK)


def _cgroups(name: str) -> list[Path]:
    """The control groups of a host, and of the containers inside it: these lie beside it, not below."""
    with suppress(TestHostError):
        container = docker("inspect", "--format={{.Id}}", name)
        volume = Path(docker("volume", "inspect", "--format={{.Mountpoint}}", f"{name}-docker"))
        inner = [path.name for pattern in ("containers/*", "*/containers/*") for path in volume.glob(pattern)]
        roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())]
        return [root / "docker" / one for root in roots for one in (container, *inner)]
    return []


def _remove_cgroups(groups: Iterable[Path]) -> None:
    """Remove groups that nobody is in; the kernel keeps one that has a process."""
    for group in groups:
        for path in sorted([group, *group.rglob("*/")], key=lambda one: len(one.parts), reverse=True):
            with suppress(OSError):
                path.rmdir()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.site.hosts", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("boot")
    one.add_argument("name")
    one.add_argument("--suite", choices=SUITES, default="trixie")
    one.add_argument("--ip", default="")
    one.add_argument("--image", default="")
    for command in ("reboot", "remove"):
        commands.add_parser(command).add_argument("names", nargs="+")
    given = parser.parse_args()
    if given.command == "boot":
        boot(given.name, suite=given.suite, ip=given.ip, image=given.image)
    elif given.command == "reboot":
        for name in given.names:
            reboot(name)
    else:
        remove(given.names)


if __name__ == "__main__":
    main()
