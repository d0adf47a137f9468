"""Runs the scenario of every role, and prints a table: who passed, how long it took.

    SUITE=trixie python -m tests.molecule.run [ROLE...]

A role's output lies in .cache/molecule/SUITE/ROLE.log; the end of it is printed for a role that failed.
FEDWARD_MOLECULE_JOBS says how many run at once (2).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests import ansible
from tests.site import hosts, stage

ROOT = Path(__file__).parents[2]
SUITE = os.environ.get("SUITE") or "bookworm"
JOBS = int(os.environ.get("FEDWARD_MOLECULE_JOBS", "2"))
LIMIT_S = 900
PREPARED = f"fedward-testhost:{SUITE}-fedward"
TAIL = 60  # lines


@dataclass(frozen=True)
class Outcome:
    """How one role's scenario ended."""

    role: str
    passed: bool
    seconds: float
    log: Path


def wants_fedward(role: str) -> bool:
    """Whether a role's scenario begins with hosts that have FedWard."""
    prepare = ROOT / "roles" / role / "molecule/default/prepare.yml"
    return prepare.exists() and "tests/molecule/" in prepare.read_text()


def environment() -> dict[str, str]:
    """What scenarios find in their surroundings."""
    return ansible.environment() | {"SUITE": SUITE, "FEDWARD_ARTIFACTS": str(stage.ARTIFACTS)}


def prepare() -> None:
    """Install FedWard once, for all scenarios that begin with it.

    Raises:
        SystemExit: It cannot be installed; the message ends with what Ansible said.
    """
    name = f"{hosts.PREFIX}-mol-prepared"
    hosts.remove([name])
    hosts.boot(name, suite=SUITE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "hosts").write_text(f"{name} ansible_connection=docker\n")
            (Path(folder) / "group_vars").symlink_to(ROOT / "tests/molecule/group_vars")
            command = ["ansible-playbook", "-i", folder, "tests/molecule/fedward.yml"]
            done = subprocess.run(
                command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT_S
            )
        if done.returncode:
            raise SystemExit(f"FedWard cannot be installed on a test host.\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        hosts.keep(name, PREPARED)
    finally:
        hosts.remove([name])


def scenario(role: str) -> Outcome:
    """Run one role's scenario, from no host to none."""
    log = ROOT / ".cache" / "molecule" / SUITE / f"{role}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    image = {"FEDWARD_TEST_IMAGE": PREPARED} if wants_fedward(role) else {}
    began = time.monotonic()
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "molecule", "test"],
            cwd=ROOT / "roles" / role,
            env=environment() | image,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
    return Outcome(role, done.returncode == 0, time.monotonic() - began, log)


def main(roles: list[str]) -> int:
    """Run the given roles, or all; the exit code is 1 if one failed."""
    roles = roles or sorted(path.parents[2].name for path in ROOT.glob("roles/*/molecule/default/molecule.yml"))
    hosts.make_image(SUITE)
    if not (stage.ARTIFACTS / "images.lock").exists():
        stage.build()
    if any(map(wants_fedward, roles)):
        prepare()
    with ThreadPoolExecutor(JOBS) as pool:
        outcomes = list(pool.map(scenario, roles))
    console = Console()
    for outcome in (one for one in outcomes if not one.passed):
        console.rule(f"{outcome.role}: the end of {outcome.log.relative_to(ROOT)}")
        print("\n".join(outcome.log.read_text(errors="replace").splitlines()[-TAIL:]))
    table = Table("role", "result", "seconds", title=f"Molecule on {SUITE}")
    for one in outcomes:
        table.add_row(one.role, "passed" if one.passed else "FAILED", f"{one.seconds:.0f}")
    console.print(table)
    failed = [one.role for one in outcomes if not one.passed]
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(outcomes)} passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
