"""``fedward join``: how a machine becomes a member's, and keeps its certificate in date."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import explained, print_changed
from appliance.enrolment import joining
from appliance.enrolment.authority import is_due
from appliance.protocol.envelope import Signer
from appliance.protocol.home import MemberHome
from appliance.protocol.register import Role
from appliance.protocol.settings import read_text

app = typer.Typer(
    no_args_is_help=True,
    help="""Becoming a member: 'prepare' here, 'fedward member admit' at the operator, 'complete' here.

    The private keys are made in HOME and stay there. Each command prints 'changed' or 'unchanged' first and may be
    repeated. Run it as the user that the member's service runs as.""",
)

Home = Annotated[Path, typer.Option(help="The member's folder.", file_okay=False)]
_PATIENCE_S = 60.0


@app.callback()
def private() -> None:
    """What is made here is for its owner alone."""
    os.umask(0o077)


@app.command()
@explained
def prepare(
    home: Home,
    member_id: Annotated[str, typer.Option("--id", help="The id agreed with the operator.")],
    role: Annotated[Role, typer.Option(help="What the member will be.")],
    institution: Annotated[str, typer.Option(help="Shown to all members.")],
    contact: Annotated[str, typer.Option(help="Where people reach whoever answers for this member; shown to all.")],
) -> None:
    """Make the member's keys, unless there are some, and HOME/join-request.json, which the operator admits.

    The request is public: only what it asks for must be compared with what was agreed.
    """
    path = home / joining.REQUEST_FILE
    before = path.read_text() if path.exists() else ""
    joining.prepare(home, member_id, role=role, institution=institution, contact=contact)
    print_changed(path.read_text() != before)
    typer.echo(path)


@app.command()
@explained
def complete(
    home: Home,
    answer: Annotated[Path, typer.Argument(help="What 'fedward authority issue' wrote.", show_default=False)],
) -> None:
    """Check the answer and take home what it brings: certificate, authority, register and the way to the network host.

    At the first time the operator's key is pinned; compare the register's six words with the operator over another
    line.
    """
    print_changed(joining.complete(home, joining.JoinAnswer.read(read_text(answer))))


@app.command()
@explained
def renew(
    home: Home,
    force: Annotated[bool, typer.Option("--force", help="Renew a certificate that is not due, too.")] = False,
) -> None:
    """Ask the network host for a further certificate once less than a third of this one's life is left.

    For a timer, once a day. Services use the new one from their next connection on; at the hub, Mosquitto and nginx are
    reloaded for it.
    """
    from appliance.transport.rest import RestClient  # noqa: PLC0415 - only this command needs the line's libraries

    member = MemberHome(home)
    if not force and not is_due(read_text(member.tls.certificate)):
        print_changed(False)
        return
    request = joining.renewal_request(home)
    signer = Signer(member.member_id, member.keys())
    client = RestClient(member.settings.endpoints[0].rest_url, member.tls, signer, give_up_s=_PATIENCE_S)
    try:
        certificate = client.certificate(request.model_dump(mode="json"))
    finally:
        client.close()
    joining.take_certificate(home, certificate)
    print_changed(True)
