"""``fedward doctor``: what this machine gives the sandbox."""

from __future__ import annotations

import getpass
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import console, explained, print_table
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import SANDBOX_LEVELS, SandboxLevel
from appliance.runner.doctor import Machine, examine, reached
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME


@explained
def doctor(
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="FEDWARD_NODE_HOME", help="A running node's folder: judge its own runner by its own policy."
        ),
    ] = None,
    require: Annotated[
        str | None, typer.Option(help=f"The level to reach: {', '.join(SANDBOX_LEVELS)}.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what this machine gives the sandbox that plans run in, and what would mend what it lacks.

    Ends with 1 when the level is not reached that is required: by --require, else by the node's policy, else 'partial'.
    """
    machine = Machine.this(home or Path(tempfile.gettempdir()))
    level, asked_by_policy = machine.level, "partial"
    if home is not None:
        found = GovernanceClient(home / SOCKET_NAME, staff=getpass.getuser(), via="cli").call("node.sandbox")
        level, asked_by_policy = SandboxLevel.model_validate(found["level"]), found["required"]
    required = require or asked_by_policy
    if required not in SANDBOX_LEVELS:
        raise FedWardError(f"'{required}' is none of {', '.join(SANDBOX_LEVELS)}.", code=Code.ARGUMENT_INVALID)
    findings = examine(machine.with_level(level))
    lacking = level.lacks(SANDBOX_LEVELS[required])
    if as_json:
        result = {"reached": reached(level), "required": required, "lacking": lacking}
        typer.echo(json.dumps(result | {"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        cells = ((f.name, f.state, f.because, f.remedy) for f in findings)
        print_table("The sandbox on this machine", ("part", "state", "because", "what to do"), cells)
        console.print(f"Level reached: {reached(level) or 'none'}; required: {required}.")
    if lacking:
        raise typer.Exit(1)
