"""``fedward kit``: the researcher's notebooks, for whoever commands the researcher's machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from appliance.cli.console import console, explained, visible
from appliance.protocol.errors import ConfigurationError
from node_gui.certificate import TlsPair, fingerprint, own_pair, server_context

if TYPE_CHECKING:  # the researcher's room brings learning libraries, which no other command waits for
    from researcher_kit.notebooks import KitConfig

app = typer.Typer(
    no_args_is_help=True,
    help="The researcher's notebooks as a service: JupyterLab over HTTPS with FedWard's SDK, opened by one-time links.",
)

Home = Annotated[
    Path, typer.Option("--home", envvar="FEDWARD_RESEARCHER_HOME", help="The researcher's folder.", file_okay=False)
]


@app.command()
@explained
def start(home: Home) -> None:
    """Start the notebook service; it runs until it is ended. 'fedward kit invite' makes the link that opens it.

    Address, port and certificate stand in kit.toml in the researcher's folder.
    """
    from researcher_kit.notebook_server import serve
    from researcher_kit.notebooks import read_config

    home = home.resolve()
    config = read_config(home)
    serve(home, config, server_context(_pair(home, config)))


@app.command()
@explained
def invite(home: Home) -> None:
    """Print a one-time link that opens the notebooks; the one before it opens no more."""
    from researcher_kit.notebooks import OneTimeLink, read_config

    home = home.resolve()
    config = read_config(home)
    pair = _pair(home, config)
    link = f"{config.shown_address}/login?token={OneTimeLink(home).make(config.invitation_hours)}"
    console.print("Open this link in a browser; it opens the notebooks, once:", soft_wrap=True)
    console.print(visible(link), soft_wrap=True)
    if config.certificate is None:
        console.print("Your browser will ask about the certificate: accept it only with this SHA-256 fingerprint:")
        console.print(visible(fingerprint(pair.certificate)), soft_wrap=True)


def _pair(home: Path, config: KitConfig) -> TlsPair:
    if config.certificate is not None and config.key is not None:
        return TlsPair(home / config.certificate, home / config.key)
    if config.certificate is not None or config.key is not None:
        raise ConfigurationError(f"{home}/kit.toml: certificate and key belong together; one is missing.")
    return own_pair(home / "kit/tls", [urlsplit(config.shown_address).hostname or "localhost"], "FedWard notebooks")
