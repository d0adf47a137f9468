"""A fourth hospital joins while the others train, and is revoked by one command; nobody else is touched."""

from __future__ import annotations

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
    HUB,
    RESEARCHER,
    ROOT,
    RUN,
    SiteError,
    address,
    boot,
    container,
    environment,
    on,
    playbook,
)

FOURTH = "mississippi"


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


def test_a_fourth_hospital_joins_and_is_revoked_while_the_others_train(inventory: Path) -> None:
    """It is on the list of members for all, and gone for all; the training of the other three goes on."""
    training = Training()
    training.start()

    changed = playbook(log="fourth", inventory=inventory)
    assert {name: changed[name] for name in (*HOSPITALS, RESEARCHER)} == dict.fromkeys((*HOSPITALS, RESEARCHER), 0)
    assert changed[FOURTH] > 0
    assert "Node mississippi" in on(FOURTH, "fedward-node", "status")

    command = [Path(sys.executable).with_name("fedward"), "member", "revoke", FOURTH, "--home", RUN / "operator"]
    done = subprocess.run(
        [*command, "-i", inventory], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds = float(done.stdout.partition("In force at the hub after ")[2].partition(" s")[0])
    print(f"revoked after {seconds} s")

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
