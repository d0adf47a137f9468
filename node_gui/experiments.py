"""Experiments: what runs here, what waits, what ran; and the button that ends it."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, redirect, render_template, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from node_gui.access import may
from node_gui.charts import Chart, line_chart
from node_gui.context import governance, history, node_status, person, say
from node_gui.forms import asked, before, turn

blueprint = Blueprint("experiments", __name__, url_prefix="/experiments")

STATES = {
    "running": (_("Running"), "good"),
    "queued": (_("Waits its turn"), "waiting"),
    "halted": (_("Waits for the node"), "warning"),
    "between": (_("Between rounds"), "waiting"),
    "finished": (_("Finished"), "plain"),
    "stopped": (_("Stopped"), "warning"),
    "failed": (_("Failed"), "danger"),
    "quiet": (_("Not heard of for a day"), "plain"),
}
STEPS = {
    "replied": (_("Answered"), "good"),
    "failed": (_("Failed"), "danger"),
    "stopped": (_("Stopped"), "warning"),
    "accepted": (_("At work"), "waiting"),
    "checked": (_("On its way"), "waiting"),
}
TIMES = {
    "queued_s": _("waited"),
    "fetch_s": _("fetched"),
    "start_s": _("got ready"),
    "train_s": _("trained"),
    "check_s": _("checked"),
    "upload_s": _("sent"),
}
_ROUNDS_SHOWN, _ROUNDS_DRAWN = 100, 200


@blueprint.get("/")
def page() -> str:
    """All experiments, those at work first."""
    live_path = url_for("experiments.live", search=asked("search") or None, before=before())
    return render_template("experiments/page.html", live_path=live_path, **_lists())


@blueprint.get("/live")
def live() -> str:
    """The part that refreshes itself."""
    return render_template("experiments/live.html", **_lists())


@blueprint.get("/<experiment_id>")
def experiment(experiment_id: str) -> str:
    """One experiment."""
    return render_template("experiments/experiment.html", **_one(experiment_id))


@blueprint.get("/<experiment_id>/live")
def experiment_live(experiment_id: str) -> str:
    """The part of one experiment that refreshes itself."""
    return render_template("experiments/experiment_live.html", **_one(experiment_id))


@blueprint.post("/<experiment_id>/stop")
def stop(experiment_id: str) -> Response:
    """End its work here, with all its processes."""
    history().experiment(experiment_id)
    result = governance().call("experiment.stop", experiment=experiment_id)
    ended_at = result["ended_at"]
    if ended_at is not None:
        moment = time.strftime("%H:%M:%S", time.localtime(ended_at))
        say(gettext("Stopped. Its last process here was seen dead at %(moment)s.", moment=moment))
    elif result["was_running"]:
        say(gettext("Stopped. No process of it was running any more."))
    else:
        say(gettext("Nothing of this experiment was running here."), "warning")
    return redirect(url_for("experiments.experiment", experiment_id=experiment_id))


def _lists() -> dict[str, Any]:
    found = history().experiment_page(search=asked("search"), before=before())
    running = _running()
    for row in found.rows:
        _with_state(row, running)
    return {"experiments": found, "states": STATES, "query": asked("search"), **turn(found)}


def _one(experiment_id: str) -> dict[str, Any]:
    found = _with_state(history().experiment(experiment_id), _running())
    rounds = history().experiment_rounds(experiment_id, size=_ROUNDS_DRAWN)
    answered = [row for row in rounds if row["step"] == "replied"]
    for row in rounds:
        row["times"] = [(text, row["timing"][name]) for name, text in TIMES.items() if row["timing"].get(name, 0) >= 1]
    stopped = [row["ended_at"] for row in rounds if row["step"] == "stopped"]
    return {
        "experiment": found,
        "states": STATES,
        "steps": STEPS,
        "rounds": rounds[-_ROUNDS_SHOWN:][::-1],
        "left_out": max(0, found["requests"] - _ROUNDS_SHOWN),
        "not_drawn": max(0, found["requests"] - _ROUNDS_DRAWN),
        "charts": _charts(answered),
        "dead_at": _dead_at(experiment_id) if stopped else None,
        "may_stop": may(person().role, "experiments.stop") and found["state"] not in ("finished", "stopped", "failed"),
    }


def _running() -> set[str] | None:
    """The experiments whose rounds train now: the node takes them up in order, one round of each at a time."""
    status = node_status()
    if status is None:
        return None
    waiting = dict.fromkeys(row["experiment_id"] for row in history().open_rounds())
    return set(list(waiting)[: status["running_rounds"]])


def _with_state(row: dict[str, Any], running: set[str] | None) -> dict[str, Any]:
    if row["state"] == "open":
        is_running = running is not None and row["experiment_id"] in running
        row["state"] = "halted" if running is None else "running" if is_running else "queued"
    return row


def _dead_at(experiment_id: str) -> float | None:
    """When the runner was last seen dead, as the audit log tells."""
    lines = history().audit_page(subject=experiment_id, search='"experiment.stopped"', size=1).lines
    return lines[0]["details"].get("ended_at") if lines and not lines[0]["is_altered"] else None


def _charts(answered: list[dict[str, Any]]) -> list[Chart]:
    """A curve for each value that the rounds' tests returned, and for the size of the updates."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in answered:
        for metrics in row["metrics"]:
            for name, value in metrics["values"].items():
                curves.setdefault((name, metrics["stage"]), []).append((row["round"], value))
    stages = {"global": gettext("before training here"), "local": gettext("after training here")}
    charts = []
    for name in dict.fromkeys(name for name, _stage in curves):
        lines = {stages.get(stage, stage): points for (n, stage), points in curves.items() if n == name}
        charts.append(line_chart(name, lines, across=gettext("Round")))
    norms = [(float(row["round"]), row["norm"]) for row in answered if row["norm"] is not None]
    if norms:
        charts.append(
            line_chart(gettext("Size of the update (L2 norm)"), {gettext("update"): norms}, across=gettext("Round"))
        )
    return charts
