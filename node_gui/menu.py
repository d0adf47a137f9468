"""The menu: its entries in their order, and the blueprints behind them. What is not listed here cannot be reached."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint
from flask_babel import lazy_gettext as _

from node_gui import (
    account,
    audit,
    datasets,
    egress,
    experiments,
    health,
    members,
    models,
    plans,
    policy,
    privacy,
    users,
)
from node_gui.access import Role, may
from node_gui.notices import page as notices


@dataclass(frozen=True)
class Entry:
    """A line of the menu.

    Attributes:
        endpoint: The page that it opens.
        label: What it says; translated where it is shown.
    """

    endpoint: str
    label: object


ENTRIES = (
    Entry("home.page", _("Home")),
    Entry("plans.page", _("Training plans")),
    Entry("datasets.page", _("Datasets")),
    Entry("experiments.page", _("Experiments")),
    Entry("models.page", _("Models")),
    Entry("egress.page", _("What left")),
    Entry("policy.page", _("Policy")),
    Entry("privacy.page", _("Privacy")),
    Entry("members.page", _("Members")),
    Entry("audit.page", _("Audit log")),
    Entry("health.page", _("Health")),
    Entry("notices.page", _("Notices")),
    Entry("users.page", _("Users")),
)


def blueprints() -> tuple[Blueprint, ...]:
    """The blueprints of all pages but Home and the sign-in."""
    return (
        plans.blueprint,
        datasets.blueprint,
        experiments.blueprint,
        models.blueprint,
        egress.blueprint,
        policy.blueprint,
        privacy.blueprint,
        members.blueprint,
        audit.blueprint,
        health.blueprint,
        notices.blueprint,
        users.blueprint,
        account.blueprint,
    )


def entries_for(role: Role) -> list[Entry]:
    """What a person of that role finds in the menu."""
    return [entry for entry in ENTRIES if may(role, entry.endpoint)]
