"""Home: what needs me now, what runs, and what the node may do at this moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template, url_for
from flask_babel import gettext, ngettext

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import PlanState
from appliance.protocol.wording import spelt_out
from appliance.warden.history import PAGE, History, Stretch
from node_gui.access import may
from node_gui.context import history, node_status, parts, person
from node_gui.experiments import STATES, state_of
from node_gui.formats import ago
from node_gui.health import DISK_LOW, certificates, disk_left

blueprint = Blueprint("home", __name__)
SHOWN = 5
SOON_S = 14 * 86_400.0


@dataclass(frozen=True)
class Task:
    """Something that needs somebody.

    Attributes:
        kind: ``waiting``, ``warning`` or ``danger``.
        path: Where it is dealt with; None when this person cannot.
    """

    kind: str
    text: str
    path: str | None = None
    button: str = ""


@blueprint.get("/")
def page() -> str:
    """The page."""
    return render_template("home/page.html", **_look())


@blueprint.get("/live")
def live() -> str:
    """The part that refreshes itself."""
    return render_template("home/live.html", **_look())


def _look() -> dict[str, Any]:
    status = node_status()
    try:
        book = history()
        running = book.experiment_page(is_open=True, size=SHOWN)
        for row in running.rows:
            row["state"] = state_of(row)
        sentence = _sentence(status, book)
        tasks = [*_plans(book), *_datasets(book)]
    except FedWardError as error:
        if error.code is not Code.NODE_NOT_RUNNING:
            raise
        running, tasks = Stretch([]), []
        sentence = _("The node has never run: nothing was trained here, and nothing has left.")
    return {
        "status": status,
        "sentence": sentence,
        "tasks": [*tasks, *_machine(status), *_notices(), *_own_account()],
        "running": running,
        "states": STATES,
    }


def _sentence(status: dict[str, Any] | None, book: History) -> str:
    """What the node may do at this moment."""
    if status is None:
        return _("The node does not run: nothing is trained, and nothing leaves.")
    usable = book.usable_datasets()
    if not usable:
        return _("No dataset is open to a researcher: nothing can be trained here.")
    on = ngettext("%(num)s dataset", "%(num)s datasets", usable)
    if status["plan_approval"] != "required":
        return _("Permitted researchers may run any code, read by nobody here, on %(datasets)s.", datasets=on)
    approved = book.plan_page(states=[PlanState.APPROVED], size=1).total
    if not approved:
        return _("No training plan is approved: nothing can be trained here.")
    plans = ngettext("%(num)s approved plan", "%(num)s approved plans", approved)
    return _("Permitted researchers may train %(plans)s on %(datasets)s.", plans=plans, datasets=on)


def _plans(book: History) -> Iterator[Task]:
    pending = book.plan_page(states=[PlanState.PENDING], size=SHOWN)
    for plan in pending.rows:
        yield Task(
            "waiting",
            _(
                "%(who)s asks for approval of the plan “%(plan)s” (%(when)s).",
                who=spelt_out(plan["requested_by"]),
                plan=spelt_out(plan["name"]),
                when=ago(plan["requested_at"]),
            ),
            _path("plans.plan", sha256=plan["sha256"]),
            _("Read the plan"),
        )
    if pending.total > SHOWN:
        more = ngettext("%(num)s more plan waits.", "%(num)s more plans wait.", pending.total - SHOWN)
        yield Task("waiting", more, _path("plans.page"), _("Open the queue"))
    now = time.time()
    ending = book.approvals_ending(now, now + SOON_S, size=10 * PAGE)
    for plan in reversed(ending[-PAGE:]):
        yield Task(
            "warning",
            _("The approval of “%(plan)s” ends %(when)s.", plan=spelt_out(plan["name"]), when=ago(plan["until"])),
            _path("plans.plan", sha256=plan["sha256"]),
            _("Look at the plan"),
        )


def _datasets(book: History) -> Iterator[Task]:
    for dataset in book.dataset_page(state="changed", size=SHOWN).rows:
        yield Task(
            "warning",
            _("The files of “%(dataset)s” have changed; nothing trains on it.", dataset=spelt_out(dataset["name"])),
            _path("datasets.dataset", dataset_id=dataset["id"]),
            _("Look at the dataset"),
        )


def _machine(status: dict[str, Any] | None) -> Iterator[Task]:
    health = _path("health.page")
    if status is not None and not status["is_connected"]:
        text = _("The node has no line to the network host: nothing arrives, and what is ready waits.")
        yield Task("danger", text, health, _("Look at the health"))
    left = disk_left(parts().home)
    if left < DISK_LOW:
        yield Task("danger", _("The node's disk is nearly full."), health, _("Look at the health"))
    for one in certificates(parts().home):
        if one.ends_soon and one.name != "gui":
            text = _("A certificate of the node ends %(when)s.", when=ago(one.ends_at))
            yield Task("warning", text, health, _("Look at the health"))


def _notices() -> Iterator[Task]:
    path = _path("notices.page")
    if path is not None and any(attempt.problem for attempt in parts().notices.attempts()):
        yield Task("warning", _("A notice did not reach your colleagues."), path, _("Look at the notices"))


def _own_account() -> Iterator[Task]:
    if not person().has_second_factor:
        text = _("Your password alone opens your account: set up a second factor.")
        yield Task("waiting", text, _path("account.page"), _("Open your account"))


def _(text: str, **values: object) -> str:
    return str(gettext(text, **values))


def _path(endpoint: str, **values: Any) -> str | None:
    return url_for(endpoint, **values) if may(person().role, endpoint) else None
