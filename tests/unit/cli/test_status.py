"""``fedward status``: what it asks, and how it shows the answer."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.main import app

NOW = 1_800_000_000.0
NORTH = {
    "id": "north", "role": "node", "state": "active", "seen_at": NOW - 20, "stated_at": NOW - 20, "version": "0.1.0",
    "disk_free_bytes": 50 << 30, "disk_total_bytes": 200 << 30, "certificate_until": NOW + 20 * 86_400,
    "running_rounds": 1,
}  # fmt: skip
SOUTH = dict.fromkeys(NORTH) | {"id": "south", "role": "node", "state": "revoked", "seen_at": NOW - 3 * 86_400}
ANSWER = json.dumps({"consortium": "demo", "register": 4, "at": NOW, "members": [NORTH, SOUTH]})


class Hub:
    """Answers whoever asks it, by Docker or Ansible."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.returncode, self.stdout, self.stderr = 0, ANSWER, ""

    def run(self, command: tuple[str, ...], **_options: Any) -> Any:
        """The end of the command."""
        self.asked.append(tuple(command))
        return subprocess.CompletedProcess(command, self.returncode, self.stdout, self.stderr)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub."""
    hub = Hub()
    monkeypatch.setattr(subprocess, "run", hub.run)
    return hub


def say(*words: str) -> Any:
    """The command's end."""
    return CliRunner().invoke(app, ["status", *words], env={"COLUMNS": "300"})


def test_on_the_hub_it_asks_the_container(hub: Hub) -> None:
    """And shows people times and sizes as they read them."""
    said = say()

    assert said.exit_code == 0
    assert hub.asked[0][:3] == ("docker", "exec", "fedward-network")
    assert "demo, register version 4" in said.output
    for word in ("north", "now", "0.1.0", "50 GiB (25%)", "2027-02-0", "south", "revoked", "3 days ago"):
        assert word in said.output


def test_at_the_operator_it_asks_by_ansible(hub: Hub) -> None:
    """Whose first line is its own."""
    hub.stdout = f"fl-hub | CHANGED | rc=0 >>\n{ANSWER}\n"
    said = say("-i", "inventory/ours", "--json")

    assert json.loads(said.output) == json.loads(ANSWER)
    assert hub.asked[0][0].endswith("ansible")
    assert hub.asked[0][1:4] == ("hub", "--inventory", "inventory/ours")
    assert "docker exec fedward-network fedward network status --json" in hub.asked[0][-1]


@pytest.mark.parametrize(
    ("returncode", "stdout", "stderr", "told"),
    [
        (1, "", "Error: No such container: fedward-network", "No such container"),
        (4, "hub | UNREACHABLE! => {...}", "", "UNREACHABLE"),
        (0, "something else", "", "not to be understood"),
        (0, "{broken", "", "not to be understood"),
    ],
)
def test_a_hub_that_does_not_answer_is_told_with_what_to_do(
    returncode: int, stdout: str, stderr: str, told: str, hub: Hub
) -> None:
    """Not a traceback."""
    hub.returncode, hub.stdout, hub.stderr = returncode, stdout, stderr
    said = say()

    assert said.exit_code == 1
    assert told in said.output + said.stderr
    assert "fedward doctor" in said.output + said.stderr
