"""``fedward hub``: what the hub does after a new register arrived."""

from __future__ import annotations

import typer

app = typer.Typer(
    no_args_is_help=True, help="At the hub: let the membership register act on certificates, VPN and lines."
)
