"""Models: what researchers sent of experiments that are over, for the hospital to keep, read about and take along.

A model's card is a researcher's text: it is shown as it is written, and nothing of a model is opened here.
"""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, redirect, render_template, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response as AnyResponse

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import CARD_TEXT, RELEASE_FILES
from node_gui.context import governance, history, say
from node_gui.exports import zip_file

blueprint = Blueprint("models", __name__, url_prefix="/models")


@blueprint.get("/")
def page() -> str:
    """All models, also those on their way."""
    found = history().models()
    names = history().experiment_names({model["experiment_id"] for model in found})
    return render_template("models/page.html", models=found, names=names)


@blueprint.get("/<jti>")
def model(jti: str) -> str:
    """One model, with its card."""
    found = history().model(jti)
    try:
        card = history().model_file(found, CARD_TEXT).read_text()
    except OSError as error:
        raise _gone() from error
    names = history().experiment_names({found["experiment_id"]})
    return render_template("models/model.html", model=found, card=card, names=names, plan=_plan(found["plan_sha256"]))


@blueprint.get("/<jti>/model.zip")
def download(jti: str) -> Response:
    """The model's files as an archive."""
    found = history().model(jti)
    files = {name: history().model_file(found, name) for name in RELEASE_FILES.values()}
    if not all(map(Path.is_file, files.values())):
        raise _gone()
    governance().call("model.download", model=found["jti"])
    return zip_file(f"model-{found['experiment_id']}.zip", files)


@blueprint.get("/<jti>/remove")
def removal(jti: str) -> str:
    """What is gone when the model is deleted, before it is."""
    return render_template("models/removal.html", model=history().model(jti))


@blueprint.post("/<jti>/remove")
def remove(jti: str) -> AnyResponse:
    """Delete the model from this node."""
    found = history().model(jti)
    governance().call("model.delete", model=found["jti"])
    say(gettext("The model %(name)s is deleted from this node.", name=found["name"]))
    return redirect(url_for("models.page"))


def _plan(sha256: str | None) -> str | None:
    """The plan that the model was trained by, if this node knows its text."""
    try:
        return None if sha256 is None else str(history().plan(sha256)["sha256"])
    except FedWardError:
        return None


def _gone() -> FedWardError:
    return FedWardError("This model is not here any more.", code=Code.DECISION_STALE)
