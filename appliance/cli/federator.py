"""``fedward federator``: the service that runs researchers' experiments unattended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import explained

app = typer.Typer(
    no_args_is_help=True,
    help="The federator: runs experiments that researchers submitted, within the mandates that they signed.",
)

Home = Annotated[
    Path, typer.Option("--home", envvar="FEDWARD_FEDERATOR_HOME", help="The federator's folder.", file_okay=False)
]


@app.callback()
def service() -> None:
    """One service for each federator of the consortium."""


@app.command()
@explained
def start(home: Home) -> None:
    """Start the federator; it runs until it is ended, and goes on with what was under way at its next start.

    Settings stand in federator.toml in its folder.
    """
    from researcher_kit.federator import run_federator

    run_federator(home)
