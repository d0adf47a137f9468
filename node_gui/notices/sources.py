"""Where occasions come from: the node's records, read as the pages read them, and what the node says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from flask import current_app
from flask_babel import gettext as _

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import PlanState
from node_gui.context import history, parts
from node_gui.formats import day
from node_gui.health import DISK_LOW, certificates, disk_left
from node_gui.notices.occasions import Look, Occasion, named
from node_gui.notices.settings import Kind
from node_gui.staff import GUI_NAME

SOON_S = 14 * 86_400.0  # before it ends; and for how long it is told that something ended or failed
# So long something must last that may pass by itself: a restart, a cut line, a file that is written and removed.
SHORT_S, LONG_S = 300.0, 900.0
_MOST = 500  # occasions of one source
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Now:
    """The moment that is looked at.

    Attributes:
        at: Seconds since the epoch.
        since: Of what failed or ended before nothing is told.
        status: What the node says of itself; None while it does not answer.
    """

    at: float
    since: float
    status: dict[str, Any] | None

    def require_status(self) -> dict[str, Any]:
        """The status; raises FedWardError while there is none."""
        if self.status is None:
            raise FedWardError("The warden did not answer.", code=Code.NODE_NOT_RUNNING)
        return self.status


_Found = tuple[str, str, str, float]  # subject, text, path, after_s


def look(at: float, since: float) -> Look:
    """What there is to tell; texts are in the language that is chosen where this is called.

    Args:
        at: Now, in seconds since the epoch.
        since: Of failures before it nothing is told.
    """
    now = Now(at, max(since, at - SOON_S), _status())
    occasions: list[Occasion] = []
    unseen = set()
    for source, (kind, find) in SOURCES.items():
        try:
            occasions += [Occasion(source, kind, *found) for found in find(now)]
        except FedWardError:
            unseen.add(source)
        except Exception as error:  # noqa: BLE001 - what one source does must not silence the others
            _log.warning("not looked at for notices", source=source, error=type(error).__name__)
            unseen.add(source)
    return Look(occasions, frozenset(unseen))


def _pending_plans(_now: Now) -> Iterator[_Found]:
    for plan in history().plan_page(states=[PlanState.PENDING], size=_MOST).rows:
        values = {"who": named(plan["requested_by"]), "plan": named(plan["name"])}
        if plan["first_approval"] is None:
            text = _("%(who)s asks for approval of the training plan “%(plan)s”.", **values)
        else:
            text = _("The training plan “%(plan)s” of %(who)s waits for a second reviewer.", **values)
        stage = "first" if plan["first_approval"] is None else "second"
        yield f"{plan['sha256']} {plan['requested_at']} {stage}", text, _path("plans.plan", sha256=plan["sha256"]), 0.0


def _failed_rounds(now: Now) -> Iterator[_Found]:
    for failed in history().failed_rounds(now.since, size=_MOST):
        text = _(
            "Round %(round)s of “%(plan)s”, which %(who)s asked for, failed on %(day)s.",
            round=failed["round"],
            plan=named(failed["plan"] or _("a plan that is gone")),
            who=named(failed["researcher"]),
            day=day(failed["ended_at"]),
        )
        yield failed["jti"], text, _path("experiments.experiment", experiment_id=failed["experiment_id"]), 0.0


def _changed_datasets(_now: Now) -> Iterator[_Found]:
    for dataset in history().dataset_page(state="changed", size=_MOST).rows:
        text = _("The files of “%(dataset)s” have changed; nothing trains on it.", dataset=named(dataset["name"]))
        yield dataset["id"], text, _path("datasets.dataset", dataset_id=dataset["id"]), 0.0


def _line_down(now: Now) -> Iterator[_Found]:
    if not now.require_status()["is_connected"]:
        text = _("The node has no line to the network host: nothing arrives, and what is ready waits.")
        yield "", text, _path("home.page"), LONG_S


def _disk_full(_now: Now) -> Iterator[_Found]:
    if disk_left(parts().home) < DISK_LOW:
        yield "", _("The node's disk is nearly full."), _path("home.page"), SHORT_S


def _ending_approvals(now: Now) -> Iterator[_Found]:
    for plan in history().approvals_ending(now.at - SOON_S, now.at + SOON_S, size=_MOST):
        values = {"plan": named(plan["name"]), "day": day(plan["until"])}
        if plan["until"] > now.at:
            text = _("The approval of the training plan “%(plan)s” ends on %(day)s.", **values)
        else:
            text = _("The approval of the training plan “%(plan)s” ended on %(day)s; it runs no more.", **values)
        subject = f"{plan['sha256']} {_ending(plan['until'], now)}"
        yield subject, text, _path("plans.plan", sha256=plan["sha256"]), 0.0


def _ending_permissions(now: Now) -> Iterator[_Found]:
    for one in history().permissions_ending(now.at - SOON_S, now.at + SOON_S, size=_MOST):
        values = {"who": named(one["researcher"]), "dataset": named(one["name"]), "day": day(one["until"])}
        if one["until"] > now.at:
            text = _("The permission of %(who)s on “%(dataset)s” ends on %(day)s.", **values)
        else:
            text = _("The permission of %(who)s on “%(dataset)s” ended on %(day)s.", **values)
        subject = f"{one['dataset_id']} {one['researcher']} {_ending(one['until'], now)}"
        yield subject, text, _path("datasets.dataset", dataset_id=one["dataset_id"]), 0.0


def _ending_certificates(now: Now) -> Iterator[_Found]:
    names = {
        "node": _("the node"),
        "authority": _("the consortium's authority"),
        "gui": _("the node's GUI"),
    }
    for one in certificates(parts().home):
        if one.ends_at > now.at + SOON_S:
            continue
        values = {"whose": names[one.name], "day": day(one.ends_at)}
        if one.ends_at > now.at:
            text = _("The certificate of %(whose)s ends on %(day)s.", **values)
        else:
            text = _("The certificate of %(whose)s ended on %(day)s.", **values)
        yield f"{one.name} {_ending(one.ends_at, now)}", text, _path("health.page"), 0.0


def _approval_off(now: Now) -> Iterator[_Found]:
    if now.require_status()["plan_approval"] != "required":
        text = _("Plan approval is off: researchers' code runs without anybody of this hospital having read it.")
        yield "", text, _path("policy.page"), 0.0


def _node_down(now: Now) -> Iterator[_Found]:
    if now.status is None:
        text = _("The node does not answer: nothing is trained, and nothing leaves.")
        yield "", text, _path("home.page"), SHORT_S


SOURCES: dict[str, tuple[Kind, Callable[[Now], Iterator[_Found]]]] = {
    "pending-plans": (Kind.PLANS, _pending_plans),
    "failed-rounds": (Kind.FAILURES, _failed_rounds),
    "changed-datasets": (Kind.ALERTS, _changed_datasets),
    "line-down": (Kind.ALERTS, _line_down),
    "disk-full": (Kind.ALERTS, _disk_full),
    "ending-approvals": (Kind.ENDINGS, _ending_approvals),
    "ending-permissions": (Kind.ENDINGS, _ending_permissions),
    "ending-certificates": (Kind.ENDINGS, _ending_certificates),
    "approval-off": (Kind.APPROVAL_OFF, _approval_off),
    "node-down": (Kind.NODE_DOWN, _node_down),
}


def _ending(until: float, now: Now) -> str:
    """That it will end and that it has ended are two occasions; so is another end."""
    return f"{until} {'soon' if until > now.at else 'over'}"


def _status() -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = parts().governance(GUI_NAME).call("node.status")
    except FedWardError:
        return None
    return found


def _path(endpoint: str, **values: Any) -> str:
    return current_app.url_map.bind("").build(endpoint, values)
