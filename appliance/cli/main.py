"""The ``fedward`` command."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as installed_version

import structlog
import typer

from appliance.protocol.logs import ErrorStreamLogger

GROUPS = ("node", "gui", "network", "operator", "member", "join", "authority", "hub", "vpn", "images", "kit")
COMMANDS = ("demo", "doctor", "leave", "status")

app = typer.Typer(
    name="fedward",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # locals could hold keys
    help=(
        "Federated learning for hospital consortia: models travel, patients' records do not.\n\n"
        "Start with **fedward demo**: four real hospitals on this machine, in two minutes.\n\n"
        "At a hospital: **fedward node --help** and **fedward gui --help**. "
        "At the network host: **fedward network --help**. "
        "The operator: **fedward operator --help** and **fedward member --help**. "
        "On any host of a site: **fedward join --help** and **fedward vpn --help**; "
        "at its hub: **fedward authority --help** and **fedward hub --help**."
    ),
)


def _add(name: str) -> None:
    """Add the command or group ``name``, unless a library that only it needs is not installed here.

    A hub's fedward carries no learning library, a researcher's none of the GUI's.
    """
    try:
        module = import_module(f"appliance.cli.{name}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith(("appliance", "node_gui", "researcher_kit", "secagg_mpc")):
            raise
        return
    if name in GROUPS:
        app.add_typer(module.app, name=name)
    else:
        app.command(name)(getattr(module, name))


for _name in (*GROUPS, *COMMANDS):
    _add(_name)


@app.callback()
def prepare() -> None:
    """Keep what our libraries note in passing out of what a person reads."""
    structlog.reset_defaults()  # nothing of what another command of the same process set: parts do not fit together
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=ErrorStreamLogger,
    )


@app.command()
def version() -> None:
    """Print the installed version."""
    typer.echo(f"fedward {installed_version('fedward')}")


if __name__ == "__main__":
    app()
