"""``fedward gui``: the hospital's browser GUI, for whoever commands the node's machine."""

from __future__ import annotations

import typer

from appliance.cli.console import console, explained, visible
from appliance.cli.node import Home
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME

app = typer.Typer(
    no_args_is_help=True,
    help="The GUI in which this hospital's staff govern their node: a service of its own beside 'fedward node start'.",
)


@app.command()
@explained
def start(home: Home) -> None:
    """Start the GUI; as long as nobody has an account, it prints a one-time link for the first.

    Address, port and certificate stand in gui.toml in the node's folder. It runs until it is ended, as a service of its
    own: 'fedward node start' does not start it, and the node runs with or without it. Start it as the node's own user.

    Example: fedward gui start --home /srv/fedward/node
    """
    from node_gui.serve import serve  # noqa: PLC0415 - not every machine has the GUI's libraries

    home = home.resolve()
    serve(home, lambda staff: GovernanceClient(home / SOCKET_NAME, staff=staff, via="gui"))


@app.command()
@explained
def invite(home: Home) -> None:
    """Print a one-time link that makes an administrator's account; the one before it opens no more.

    For the first account, and when nobody can sign in any more. The GUI must run ('fedward gui start') for the link to
    open; the administrator invites everybody else in the GUI, under Users.
    """
    from node_gui.serve import invite_first  # noqa: PLC0415

    invitation = invite_first(home.resolve())
    console.print("Open this link in a browser; it makes an administrator's account, once:", soft_wrap=True)
    console.print(visible(invitation.link), soft_wrap=True)
    if invitation.fingerprint is not None:
        console.print("Your browser will ask about the certificate: accept it only with this SHA-256 fingerprint:")
        console.print(visible(invitation.fingerprint), soft_wrap=True)
