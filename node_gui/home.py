"""Home: what needs me now, what runs, and what the node may do at this moment."""

from __future__ import annotations

from flask import Blueprint, render_template

blueprint = Blueprint("home", __name__)


@blueprint.get("/")
def page() -> str:
    """The page."""
    return render_template("home/page.html")


@blueprint.get("/live")
def live() -> str:
    """The part that refreshes itself."""
    return render_template("home/live.html")
