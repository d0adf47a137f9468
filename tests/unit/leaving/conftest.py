"""A hospital's host as the playbook leaves it, in a folder, and tools that do what the real ones do to it."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

from appliance.doctor.commands import CommandError


class Site:
    """A host.

    Attributes:
        containers, networks, volumes, images: What its Docker has; some of it is others'.
        fails_at: A command that begins so is refused.
        done: The commands that changed something, in their order.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.containers = {"fedward-warden", "fedward-runner", "fedward-gui", "orthanc", "fedward-warden-test"}
        self.networks = {"bridge", "fdw-warden", "fdw-gui", "fdw-lab"}
        self.volumes = {"fedward-scratch", "orthanc-data"}
        self.images = {"fedward/warden:0.1.0", "fedward/runner-cpu:0.1.0", "orthancteam/orthanc:1.10"}
        self.is_up = self.has_table = True
        self.fails_at = "\0"
        self.done: list[str] = []
        self._write()

    def run(self, *command: str, limit_s: float = 5.0) -> str:
        """A command; the first word after 'docker', 'systemctl' and so on decides."""
        line = " ".join(command)
        if line.startswith(self.fails_at):
            raise CommandError("no")
        lists = {
            "docker ps*": self.containers,
            "docker network ls*": self.networks,
            "docker volume ls*": self.volumes,
            "docker image ls*": {f"{name} 0123abc" for name in self.images},
            "nft list tables": {"table inet fedward", "table inet filter"} if self.has_table else set(),
        }
        for pattern, answer in lists.items():
            if fnmatch.fnmatch(line, pattern):
                return "\n".join(sorted(answer)) + "\n"
        if line.startswith("ip -o link show"):
            if not self.is_up:
                raise CommandError('Device "fedward0" does not exist.')
            return "7: fedward0: <POINTOPOINT>\n"
        self.done.append(line)
        self._change(command)
        return ""

    def _change(self, command: tuple[str, ...]) -> None:
        match command:
            case ("docker", "rm", *_, name):
                self.containers.remove(name)
            case ("docker", "network", "rm", name):
                self.networks.remove(name)
            case ("docker", "volume", "rm", name):
                self.volumes.remove(name)
            case ("docker", "image", "rm", "--force", name):
                self.images.remove(name)
            case ("ip", "link", "delete", *_):
                self.is_up = False
            case ("nft", "delete", *_):
                self.has_table = False
            case ("userdel", name):
                path = self.root / "etc/passwd"
                rows = path.read_text().splitlines(keepends=True)
                path.write_text("".join(row for row in rows if not row.startswith(f"{name}:")))
            case _:
                pass

    def write(self, place: str, text: str = "x\n") -> Path:
        """A file on it."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def _write(self) -> None:
        home = "var/lib/fedward/node"
        self.write(f"{home}/member.toml", 'id = "north"\n')
        self.write(f"{home}/node.toml", 'data_folder = "/srv/fedward/data"\n')
        self.write(f"{home}/store/node.sqlite3", "audit and ledger\n")
        self.write(f"{home}/register.jws")
        for secret in ("keys/identity.pem", "keys/sealing.pem", "tls/key.pem", "gui/staff.db", "gui/tls/key.pem"):
            self.write(f"{home}/{secret}", "SECRET\n")
        self.write("srv/fedward/data/patients.csv", "the hospital's own\n")
        self.write("etc/fedward/vpn/private.key", "SECRET\n")
        self.write("etc/fedward/images.lock", "{}\n")
        self.write("etc/wireguard/fedward0.conf", "SECRET\n")
        self.write("etc/wireguard/office.conf")
        for unit in ("fedward-firewall.service", "fedward-vpn-resolve.timer", "fedward-vpn-resolve.service"):
            self.write(f"etc/systemd/system/{unit}")
        self.write("etc/systemd/system/orthanc.service")
        self.write("etc/systemd/system/docker.service.d/fedward-proxy.conf", "[Service]\nEnvironment=HTTPS_PROXY=x\n")
        self.write("etc/systemd/system/wg-quick@fedward0.service.d/fedward.conf", "[Service]\nRestart=on-failure\n")
        self.write(
            "etc/systemd/system/nftables.service.d/fedward.conf",
            "[Service]\nExecStartPost=-/usr/sbin/nft --file /etc/fedward/firewall.nft\n",
        )
        self.write("etc/systemd/system/docker.service.d/fedward.conf", "[Unit]\nRequires=fedward-firewall.service\n")
        self.write("etc/apt/apt.conf.d/60fedward-hold", 'DPkg::Pre-Invoke {"/usr/local/sbin/fedward-hold";};\n')
        self.write(
            "etc/systemd/system/apt-daily-upgrade.service.d/fedward.conf",
            "[Service]\nExecCondition=/usr/local/lib/fedward/may-upgrade\n",
        )
        self.write("usr/local/lib/fedward/may-upgrade", "#!/bin/sh\n")
        self.write("etc/apt/apt.conf.d/80fedward-proxy", 'Acquire::http::Proxy "http://proxy:3128";\n')
        self.write("etc/sysctl.d/90-fedward.conf")
        self.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nfedward-node:x:110001:110001::/:/usr/sbin/nologin\n"
                   "fedward-smith:x:1004:1004::/home/x:/bin/sh\n")  # fmt: skip
        self.write("usr/local/sbin/fedward-node", "#!/bin/sh\n")
        self.write("opt/fedward/venv/bin/fedward", "#!/bin/sh\n")
        (self.root / "usr/local/bin").mkdir()
        (self.root / "usr/local/bin/fedward").symlink_to("/opt/fedward/venv/bin/fedward")

    def files(self) -> set[str]:
        """Every file and link on it."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The hospital's host."""
    return Site(tmp_path)
