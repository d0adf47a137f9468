"""Privacy: what protects patients at this node today, in plain sentences, and what does not yet."""

from __future__ import annotations

from flask import Blueprint, render_template

from node_gui.context import governance
from node_gui.policy import worded

blueprint = Blueprint("privacy", __name__, url_prefix="/privacy")


@blueprint.get("/")
def page() -> str:
    """What policy requires."""
    rules = {rule["name"]: rule["value"] for rule in governance().call("policy.show")}
    return render_template("privacy/page.html", rules=rules, worded=worded)
