"""``fedward operator``: the consortium's root of identity, on the operator's own machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import explained, print_changed
from appliance.enrolment import operator

app = typer.Typer(
    no_args_is_help=True,
    help="""The operator's keys and register.

    Their folder stays on the operator's machine (or on a disk in a safe): whoever has it can make members.""",
)


@app.callback()
def prepare() -> None:
    """What is made here is for its owner alone."""
    os.umask(0o077)


@app.command()
@explained
def init(
    home: Annotated[Path, typer.Option(envvar="FEDWARD_OPERATOR_HOME", help="The operator's folder.", file_okay=False)],
    consortium: Annotated[str, typer.Option(help="The consortium's name; it cannot be changed later.")],
    contact: Annotated[str, typer.Option(help="Where people reach the operator; shown to all members.")],
) -> None:
    """Make the operator's keys and the membership register; what is there already is kept.

    Prints 'changed' or 'unchanged', then the operator's public key, which HOME/operator.pub holds as well. Make a
    backup of the folder: without its keys no member can be admitted or revoked any more.

    Example: fedward operator init --home ~/consortium --consortium 'Prostate North' --contact operator@example.org
    """
    print_changed(operator.initialise(home, consortium=consortium, contact=contact))
    typer.echo((home / operator.PUBLIC_FILE).read_text(), nl=False)
