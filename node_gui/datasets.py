"""Datasets: what is registered, who may use it, and the way from a file in the data folder to a dataset."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.register import Role
from node_gui import loading
from node_gui.access import may
from node_gui.audit import sentence
from node_gui.context import governance, history, person, register, say
from node_gui.formats import count
from node_gui.forms import asked, end_of_day, invalid, offset, revision, text, turn

blueprint = Blueprint("datasets", __name__, url_prefix="/datasets")

STATES = {
    "active": (_("In use"), "good"),
    "suspended": (_("Suspended"), "warning"),
    "changed": (_("File has changed"), "danger"),
}
PREVIEW_ROWS = 10


@blueprint.get("/")
def page() -> str:
    """All datasets."""
    chosen = asked("state") if asked("state") in STATES else None
    found = history().dataset_page(search=asked("search"), state=chosen, offset=offset())
    return render_template("datasets/page.html", datasets=found, states=STATES, chosen=chosen, **turn(found))


@blueprint.get("/<dataset_id>")
def dataset(dataset_id: str) -> str:
    """One dataset."""
    return _dataset_page(dataset_id)


# From a file to a dataset


@blueprint.get("/browse")
def browse() -> str:
    """The data folder."""
    folder = request.args.get("folder", "")[:4096]
    listing = governance().call("dataset.browse", folder=folder)
    parts = listing["folder"].split("/") if listing["folder"] else []
    above = [("/".join(parts[: n + 1]), name) for n, name in enumerate(parts)]
    return render_template("datasets/browse.html", listing=listing, above=above, renews=_renewed())


@blueprint.route("/look", methods=["GET", "POST"])
def look() -> str | tuple[str, int]:
    """A file's first rows and what its columns hold, and the form that makes it a dataset."""
    path = request.values.get("path", "")[:4096]
    renews = _renewed()
    if request.method == "GET":
        return _look_page(path, renews)
    try:
        plan = loading.plan_of_form()
        profile = governance().call("dataset.profile", path=path, loading_plan=plan)
    except FedWardError as error:
        return _look_again(path, renews, error)
    return _look_page(path, renews, profile=profile)


@blueprint.post("/add")
def add() -> Response | tuple[str, int]:
    """Register a file, once the runner has read all of it."""
    path = text("path")
    try:
        spec = {
            "name": text("name"),
            "path": path,
            "description": text("description"),
            "tags": _tags(),
            "loading_plan": loading.plan_of_form(),
        }
        result = governance().call("dataset.add", spec=spec)
    except FedWardError as error:
        return _look_again(path, None, error)
    say(
        gettext(
            "%(name)s is registered with %(rows)s rows. Nobody may use it yet.",
            name=spec["name"],
            rows=count(result["rows"]),
        )
    )
    return redirect(url_for("datasets.dataset", dataset_id=result["dataset_id"]) + "#permissions")


@blueprint.post("/<dataset_id>/renew")
def renew(dataset_id: str) -> Response | tuple[str, int]:
    """Put a new version into a dataset's place."""
    found, path = history().dataset(dataset_id), text("path")
    try:
        plan = loading.plan_of_form() if request.form.getlist("source") or text("plan") else None
        result = governance().call("dataset.renew", dataset=found["id"], path=path, loading_plan=plan, shown=revision())
    except FedWardError as error:
        return _look_again(path, found, error)
    rows = {"before": count(found["rows"]), "now": count(result["rows"]), "name": found["name"]}
    say(gettext("%(name)s has its new version: %(now)s rows, %(before)s before.", **rows))
    return redirect(url_for("datasets.dataset", dataset_id=found["id"]))


# What staff decide about a dataset


@blueprint.post("/<dataset_id>/describe")
def describe(dataset_id: str) -> Response | tuple[str, int]:
    """Change description and tags."""
    return _decide(
        dataset_id,
        "dataset.describe",
        lambda: {"description": text("description"), "tags": _tags(), "shown": revision()},
        gettext("Description and tags are changed."),
    )


@blueprint.post("/<dataset_id>/check")
def check(dataset_id: str) -> Response | tuple[str, int]:
    """Read the file again; with ``accept``, take it as it is now."""
    found = history().dataset(dataset_id)
    try:
        accepted = {"accept": True, "shown": revision()} if "accept" in request.form else {}
        result = governance().call("dataset.check", dataset=found["id"], **accepted)
    except FedWardError as error:
        return _again(dataset_id, error)
    if not result["changed"]:
        say(gettext("The file is the one that was registered."))
    elif result["accepted"]:
        say(gettext("The file is taken as it is now, with %(rows)s rows.", rows=count(result["rows"])))
    else:
        say(gettext("The file has changed. No round uses it until you accept it as it is now."), "warning")
    return redirect(url_for("datasets.dataset", dataset_id=found["id"]))


@blueprint.post("/<dataset_id>/suspend")
def suspend(dataset_id: str) -> Response | tuple[str, int]:
    """Let no round use it."""
    done = gettext("The dataset is suspended; nothing runs on it any more.")
    return _decide(dataset_id, "dataset.suspend", lambda: {"shown": revision()}, done)


@blueprint.post("/<dataset_id>/resume")
def resume(dataset_id: str) -> Response | tuple[str, int]:
    """Let it be used again."""
    done = gettext("The dataset may be used again.")
    return _decide(dataset_id, "dataset.resume", lambda: {"shown": revision()}, done)


@blueprint.get("/<dataset_id>/remove")
def removal(dataset_id: str) -> str:
    """What ends when the dataset is removed, before it is."""
    found = history().dataset(dataset_id)
    open_ = {row["experiment_id"] for row in history().open_rounds()}
    ends = [e for e in map(history().experiment, sorted(open_)) if e["dataset_id"] == found["id"]]
    return render_template("datasets/removal.html", dataset=found, ends=ends)


@blueprint.post("/<dataset_id>/remove")
def remove(dataset_id: str) -> Response | tuple[str, int]:
    """Forget the dataset; its file stays."""
    found = history().dataset(dataset_id)
    try:
        governance().call("dataset.remove", dataset=found["id"], shown=revision())
    except FedWardError as error:
        return _again(dataset_id, error)
    say(gettext("%(name)s is forgotten, with its permissions. The file stays where it is.", name=found["name"]))
    return redirect(url_for("datasets.page"))


@blueprint.post("/<dataset_id>/permit")
def permit(dataset_id: str) -> Response | tuple[str, int]:
    """Let a researcher use it."""
    return _decide(
        dataset_id,
        "dataset.permit",
        lambda: {"researcher": text("researcher"), "until": end_of_day("until")},
        gettext("%(researcher)s may use it now.", researcher=text("researcher")),
    )


@blueprint.post("/<dataset_id>/forbid")
def forbid(dataset_id: str) -> Response | tuple[str, int]:
    """End a researcher's permission."""
    return _decide(
        dataset_id,
        "dataset.forbid",
        lambda: {"researcher": text("researcher")},
        gettext("%(researcher)s may not use it any more.", researcher=text("researcher")),
    )


def _decide(dataset_id: str, method: str, params: Any, done: str) -> Response | tuple[str, int]:
    found = history().dataset(dataset_id)
    try:
        governance().call(method, dataset=found["id"], **params())
    except FedWardError as error:
        return _again(dataset_id, error)
    say(done)
    return redirect(url_for("datasets.dataset", dataset_id=found["id"]))


def _again(dataset_id: str, error: FedWardError) -> tuple[str, int]:
    """The dataset's page as it is now, with what went wrong."""
    if error.code in (Code.NODE_NOT_RUNNING, Code.INTERNAL):
        raise error
    return _dataset_page(dataset_id, error), 409 if error.code is Code.DECISION_STALE else 400


def _dataset_page(dataset_id: str, error: FedWardError | None = None) -> str:
    found = history().dataset(dataset_id)
    lines = [line for line in history().audit_page(subject=found["id"], size=20).lines if not line["is_altered"]]
    return render_template(
        "datasets/dataset.html",
        dataset=found,
        states=STATES,
        type_names=loading.TYPE_NAMES,
        events=[(line, sentence(line)) for line in lines],
        known=_researchers(),
        may_decide=may(person().role, "datasets.describe"),
        error=error,
    )


def _researchers() -> list[str]:
    """Who could be permitted: the active researchers of the register; nobody while that cannot be read."""
    try:
        return [member.id for member in register().with_role(Role.RESEARCHER)]
    except FedWardError:
        return []


def _tags() -> list[str]:
    tags = [tag.strip() for tag in text("tags").split(",") if tag.strip()]
    if not tags:
        raise invalid(
            gettext("The dataset has no tag."), gettext("Researchers find it by its tags; write one at least.")
        )
    return tags


def _renewed() -> dict[str, Any] | None:
    """The dataset that a file shall be the new version of, if it is for one."""
    dataset_id = request.values.get("for", "")
    return history().dataset(dataset_id) if dataset_id else None


def _look_again(path: str, renews: dict[str, Any] | None, error: FedWardError) -> tuple[str, int]:
    if error.code in (Code.NODE_NOT_RUNNING, Code.INTERNAL):
        raise error
    return _look_page(path, renews, error=error), 409 if error.code is Code.DECISION_STALE else 400


def _look_page(
    path: str,
    renews: dict[str, Any] | None,
    *,
    profile: dict[str, Any] | None = None,
    error: FedWardError | None = None,
) -> str:
    """The file with the form, filled in from what was typed, from the version of before, or from the first rows."""
    typed = request.form
    before = renews["loading_plan"] if renews else {}
    reading = {
        name: typed.get(name, "") if typed else before.get(name) or ""
        for name in ("delimiter", "decimal", "patient_id")
    }
    how = {"delimiter": reading["delimiter"].replace("tab", "\t")} if reading["delimiter"] else {}
    preview = governance().call("dataset.preview", path=path, loading_plan=how)
    header, rows = preview["header"], preview["rows"]
    if typed.getlist("source") == header:
        columns = loading.from_form(header)
    elif before.get("columns"):
        columns = loading.from_plan(header, before)
    else:
        columns = loading.guess(header, rows, reading["decimal"] or ".")
    return render_template(
        "datasets/look.html",
        path=path,
        renews=renews,
        header=header,
        rows=rows[:PREVIEW_ROWS],
        columns=columns if len(columns) <= loading.COLUMNS_AT_MOST else None,
        reading=reading,
        profile=profile,
        types=loading.TYPE_NAMES,
        missing=loading.MISSING_NAMES,
        typed=typed,
        error=error,
    )
