"""Every host as its administrator finds it, after the reboot that nobody helped with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site.stage import HOSPITALS, HOSTS, ROOT, environment, on


@pytest.mark.parametrize("name", HOSTS)
def test_no_unit_has_failed(name: str) -> None:
    """An administrator who sees a failed unit calls somebody."""
    assert on(name, "systemctl", "list-units", "--failed", "--plain", "--no-legend").strip() == ""


@pytest.mark.parametrize("name", HOSTS)
def test_the_doctor_finds_nothing_wrong(name: str) -> None:
    """What it only warns of is named with a remedy."""
    findings = json.loads(on(name, "sh", "-c", "fedward doctor --json; [ $? -lt 2 ]"))["findings"]

    assert [one for one in findings if one["state"] == "failed"] == []
    assert all(one["remedy"] for one in findings if one["state"] == "warning")


def test_the_operator_sees_every_hospital() -> None:
    """From the operator's own machine, by its inventory."""
    command = [Path(sys.executable).with_name("fedward"), "status", "--json", "-i", ROOT / "inventory/local"]
    said = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    unheard = {one["id"]: found["at"] - (one["seen_at"] or 0) for one in found["members"]}  # seconds

    assert {name for name in HOSPITALS if unheard[name] < 90} == {*HOSPITALS}
