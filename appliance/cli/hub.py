"""``fedward hub``: what the hub does once a new register is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import errors, explained, print_changed, visible
from appliance.enrolment.revocation import Hub, require_done
from appliance.enrolment.revocation import enforce as run

app = typer.Typer(
    no_args_is_help=True, help="At the hub: let the membership register act on certificates, the VPN and open lines."
)


@app.callback()
def group() -> None:
    """More will come to stand beside its one command."""


@app.command()
@explained
def enforce(
    home: Annotated[Path, typer.Option(help="The network host's folder, with the new register.jws.")] = Path(
        "/var/lib/fedward/network"
    ),
    authority: Annotated[Path, typer.Option(help="The transport authority's folder.")] = Path(
        "/var/lib/fedward/authority"
    ),
    crl: Annotated[Path, typer.Option(help="The revocation list as Mosquitto and nginx read it.")] = Path(
        "/etc/fedward/crl.pem"
    ),
    vpn: Annotated[Path, typer.Option(help="The VPN's folder; without a vpn.toml there is none.")] = Path(
        "/etc/fedward/vpn"
    ),
    rest_socket: Annotated[Path, typer.Option(help="Where the REST service listens.")] = Path(
        "/run/fedward-network/rest.sock"
    ),
    reload: Annotated[
        str, typer.Option(help="Lets Mosquitto and nginx read the list.")
    ] = "systemctl try-reload-or-restart mosquitto.service nginx.service",
    restart: Annotated[
        str, typer.Option(help="Ends all lines, for where single ones cannot be cut.")
    ] = "systemctl try-restart mosquitto.service nginx.service",
) -> None:
    """Let HOME/register.jws act: whoever it does not list as active is cut off, whoever is resumed comes in again.

    The register is checked first: the operator's signature, and no older than the one in force. Then the revocation
    list (and a reload, only if it changed), the VPN's peers, the open connections of whoever left, and the REST
    service, which takes the register and notes it in its audit log. Run it as root.

    Prints 'changed' or 'unchanged', then what was done. It may be repeated, and finishes what failed.
    """
    hub = Hub(home, authority, crl, vpn, rest_socket, tuple(shlex.split(reload)), tuple(shlex.split(restart)))
    outcome = run(hub)
    print_changed(bool(outcome.changes))
    for change in outcome.changes:
        typer.echo(change)
    for warning in outcome.warnings:
        errors.print(visible(f"Warning: {warning}"), soft_wrap=True)
    require_done(outcome)
