"""The ``fedward`` command."""

from __future__ import annotations

from importlib.metadata import version as installed_version

import structlog
import typer

from appliance.cli import demo, doctor, gui, leave, network, node, status, vpn
from appliance.protocol.logs import ErrorStreamLogger

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
        "On any host of a site: **fedward vpn --help**."
    ),
)
app.add_typer(node.app, name="node")
app.add_typer(gui.app, name="gui")
app.add_typer(network.app, name="network")
app.add_typer(vpn.app, name="vpn")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("leave")(leave.leave)
app.command("status")(status.status)


@app.callback()
def prepare() -> None:
    """Keep what our libraries note in passing out of what a person reads."""
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
