"""Who may open what: every page is closed to everybody but the roles that stand beside it here.

A page that somebody adds and forgets to list is closed. A test walks all pages with all roles.
"""

from __future__ import annotations

from enum import StrEnum

from flask_babel import lazy_gettext as _


class Role(StrEnum):
    """What a person of the hospital does in the GUI."""

    ADMINISTRATOR = "administrator"
    DATA_MANAGER = "data-manager"
    REVIEWER = "reviewer"
    AUDITOR = "auditor"


ROLE_NAMES = {
    Role.ADMINISTRATOR: _("Administrator"),
    Role.DATA_MANAGER: _("Data manager"),
    Role.REVIEWER: _("Plan reviewer"),
    Role.AUDITOR: _("Auditor"),
}
ROLE_DUTIES = {
    Role.ADMINISTRATOR: _("Runs the node: people, policy, health. Decides on no data and on no plan."),
    Role.DATA_MANAGER: _("Decides which data may be trained on, and by whom."),
    Role.REVIEWER: _("Reads training plans, and approves or rejects them."),
    Role.AUDITOR: _("Reads what happened and exports it; changes nothing."),
}

_ADMINISTRATOR = frozenset({Role.ADMINISTRATOR})
_DATA_MANAGER = frozenset({Role.DATA_MANAGER})
_REVIEWER = frozenset({Role.REVIEWER})
_AUDITOR = frozenset({Role.AUDITOR})
EVERYBODY = frozenset(Role)

# What opens without signing in. A one-time link is its own key.
PUBLIC = frozenset(
    {
        "static",
        "sign_in.page",
        "sign_in.submit",
        "sign_in.invitation",
        "sign_in.accept",
        "sign_in.choose_language",
    }
)

# Endpoint: the roles that may call it.
ALLOWED: dict[str, frozenset[Role]] = {
    "home.page": EVERYBODY,
    "home.live": EVERYBODY,
    "sign_in.leave": EVERYBODY,
    "plans.page": EVERYBODY,
    "plans.plan": EVERYBODY,
    "plans.changes": EVERYBODY,
    "plans.approve": _REVIEWER,
    "plans.reject": _REVIEWER,
    "plans.revoke": _REVIEWER,
    "datasets.page": EVERYBODY,
    "datasets.dataset": EVERYBODY,
    "datasets.browse": _DATA_MANAGER,
    "datasets.look": _DATA_MANAGER,
    "datasets.add": _DATA_MANAGER,
    "datasets.describe": _DATA_MANAGER,
    "datasets.renew": _DATA_MANAGER,
    "datasets.check": _DATA_MANAGER,
    "datasets.suspend": _DATA_MANAGER,
    "datasets.resume": _DATA_MANAGER,
    "datasets.removal": _DATA_MANAGER,
    "datasets.remove": _DATA_MANAGER,
    "datasets.permit": _DATA_MANAGER,
    "datasets.forbid": _DATA_MANAGER,
    "experiments.page": EVERYBODY,
    "experiments.live": EVERYBODY,
    "experiments.experiment": EVERYBODY,
    "experiments.experiment_live": EVERYBODY,
    "experiments.pause": _ADMINISTRATOR | _DATA_MANAGER | _REVIEWER,
    "experiments.resume": _ADMINISTRATOR | _DATA_MANAGER | _REVIEWER,
    "experiments.stop": _ADMINISTRATOR | _DATA_MANAGER | _REVIEWER,
    "models.page": EVERYBODY,
    "models.model": EVERYBODY,
    "models.download": _DATA_MANAGER | _REVIEWER,
    "models.removal": _DATA_MANAGER,
    "models.remove": _DATA_MANAGER,
    "egress.page": EVERYBODY,
    "egress.export_csv": _ADMINISTRATOR | _AUDITOR | _DATA_MANAGER,
    "egress.export_signed": _ADMINISTRATOR | _AUDITOR | _DATA_MANAGER,
    "account.page": EVERYBODY,
    "account.change_password": EVERYBODY,
    "account.second_factor": EVERYBODY,
    "account.set_second_factor": EVERYBODY,
    "account.remove_second_factor": EVERYBODY,
    "account.end_other_sessions": EVERYBODY,
    "members.page": EVERYBODY,
    "privacy.page": EVERYBODY,
    "policy.page": EVERYBODY,
    "policy.arguments": _ADMINISTRATOR,
    "policy.change_arguments": _ADMINISTRATOR,
    "policy.rule": _ADMINISTRATOR,
    "policy.change": _ADMINISTRATOR,
    "audit.page": EVERYBODY,
    "audit.verify": EVERYBODY,
    "audit.export_csv": _ADMINISTRATOR | _AUDITOR,
    "audit.export_signed": _ADMINISTRATOR | _AUDITOR,
    "health.page": _ADMINISTRATOR | _AUDITOR,
    "health.live": _ADMINISTRATOR | _AUDITOR,
    "notices.page": _ADMINISTRATOR,
    "notices.choose": _ADMINISTRATOR,
    "notices.set_mail": _ADMINISTRATOR,
    "notices.set_webhook": _ADMINISTRATOR,
    "notices.remove_webhook": _ADMINISTRATOR,
    "notices.test": _ADMINISTRATOR,
    "users.page": _ADMINISTRATOR,
    "users.invite": _ADMINISTRATOR,
    "users.account": _ADMINISTRATOR,
    "users.change_role": _ADMINISTRATOR,
    "users.lock": _ADMINISTRATOR,
    "users.unlock": _ADMINISTRATOR,
    "users.new_link": _ADMINISTRATOR,
    "users.remove": _ADMINISTRATOR,
}


def may(role: Role, endpoint: str | None) -> bool:
    """Whether a person of that role may call the endpoint."""
    return endpoint in PUBLIC or (endpoint is not None and role in ALLOWED.get(endpoint, ()))
