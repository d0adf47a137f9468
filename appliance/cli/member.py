"""``fedward member``: who belongs to the consortium, as the operator says and signs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import explained, print_changed
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import JoinRequest
from appliance.enrolment.operator import open_book
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
