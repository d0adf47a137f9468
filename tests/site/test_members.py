"""A fourth hospital joins while the others train, and is revoked by one command; nobody else is touched."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.site import hosts
from tests.site.people import in_kit, until
from tests.site.stage import (
    HOSPITALS,
    HOSTS,
    HUB,
    ROOT,
    RUN,
    SiteError,
    address,
    boot,
    container,
    environment,
    interrupted_playbook,
    on,
    playbook,
)

FOURTH = "mississippi"
# Where its first run loses the machine, and where its second is killed.
UNPLUGGED_AT = "host_base : Install packages"
KILLED_AT = "container_image : Load the archive"
# The first line of each private key, and each key of the VPN.
_SECRETS = r"""
grep -rlsE 'BEGIN [A-Z ]*PRIVATE KEY' FOLDERS | while read -r file; do grep -A1 'PRIVATE KEY' "$file" | sed -n 2p; done
find FOLDERS -name private.key -o -path '*preshared*.key' | xargs -r cat
"""


@pytest.fixture(scope="module")
def inventory() -> Path:
    """The inventory with one more host, as an operator edits it."""
    folder = RUN / "inventory"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "inventory/local", folder)
    tree = yaml.safe_load((folder / "hosts.yml").read_text())
    tree["all"]["children"]["nodes"]["hosts"][FOURTH] = {
        "ansible_host": address(FOURTH),
        "fedward_institution": "University of Mississippi",
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A bare machine at the fourth hospital."""
    hosts.remove([container(FOURTH)])
    boot(FOURTH)
    yield
    hosts.remove([container(FOURTH)])


class Training(threading.Thread):
    """Trainings without end, beside which the consortium changes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.results: list[dict[str, Any]] = []

    def run(self) -> None:
        """Train, one experiment after another."""
        while not self._over.is_set():
            self.results.append(in_kit("train", "20"))

    def finish(self) -> list[dict[str, Any]]:
        """What all of them came to, after the last one."""
        self._over.set()
        self.join(timeout=600)
        assert not self.is_alive()
        return self.results


def lose_the_machine(inventory: Path) -> None:
    """The machine's line breaks while something is installed: the run says so, and ends by itself."""

    def unplug() -> None:
        hosts.docker("network", "disconnect", hosts.NETWORK, container(FOURTH))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSIBLE_STRATEGY", "linear")  # an operator's, which looks whether the line is alive
        said = interrupted_playbook(
            "--limit", FOURTH, at=UNPLUGGED_AT, interrupt=unplug, log="unplugged", inventory=inventory
        )
    assert re.search(rf"^fatal: \[{FOURTH}\]: UNREACHABLE!.*\bssh\b", said, re.MULTILINE)
    hosts.docker("network", "connect", "--ip", address(FOURTH), hosts.NETWORK, container(FOURTH))


def secrets() -> list[str]:
    """What only its own host may hold: every private and every shared key of the site, one line of each."""
    ask = _SECRETS.replace("FOLDERS", "/etc/fedward /var/lib/fedward")
    found = [key for name in (*HOSTS, FOURTH) for key in on(name, "sh", "-c", ask).split()]
    ask = _SECRETS.replace("FOLDERS", str(RUN / "operator"))
    return found + subprocess.run(["sh", "-c", ask], capture_output=True, text=True, check=True).stdout.split()


def revoke(inventory: Path) -> float:
    """End the fourth hospital's membership; returns how many seconds it took until it was in force."""
    command = [Path(sys.executable).with_name("fedward"), "member", "revoke", FOURTH, "--home", RUN / "operator"]
    done = subprocess.run(
        [*command, "-i", inventory], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.partition("In force at the hub after ")[2].partition(" s")[0])


def leave() -> None:
    """The fourth hospital's administrator removes FedWard, and finds nothing of it afterwards but what is kept."""
    as_admin = ("sudo", "-u", "admin", "-i", "sudo", "fedward", "leave")
    assert "Backups stay" in on(FOURTH, *as_admin, "--dry-run")
    assert "fedward-warden" in on(FOURTH, "docker", "ps")

    assert f"fedward member revoke {FOURTH}" in on(FOURTH, *as_admin, "--yes").splitlines()[-1]
    assert on(FOURTH, "docker", "ps", "--all", "--quiet") == ""
    assert on(FOURTH, "ip", "-brief", "link", "show", "type", "tun") == ""
    gone = ("/opt/fedward", "/etc/fedward", "/var/lib/fedward", "/usr/local/bin/fedward")
    assert on(FOURTH, "sh", "-c", f"ls -d {' '.join(gone)} 2>/dev/null || true") == ""
    assert on(FOURTH, "sh", "-c", "grep -rl fedward /etc/systemd /etc/cron.d /etc/wireguard || true") == ""
    assert on(FOURTH, "systemctl", "list-units", "--all", "--no-legend", "fedward*") == ""
    assert on(FOURTH, "ls", "/srv/fedward/data") == ""


def test_a_fourth_hospital_joins_and_is_revoked_while_the_others_train(inventory: Path) -> None:
    """It is on the list of members for all, and gone for all; the training of the other three goes on.

    Its first deployment loses the machine, its second is killed in the middle, and its third does the rest; none says
    a key, even with -vvv.
    """
    training = Training()
    training.start()

    lose_the_machine(inventory)
    verbose = ("-vvv", "--diff")
    interrupted_playbook("--limit", f"hub:{FOURTH}", *verbose, at=KILLED_AT, log="killed", inventory=inventory)
    changed = playbook(*verbose, log="fourth", inventory=inventory)
    others = [name for name in HOSTS if name != HUB]
    assert {name: changed[name] for name in others} == dict.fromkeys(others, 0)
    assert changed[FOURTH] > 0
    assert "Node mississippi" in on(FOURTH, "fedward-node", "status")
    told = "".join((RUN / f"{log}.log").read_text() for log in ("killed", "fourth"))
    keys = secrets()
    assert len(keys) >= 20
    assert [key[:6] for key in keys if key in told] == []

    print(f"revoked after {revoke(inventory)} s")

    def is_cut() -> None:
        said = on(FOURTH, "sh", "-c", "ping -c 1 -W 2 10.98.0.1 >/dev/null && echo reached || echo cut")
        if said.strip() != "cut":
            raise SiteError("The revoked hospital still reaches the hub.")

    until("the VPN's peer ends", is_cut, timeout_s=10)
    assert FOURTH not in on(HUB, "sh", "-c", "wg show fedward0 | cat")
    before = len(training.results)
    results = training.finish()
    assert len(results) > before > 0
    assert all(one["rounds"] == 20 and one["nodes"] == sorted(HOSPITALS) for one in results)

    leave()
