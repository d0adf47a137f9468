"""``fedward vpn``: this host's end of the VPN, for the roles that set hosts up and for whoever looks after one."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

from appliance.cli.console import console, errors, explained, print_changed, print_table, visible
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.settings import read_settings
from appliance.vpn.errors import VpnError

if TYPE_CHECKING:  # the rest of the room needs the package wireguard-tools, which only a site's hosts have
    from appliance.vpn.host import Outcome, PeerStatus, VpnHost
    from appliance.vpn.peers import PeerState

app = typer.Typer(
    no_args_is_help=True,
    help="""This host's end of the consortium's VPN (WireGuard).

    Members reach the hub through it, and never each other. Its folder holds vpn.toml, the keys (which are made here and
    shown by no command) and, at the hub, peers.json: who may come in. Commands that change something print 'changed' or
    'unchanged' first; warnings go to standard error. They need root.""",
)

Home = Annotated[Path, typer.Option(envvar="FEDWARD_VPN_HOME", help="The folder of this host's VPN.", file_okay=False)]
Check = Annotated[bool, typer.Option("--check", help="Only say what would change.")]
Member = Annotated[str, typer.Argument(help="The member's id.", show_default=False)]
_HOME = Path("/etc/fedward/vpn")

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _coded(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let the VPN's errors, which know no other room, end a command as everybody's do."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except VpnError as error:
            raise FedWardError(error.message, code=Code(error.code), remedy=error.remedy) from error
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("wireguard_tools"):
                raise
            raise FedWardError(
                "The VPN's library is not installed here.",
                code=Code.CONFIGURATION_INVALID,
                remedy="Install FedWard with its extra 'site', as pip install 'fedward[site]'.",
            ) from error

    return explained(run)


@app.command()
@_coded
def keygen(home: Home = _HOME) -> None:
    """Make this host's private key, unless there is one. It is shown to nobody; 'pubkey' prints its public half."""
    from appliance.vpn.keys import make_private_key

    _, is_new = make_private_key(home / "private.key")
    print_changed(is_new)


@app.command()
@_coded
def pubkey(home: Home = _HOME) -> None:
    """Print the public half of this host's key: what the hub's operator admits."""
    from appliance.vpn.keys import PrivateKey

    typer.echo(PrivateKey.load(home / "private.key").public)


@app.command()
@_coded
def addresses(home: Home = _HOME) -> None:
    """Print this host's addresses inside the VPN, one a line: where its services listen, or come from."""
    for address in _host(home).addresses:
        typer.echo(address)


@app.command()
@_coded
def admit(
    member: Member,
    public_key: Annotated[str, typer.Argument(help="What 'fedward vpn pubkey' printed there.", show_default=False)],
    home: Home = _HOME,
    replace_key: Annotated[
        bool, typer.Option("--replace-key", help="A known member has a new key: its machine was set up anew.")
    ] = False,
    check: Check = False,
) -> None:
    """At the hub: enter a member in the register. 'apply' then lets it in.

    It gets addresses that it keeps for good, and a preshared key, in the file that is printed: hand that over once, on
    a way of its own. The second line is JSON, for machines.
    """
    host = _host(home)
    with host.locked():
        book = host.book()
        given, is_changed = book.admit(member, public_key, replace_key=replace_key, check=check)
        secret = None if check and is_changed else str(book.secret_file(book.entry(member)))
    print_changed(is_changed)
    typer.echo(json.dumps({"addresses": [str(address) for address in given], "preshared_key_file": secret}))


@app.command()
@_coded
def suspend(member: Member, home: Home = _HOME) -> None:
    """At the hub: cut a member off at once, until 'resume'."""
    from appliance.vpn.peers import PeerState

    _change(home, member, PeerState.SUSPENDED)


@app.command()
@_coded
def resume(member: Member, home: Home = _HOME) -> None:
    """At the hub: let a suspended member in again, at once."""
    from appliance.vpn.peers import PeerState

    _change(home, member, PeerState.ACTIVE)


@app.command()
@_coded
def revoke(member: Member, home: Home = _HOME) -> None:
    """At the hub: cut a member off at once and for good. Its addresses are never given to another."""
    from appliance.vpn.peers import PeerState

    _change(home, member, PeerState.REVOKED)


@app.command()
@_coded
def render(home: Home = _HOME) -> None:
    """Print the configuration that 'apply' writes for wg-quick, with the keys left out."""
    from appliance.vpn.config import render_hidden

    tunnel, warnings = _host(home).tunnel()
    _warn(warnings)
    typer.echo(render_hidden(tunnel), nl=False)


@app.command()
@_coded
def apply(home: Home = _HOME, check: Check = False) -> None:
    """Make the interface and wg-quick's file what vpn.toml and the register say.

    By the smallest change: whoever is not concerned notices nothing, and a second time nothing changes. An entry of the
    register that is bad harms nobody else: it is reported, and its member keeps what it had. A network that this
    machine routes already is refused before anything is set up.
    """
    host = _host(home)
    with host.locked():
        _print_outcome(host.apply(check=check))


@app.command()
@_coded
def resolve(home: Home = _HOME) -> None:
    """At a member: if the hub was not heard for 135 seconds, look its name up again and try its next address.

    For a timer, every 30 seconds. While the hub is heard it does nothing.
    """
    host = _host(home)
    with host.locked():
        _print_outcome(host.resolve_hub())


@app.command()
@_coded
def status(home: Home = _HOME, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Say who is on the VPN, when each was heard last, and what is wrong. Ends with 1 when something is."""
    found = _host(home).status()
    if as_json:
        rows = [_facts(row) for row in found.peers]
        typer.echo(json.dumps({"is_up": found.is_up, "peers": rows, "warnings": found.warnings}, indent=2))
    else:
        columns = ("member", "state", "addresses", "last handshake", "received", "sent", "endpoint")
        print_table("VPN", columns, map(_cells, found.peers))
        for warning in found.warnings:
            console.print(visible(f"Warning: {warning}"), soft_wrap=True)
    if found.warnings:
        raise typer.Exit(1)


def _host(home: Path) -> VpnHost:
    from appliance.vpn.config import VpnSettings
    from appliance.vpn.host import VpnHost

    return VpnHost(home, read_settings(home / "vpn.toml", VpnSettings))


def _change(home: Path, member: str, state: PeerState) -> None:
    host = _host(home)
    with host.locked():
        _print_outcome(host.change_state(member, state))


def _print_outcome(outcome: Outcome) -> None:
    print_changed(bool(outcome.changes))
    for change in outcome.changes:
        typer.echo(change)
    _warn(outcome.warnings)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        errors.print(visible(f"Warning: {warning}"), soft_wrap=True)


def _facts(row: PeerStatus) -> dict[str, object]:
    live = row.live
    return {
        "member": row.member,
        "state": row.state,
        "addresses": row.addresses,
        "last_handshake_at": live.handshake_at or None if live else None,
        "received_bytes": live.received_bytes if live else 0,
        "sent_bytes": live.sent_bytes if live else 0,
        "endpoint": live.endpoint if live else "",
    }


def _cells(row: PeerStatus) -> tuple[object, ...]:
    live = row.live
    if live is None:
        return (row.member, row.state, row.addresses, "", "", "", "")
    heard = _ago(time.time() - live.handshake_at) if live.handshake_at else "never"
    sizes = (_size(live.received_bytes), _size(live.sent_bytes))
    return (row.member, row.state, row.addresses, heard, *sizes, live.endpoint)


def _ago(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 1:
        return "less than a minute ago"
    return f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} hours ago"


def _size(count: int) -> str:
    return f"{count} B" if count < 10_000 else f"{count / 1e6:.2f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
