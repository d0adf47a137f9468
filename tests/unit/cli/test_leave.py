"""``fedward leave``, on a host in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli import leave as command
from appliance.cli.main import app
from tests.unit.leaving.conftest import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The host that the command finds, as root."""
    site = Site(tmp_path)
    monkeypatch.setattr(command, "run", site.run)
    monkeypatch.setattr(command, "_ROOT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return site


def say(*words: str, typed: str = "") -> Any:
    """The command's end."""
    return CliRunner().invoke(app, ["leave", *words], input=typed, env={"COLUMNS": "300"})


def test_it_says_what_it_will_do_and_does_it_once_the_members_id_is_typed(site: Site) -> None:
    """A yes is typed too easily."""
    said = say(typed="north\n")

    assert said.exit_code == 0
    assert "Stop the container fedward-warden" in said.output
    assert "var/lib/fedward-left/north-" in said.output
    assert "fedward member revoke north" in said.output
    assert not (site.root / "var/lib/fedward/node").exists()


def test_another_word_changes_nothing(site: Site) -> None:
    """And neither does a dry run."""
    refused, dry = say(typed="south\n"), say("--dry-run")

    assert (refused.exit_code, dry.exit_code) == (1, 0)
    assert "Stop the container fedward-warden" in dry.output
    assert site.done == []
    assert (site.root / "var/lib/fedward/node/keys/identity.pem").exists()


def test_with_yes_it_asks_nothing_and_with_erase_it_keeps_nothing(site: Site) -> None:
    """For whoever must not keep the records."""
    said = say("--yes", "--erase")

    assert said.exit_code == 0
    assert not (site.root / "var/lib/fedward-left").exists()


def test_a_second_time_there_is_nothing(site: Site) -> None:
    """Told, and no error."""
    say("--yes")
    again = say("--yes")

    assert again.exit_code == 0
    assert "Nothing of FedWard" in again.output


def test_it_is_roots_to_say(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a removal by an ordinary user helps nobody."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = say("--yes")

    assert said.exit_code == 1
    assert "sudo fedward leave" in said.output + said.stderr
    assert site.done == []
