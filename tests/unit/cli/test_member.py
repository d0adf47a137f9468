"""``fedward operator``, ``join`` and ``member``, as an operator types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli import member as member_commands
from appliance.cli.main import app


def say(*words: object) -> Any:
    """The command's end."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An operator's folder; north and south have made their requests."""
    operator = tmp_path / "operator"
    say("operator", "init", "--home", operator, "--consortium", "Test", "--contact", "a@b")
    for member in ("north", "south"):
        _ask(tmp_path / member, member)
    return operator


def _ask(home: Path, member: str, institution: str = "A hospital") -> Path:
    say("join", "prepare", "--home", home, "--id", member, "--role", "node", "--institution", institution, *_CONTACT)
    return home / "join-request.json"


_CONTACT = ("--contact", "it@hospital")


def _admit(home: Path, *words: object) -> Any:
    return say(
        "member", "admit", *[home.parent / f"{m}/join-request.json" for m in ("north", "south")], *words, "--home", home
    )


def test_all_requests_make_one_version(home: Path) -> None:
    """Members that saw half of a change would trust half of it."""
    first, again = _admit(home), _admit(home)

    assert first.stdout.splitlines()[:2] == ["changed", "Register version 2 of 'Test': 3 members."]
    assert len(first.stdout.splitlines()[2].partition(": ")[2].split()) == 6
    assert again.stdout.splitlines()[0] == "unchanged"


@pytest.mark.parametrize(
    ("expect", "refusal"),
    [
        (["north=node"], "Nobody of the id 'south' is expected"),
        (["north=node", "south=researcher"], "'south' asks to be a node; expected: researcher"),
        (["north=node:St Mary", "south=node"], "says it is of 'A hospital'; expected: 'St Mary'"),
        (["north"], "is not ID=ROLE"),
    ],
)
def test_a_request_that_was_not_agreed_is_refused(home: Path, expect: list[str], refusal: str) -> None:
    """Files get mixed up, and mallory can write one as well."""
    refused = _admit(home, *(word for each in expect for word in ("--expect", each)))

    assert (refused.exit_code, refusal in refused.output) == (1, True)
    assert len(json.loads(say("member", "list", "--home", home, "--json").stdout)["members"]) == 1


def test_what_was_agreed_is_admitted(home: Path) -> None:
    """The counterpart."""
    assert _admit(home, "--expect", "north=node:A hospital", "--expect", "south=node").exit_code == 0


def test_other_keys_under_a_known_id_are_refused(home: Path) -> None:
    """With the way to go on: somebody may really have lost a machine."""
    _admit(home)
    refused = say("member", "admit", _ask(home.parent / "second", "north"), "--home", home)

    assert (refused.exit_code, "fedward member rotate" in refused.output) == (1, True)


def test_a_new_contact_is_taken_over(home: Path) -> None:
    """The inventory changed; nobody has to be enrolled anew."""
    _admit(home)
    _ask(home.parent / "north", "north", institution="Another name")

    assert _admit(home).stdout.startswith("changed\n")
    assert json.loads(say("member", "show", "north", "--home", home, "--json").stdout)["institution"] == "Another name"


def test_a_member_is_suspended_resumed_rotated_and_revoked(home: Path) -> None:
    """Each as the register's next version, and none twice."""
    _admit(home)
    fresh = _ask(home.parent / "second", "north")
    words: list[tuple[object, ...]] = [
        ("suspend", "north"),
        ("resume", "north"),
        ("rotate", "north", fresh),
        ("revoke", "north"),
    ]
    said = [say("member", *each, "--home", home).stdout.splitlines()[:2] for each in words]

    assert said == [["changed", f"Register version {version} of 'Test': 3 members."] for version in (3, 4, 5, 6)]
    assert say("member", "revoke", "north", "--home", home).stdout.startswith("unchanged\n")
    assert "revoked" in say("member", "list", "--home", home).stdout


def test_a_request_of_another_gives_nobody_new_keys(home: Path) -> None:
    """South's file beside north's name would let south speak for north."""
    _admit(home)
    refused = say("member", "rotate", "north", home.parent / "south/join-request.json", "--home", home)

    assert (refused.exit_code, "a request of 'south'" in refused.output) == (1, True)


def test_a_hub_out_of_reach_is_told_and_tried_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The register is signed by then; the next call only carries it."""
    _admit(home)
    inventory = tmp_path / "hosts"
    inventory.write_text("[hub]\n")
    play = tmp_path / "ansible-playbook"
    monkeypatch.setattr(member_commands.sys, "executable", str(tmp_path / "python"))
    play.write_text("#!/bin/sh\necho UNREACHABLE; exit 4\n")
    play.chmod(0o755)
    failed = say("member", "revoke", "north", "--home", home, "-i", inventory)
    play.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/called\n")
    again = say("member", "revoke", "north", "--home", home, "-i", inventory)

    assert (failed.exit_code, "signed, but the hub has not taken it" in failed.output) == (1, True)
    assert (again.exit_code, again.stdout.splitlines()[0], "In force at the hub after" in again.stdout) == (
        0,
        "unchanged",
        True,
    )
    assert (tmp_path / "called").read_text().splitlines()[:4] == ["-i", str(inventory), "--limit", "hub"]


def test_a_folder_that_is_no_operators_is_named(tmp_path: Path) -> None:
    """A typing error must not make a second consortium."""
    refused = say("member", "list", "--home", tmp_path)

    assert (refused.exit_code, "fedward operator init" in refused.output) == (1, True)


def test_a_register_without_its_keys_is_not_signed_anew(home: Path, tmp_path: Path) -> None:
    """Other keys would be another operator, whom nobody believes."""
    (home / "keys").rename(tmp_path / "lost")
    refused = say("operator", "init", "--home", home, "--consortium", "Test", "--contact", "a@b")

    assert (refused.exit_code, "Restore the keys from the backup" in refused.output) == (1, True)
