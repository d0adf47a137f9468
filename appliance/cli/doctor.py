"""``fedward doctor``: what is wrong on this host and what mends it, and the letter to the firewall team."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import console, explained, print_table, visible
from appliance.doctor import letter as letters
from appliance.doctor.checkup import CHECKS, examine
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host, Kind, find_host, is_there
from appliance.protocol.errors import Code, ConfigurationError, FedWardError
from appliance.protocol.local.jobs import SANDBOX_LEVELS, SandboxLevel
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME

_SANDBOX = "sandbox"
_PLANS_RUN_ON = (Kind.NODE, Kind.NOTHING)


class As(StrEnum):
    """What a host can be told to be judged as."""

    HUB = "hub"
    NODE = "node"
    RESEARCHER = "researcher"
    FEDERATOR = "federator"
    OPERATOR = "operator"


@explained
def doctor(
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="FEDWARD_NODE_HOME", help="A running node's folder: judge its own runner by its own policy."
        ),
    ] = None,
    role: Annotated[
        As | None, typer.Option("--as", help="What this host is or shall become; it finds out by itself.")
    ] = None,
    hub: Annotated[
        list[str] | None,
        typer.Option(
            help="Before the installation: the hub's endpoint, such as vpn.example.org:51820. May be repeated."
        ),
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(help=f"The sandbox's level to reach: {', '.join(SANDBOX_LEVELS)}.", show_default=False),
    ] = None,
    letter: Annotated[
        bool, typer.Option("--letter", help="Write the request to the hospital's firewall team instead.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The letter's file; standard output without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at this host, before or after its installation: what is wrong, and what mends it.

    It changes nothing and ends within seconds. What it cannot know it says; as root it knows most. It ends with 1 when
    something failed; for the sandbox that is a level below the required one: by --require, else by the node's policy,
    else 'partial'.
    """
    if require is not None and require not in SANDBOX_LEVELS:
        raise FedWardError(f"'{require}' is none of {', '.join(SANDBOX_LEVELS)}.", code=Code.ARGUMENT_INVALID)
    host = find_host(kind=Kind(role) if role else None, home=home, hubs=hub or ())
    if letter:
        _write(letters.write(host, today=dt.datetime.now().astimezone().date()), out)
        return
    checks = dict(CHECKS)
    if require or host.kind in _PLANS_RUN_ON:
        checks[_SANDBOX] = lambda host: _sandbox(host, require, is_asked=home is not None)
    findings = examine(host, checks)
    failed = sum(finding.state is State.FAILED for finding in findings)
    if as_json:
        typer.echo(json.dumps({"host": host.kind, "failed": failed, "findings": list(map(asdict, findings))}, indent=2))
    else:
        cells = ((f.topic, f.name, f.state, f.because, f.remedy) for f in findings)
        print_table(f"This host: {host.kind}", ("topic", "of what", "state", "because", "what to do"), cells)
        console.print(f"{failed} failed." if failed else "Nothing failed.")
    if failed:
        raise typer.Exit(1)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out}: {error.strerror}.") from error
    console.print(visible(f"Written to {out}."), soft_wrap=True)


def _sandbox(host: Host, require: str | None, *, is_asked: bool) -> Iterator[Finding]:
    """What confines plans: of a node that runs, as its own runner sees it; of any other machine, as this user does."""
    level: SandboxLevel | None = None
    required = require or "partial"
    if host.home is not None and (is_asked or is_there(host.home / SOCKET_NAME)):
        try:
            staff = GovernanceClient(host.home / SOCKET_NAME, staff=getpass.getuser(), via="cli")
            found = staff.call("node.sandbox")
        except FedWardError as error:
            yield Finding(_SANDBOX, "node", State.FAILED, error.message, error.remedy)
            return
        level, required = SandboxLevel.model_validate(found["level"]), require or found["required"]
    try:
        from appliance.runner.doctor import Machine  # noqa: PLC0415 - libraries that not every host has
        from appliance.runner.doctor import examine as parts  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if level is None:
            because = f"the library {error.name} is not installed here"
            yield Finding(_SANDBOX, "", State.UNKNOWN, because, "Install FedWard with its extra 'site'.")
            return
    else:
        machine = Machine.this(Path(tempfile.gettempdir()))
        machine, level = (machine, machine.level) if level is None else (machine.with_level(level), level)
        for part in parts(machine):
            # What is missing counts by the level below: a level may do without it.
            state = State.OK if part.state == "ok" else State.WEAKER
            yield Finding(_SANDBOX, part.name, state, part.because, part.remedy)
    yield _level(level, required)


def _level(level: SandboxLevel, required: str) -> Finding:
    names = [name for name, needed in SANDBOX_LEVELS.items() if not level.lacks(needed)]
    because = f"reached: {names[-1] if names else 'none'}; required: {required}"
    if lacking := level.lacks(SANDBOX_LEVELS[required]):
        because += f"; missing: {', '.join(lacking)}"
        return Finding(_SANDBOX, "level", State.FAILED, because, "Do what is said of the sandbox's parts.")
    return Finding(_SANDBOX, "level", State.OK, because)
