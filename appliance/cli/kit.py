"""``fedward kit``: the researcher's notebooks."""

import typer

app = typer.Typer()
