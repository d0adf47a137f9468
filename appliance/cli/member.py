"""``fedward member``: who belongs to the consortium, as the operator says and signs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

import appliance
from appliance.cli.console import explained, print_changed, print_table
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import JoinRequest
from appliance.enrolment.operator import REGISTER_FILE, open_book
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.register import Register
from appliance.protocol.settings import read_text
from appliance.protocol.words import six_words

app = typer.Typer(
    no_args_is_help=True,
    help="""The consortium's members. Each change is signed with the operator's key as the register's next version.

    Commands that change something print 'changed' or 'unchanged' first. With -i they carry the register to the hub,
    where it takes effect at once.""",
)

Home = Annotated[
    Path, typer.Option(envvar="FEDWARD_OPERATOR_HOME", help="The operator's folder.", file_okay=False, exists=True)
]
MemberName = Annotated[str, typer.Argument(metavar="ID", help="The member's id.", show_default=False)]
Inventory = Annotated[
    Path | None,
    typer.Option(
        "-i", "--inventory", envvar="FEDWARD_INVENTORY", help="Carry the register to this inventory's hub.", exists=True
    ),
]
PLAYBOOK = Path(appliance.__file__).parent / "playbooks/members.yml"
_EXPECTATION = re.compile(r"(?P<id>[a-z0-9-]+)=(?P<role>[a-z]+)(?::(?P<institution>.+))?")


@app.callback()
def private() -> None:
    """What is made here is for its owner alone."""
    os.umask(0o077)


@app.command()
@explained
def admit(
    requests: Annotated[list[Path], typer.Argument(metavar="REQUEST...", help="Join requests.", show_default=False)],
    home: Home,
    expect: Annotated[
        list[str] | None,
        typer.Option(help="What was agreed, as ID=ROLE or ID=ROLE:INSTITUTION; a request that differs is refused."),
    ] = None,
) -> None:
    """Enter whoever made these requests into the register, all in one version.

    Compare id, role and institution with what was agreed: with your eyes, or by --expect for each member. A member
    that is in the register already is left as it is; with other keys it is refused ('rotate').
    """
    asked = [JoinRequest.read(read_text(path)) for path in requests]
    _require_expected(asked, expect or [])
    with open_book(home) as book:
        before = book.register.version
        for request in asked:
            book.add(request.member())
        _issue(book, before)


@app.command("list")
@explained
def list_members(home: Home, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """List the members as the register has them."""
    with open_book(home) as book:
        register = book.register
    if as_json:
        typer.echo(register.model_dump_json(indent=2))
        return
    rows = ((m.id, m.role, m.state, m.institution, m.contact) for m in register.members)
    print_table(f"Members of {register.consortium}", ("id", "role", "state", "institution", "contact"), rows)
    _print_register(register)


@app.command()
@explained
def show(
    member: MemberName, home: Home, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
) -> None:
    """Show one member: what all others know of it."""
    with open_book(home) as book:
        found = book.require(member)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    facts = json.loads(found.model_dump_json()) | {"key id": found.kid}
    print_table(f"Member {found.id}", ("what", "value"), facts.items())


@app.command()
@explained
def suspend(member: MemberName, home: Home, inventory: Inventory = None) -> None:
    """Let a member do nothing until 'resume': its messages, certificate, VPN peer and open lines end."""
    _change(home, inventory, lambda book: book.suspend(member))


@app.command()
@explained
def resume(member: MemberName, home: Home, inventory: Inventory = None) -> None:
    """Let a suspended member act again, with the keys and the certificate that it has."""
    _change(home, inventory, lambda book: book.resume(member))


@app.command()
@explained
def revoke(member: MemberName, home: Home, inventory: Inventory = None) -> None:
    """End a membership for good. Whoever joins anew needs another id. Not the operator's, nor the network host's.

    Example: fedward member revoke north --home ~/consortium -i inventory/site
    """
    _change(home, inventory, lambda book: book.revoke(member))


@app.command()
@explained
def rotate(
    member: MemberName,
    request: Annotated[Path, typer.Argument(help="The join request of its new machine.", show_default=False)],
    home: Home,
    inventory: Inventory = None,
) -> None:
    """Give a member that lost its machine or keys new ones; its id, and all that hangs on it, stays.

    The old keys and certificates count no more. Make sure, over another line, that the request is the member's.
    """
    asked = JoinRequest.read(read_text(request))
    asking = asked.member()
    if asked.id != member:
        raise EnrolmentError(f"This is a request of '{asked.id}', not of '{member}'.", remedy="Choose the right file.")

    def change(book: RegisterBook) -> None:
        if book.require(member).role is not asking.role:
            raise EnrolmentError(
                f"'{member}' is a {book.require(member).role}; the request is a {asking.role}'s.",
                remedy="Make the request with the member's own role.",
            )
        book.rotate(member, identity=asking.identity, sealing=asking.sealing)

    _change(home, inventory, change)


def _change(home: Path, inventory: Path | None, change: Callable[[RegisterBook], None]) -> None:
    started = time.monotonic()
    with open_book(home) as book:
        before = book.register.version
        change(book)
        _issue(book, before)
    if inventory is None:
        typer.echo("The hub does not know it yet: repeat the command with -i INVENTORY.")
        return
    _carry(home, inventory)
    typer.echo(f"In force at the hub after {time.monotonic() - started:.1f} s.")


def _carry(home: Path, inventory: Path) -> None:
    """Let the playbook bring the register to the hub; its own output is shown if it fails."""
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = str(beside) if beside.exists() else shutil.which("ansible-playbook")
    if program is None or not PLAYBOOK.exists():
        raise EnrolmentError(
            "The register is signed, but Ansible or its playbook is not here to carry it to the hub.",
            remedy="Run the command in FedWard's repository, with its extra 'operator' installed.",
        )
    register = (home / REGISTER_FILE).resolve()
    command = [program, "-i", str(inventory), "--limit", "hub", "-e", json.dumps({"members_register": str(register)})]
    done = subprocess.run([*command, str(PLAYBOOK)], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        typer.echo(done.stdout + done.stderr, err=True)
        raise EnrolmentError(
            "The register is signed, but the hub has not taken it; its answer is above.",
            remedy="Mend what it says and repeat the command: nothing is done twice.",
        )


def _require_expected(requests: Sequence[JoinRequest], expect: Sequence[str]) -> None:
    """Refuse a request that nobody expects, once anything is expected."""
    agreed = {}
    for text in expect:
        match = _EXPECTATION.fullmatch(text)
        if match is None:
            raise EnrolmentError(f"'{text}' is not ID=ROLE or ID=ROLE:INSTITUTION.", remedy="Correct --expect.")
        agreed[match["id"]] = match
    for request in requests if agreed else ():
        expected = agreed.get(request.id)
        if expected is None:
            raise EnrolmentError(f"Nobody of the id '{request.id}' is expected.", remedy=_COMPARE)
        if expected["role"] != request.role:
            raise EnrolmentError(
                f"'{request.id}' asks to be a {request.role}; expected: {expected['role']}.", remedy=_COMPARE
            )
        if expected["institution"] not in (None, request.institution):
            raise EnrolmentError(
                f"'{request.id}' says it is of '{request.institution}'; expected: '{expected['institution']}'.",
                remedy=_COMPARE,
            )


_COMPARE = "Ask whoever handed the request in, over another line; then correct the inventory or the request."


def _issue(book: RegisterBook, before: int) -> None:
    book.issue()
    print_changed(book.register.version != before)
    _print_register(book.register)


def _print_register(register: Register) -> None:
    typer.echo(f"Register version {register.version} of '{register.consortium}': {len(register.members)} members.")
    typer.echo(f"In six words, as every member's GUI shows them: {' '.join(six_words(register.digest()))}")
