"""Experiments: what runs here, what waits, what ran; and the buttons that pause and end it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, redirect, render_template, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from appliance.protocol.errors import Code, FedWardError
from appliance.warden.history import ENDED
from node_gui.access import may
from node_gui.charts import Chart, Point, line_chart
from node_gui.context import governance, history, node_status, person, say
from node_gui.formats import clock
from node_gui.forms import asked, before, turn
from node_gui.languages import message

blueprint = Blueprint("experiments", __name__, url_prefix="/experiments")

STATES = {
    "running": (_("Running"), "good"),
    "pausing": (_("Pauses after this round"), "warning"),
    "paused": (_("Paused"), "warning"),
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
# What a round that is being worked on does, by the last step that it has finished.
WORK = {
    "accepted": _("fetches the model"),
    "fetched": _("trains"),
    "trained": _("has its update checked"),
    "checked": _("sends its update"),
    "submit": _("sends its answer"),
}
TIMES = {
    "queued_s": _("waited"),
    "fetch_s": _("fetched"),
    "start_s": _("got ready"),
    "train_s": _("trained"),
    "check_s": _("checked"),
    "upload_s": _("sent"),
}
FORMS = {
    "classes": _("records found, predicted and true in each class"),
    "scores": _("how many scores lie in each range"),
    "calibration": _("how many probabilities lie in each range, and how far off they were"),
    "moments": _("means and variances of values and errors"),
    "ratio": _("a part and its whole"),
}
_ROUNDS_SHOWN = 50
_LOSSES_SHOWN = 4  # of the last rounds, the one that runs among them
_CHARTS_SHOWN = 8  # a plan may return other names in every round


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


@blueprint.post("/<experiment_id>/pause")
def pause(experiment_id: str) -> Response:
    """Let no further round of it begin here."""
    if (done := _decided("experiment.pause", experiment_id)) is not None:
        if done["round"] is None:
            say(gettext("Paused. No round of it begins here until somebody resumes it."))
        else:
            say(gettext("Round %(round)s goes on to its end; then the experiment pauses here.", round=done["round"]))
    return redirect(url_for("experiments.experiment", experiment_id=experiment_id))


@blueprint.post("/<experiment_id>/resume")
def resume(experiment_id: str) -> Response:
    """Let its rounds begin again."""
    if _decided("experiment.resume", experiment_id) is not None:
        say(gettext("Resumed. What waits begins as soon as the node has a place for it."))
    return redirect(url_for("experiments.experiment", experiment_id=experiment_id))


def _decided(method: str, experiment_id: str) -> dict[str, Any] | None:
    """The warden's answer; None when the page was stale: the one that follows says so, and shows how it is now."""
    try:
        done: dict[str, Any] = governance().call(method, experiment=experiment_id)
    except FedWardError as error:
        if error.code is not Code.DECISION_STALE:
            raise
        say(gettext("%(reason)s Nothing was changed.", reason=message(error).striptags()), "warning")
        return None
    return done


@blueprint.post("/<experiment_id>/stop")
def stop(experiment_id: str) -> Response:
    """End its work here, with all its processes."""
    history().experiment(experiment_id)
    result = governance().call("experiment.stop", experiment=experiment_id)
    ended_at = result["ended_at"]
    if ended_at is not None:
        say(gettext("Stopped. Its last process here was seen dead at %(moment)s.", moment=clock(ended_at)))
    elif result["was_running"]:
        say(gettext("Stopped. No process of it was running any more."))
    else:
        say(gettext("Nothing of this experiment was running here."), "warning")
    return redirect(url_for("experiments.experiment", experiment_id=experiment_id))


def _lists() -> dict[str, Any]:
    found = history().experiment_page(search=asked("search"), before=before())
    for row in found.rows:
        row["state"] = state_of(row)
    return {"experiments": found, "states": STATES, "query": asked("search"), **turn(found)}


def _one(experiment_id: str) -> dict[str, Any]:
    book = history()
    found = book.experiment(experiment_id)
    found["state"] = state_of(found)
    rounds = book.experiment_rounds(experiment_id, last=_ROUNDS_SHOWN)
    for row in rounds:
        row["times"] = [(text, row["timing"][name]) for name, text in TIMES.items() if row["timing"].get(name, 0) >= 1]
    live = _live(found)
    losses = _losses(live, book.experiment_losses(experiment_id, last=_LOSSES_SHOWN))
    answered = book.experiment_values(experiment_id)
    charts = _charts(answered)
    role = person().role
    return {
        "experiment": found,
        "states": STATES,
        "steps": STEPS,
        "work": WORK,
        "running": live["running"],
        "rounds": rounds,
        "left_out": max(0, found["requests"] - len(rounds)),
        "counts": _counts(answered),
        "charts": [*losses, *charts[:_CHARTS_SHOWN]],
        "not_drawn": max(0, len(charts) - _CHARTS_SHOWN),
        "dead_at": _dead_at(found) if found["state"] in ("stopped", "paused", "between", "quiet") else None,
        "may_pause": may(role, "experiments.pause") and found["paused_by"] is None,
        "may_resume": may(role, "experiments.resume") and found["paused_by"] is not None,
        "may_stop": may(role, "experiments.stop") and found["state"] not in ENDED,
    }


def state_of(row: dict[str, Any]) -> str:
    """Where an experiment of ``History`` stands, one of ``STATES``."""
    state, status, is_paused = str(row["state"]), node_status(), row["paused_by"] is not None
    if state in ENDED:
        return state
    if status is not None and row["experiment_id"] in {one["experiment_id"] for one in status["running"]}:
        return "pausing" if is_paused else "running"
    if is_paused:
        return "paused"
    if state == "open":
        return "halted" if status is None else "queued"
    return state


def _live(found: dict[str, Any]) -> dict[str, Any]:
    """What the warden tells of the round that runs, if one does."""
    if found["state"] in ("running", "pausing"):
        try:
            told: dict[str, Any] = governance().call("experiment.live", experiment=found["experiment_id"])
        except FedWardError:
            pass  # it went down this moment; the rest of the page does not need it
        else:
            return told
    return {"running": None, "loss": []}


def _dead_at(found: dict[str, Any]) -> float | None:
    """When its last process was seen dead, if it was stopped since the latest request, as the audit log tells.

    The runner says so when it has killed them all and each was seen to end.
    """
    since, subject = found["accepted_at"], found["experiment_id"]
    lines = history().audit_page(subject=subject, search='"experiment.stopped"', since=since, size=1).lines
    return lines[0]["details"].get("ended_at") if lines and not lines[0]["is_altered"] else None


def _losses(live: dict[str, Any], before: Sequence[dict[str, Any]]) -> list[Chart]:
    """One drawing of the loss inside the last rounds, the one that runs among them; none where there is no loss."""
    curves: dict[str, Sequence[Point]] = {}
    if live["running"] and live["loss"]:
        curves[gettext("round %(round)s, now", round=live["running"]["round"])] = live["loss"]
    for row in before:  # the latest first: of a round that was asked for again, that counts
        curves.setdefault(gettext("round %(round)s", round=row["round"]), row["loss"])
    shown = dict(list(curves.items())[:_LOSSES_SHOWN])
    title = gettext("Loss inside the last rounds")
    return [line_chart(title, shown, across=gettext("Update"), are_samples=True)] if shown else []


def _counts(answered: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the last answer's tests said beside their values: a line for each metric and test."""
    tests = answered[-1]["metrics"] if answered else []
    return [
        {"metric": name, "stage": _stages().get(test["stage"], test["stage"]), "what": FORMS.get(counts["form"], "")}
        | {"numbers": len(counts["cells"]), "samples": test["samples"]}
        for test in tests
        for name, counts in test.get("counts", {}).items()
    ]


def _stages() -> dict[str, str]:
    return {"global": gettext("before training here"), "local": gettext("after training here")}


def _charts(answered: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A curve for each value that the rounds' tests returned, and for the size of the updates."""
    curves: dict[tuple[str, str], list[Point]] = {}
    for row in answered:
        for metrics in row["metrics"]:
            for name, value in metrics["values"].items():
                curves.setdefault((name, metrics["stage"]), []).append((row["round"], value))
    stages = _stages()
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
