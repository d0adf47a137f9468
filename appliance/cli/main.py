"""The ``fedward`` command."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Any, Final

import structlog
import typer
from typer.core import TyperGroup
from typer.main import get_group

from appliance.protocol.logs import ErrorStreamLogger

GROUPS = (
    "node",
    "gui",
    "network",
    "operator",
    "member",
    "join",
    "authority",
    "hub",
    "vpn",
    "images",
    "kit",
    "federator",
)
COMMANDS = ("demo", "doctor", "leave", "status")
MARKUP: Final = "markdown"


class Parts(TyperGroup):
    """The groups and commands, each imported when it is asked for: all of them together take a second.

    Typer keeps its types of contexts and commands to itself.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Those that this host can run, in the order above, and our own."""
        known = [name for name in (*GROUPS, *COMMANDS) if self.get_command(ctx, name) is not None]
        return [*known, *(name for name in self.commands if name not in known)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or nothing: an unknown one, or one whose libraries are not on this host."""
        if cmd_name not in self.commands and cmd_name in (*GROUPS, *COMMANDS):
            found = _load(cmd_name)
            if found is not None:
                self.commands[cmd_name] = found
        return super().get_command(ctx, cmd_name)


def _load(name: str) -> Any:
    """Import the command or group ``name``, unless a library that only it needs is not installed here.

    A hub's fedward carries no learning library, a researcher's none of the GUI's.
    """
    try:
        module = import_module(f"appliance.cli.{name}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith(("appliance", "node_gui", "researcher_kit", "secagg_mpc")):
            raise
        return None
    holder = typer.Typer(rich_markup_mode=MARKUP)
    if name in GROUPS:
        holder.add_typer(module.app, name=name)
    else:
        holder.command(name)(getattr(module, name))
    return get_group(holder).commands[name]


app = typer.Typer(
    name="fedward",
    cls=Parts,
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
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
