"""Users: who of this hospital may do what in the GUI."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from flask_babel import gettext as _
from werkzeug.wrappers import Response

from appliance.protocol.errors import FedWardError
from node_gui.access import ROLE_DUTIES, ROLE_NAMES, Role
from node_gui.context import parts, person, say
from node_gui.staff import StaffRefusedError

blueprint = Blueprint("users", __name__, url_prefix="/users")


@blueprint.get("/")
def page() -> str:
    """Everybody, and the form that invites somebody."""
    return _page()


@blueprint.post("/invite")
def invite() -> str | tuple[str, int]:
    """Make an account, and show its one-time link this once."""
    name = " ".join(request.form.get("name", "").split())
    try:
        token = parts().staff.invite(person().name, name, _role())
    except FedWardError as error:
        return _page(error), 400
    return _link(token, name)


@blueprint.get("/<int:account_id>")
def account(account_id: int) -> str:
    """One person, and what can be changed."""
    return render_template(
        "users/account.html",
        account=parts().staff.person(account_id),
        sessions=parts().staff.sessions(account_id),
        roles=list(ROLE_NAMES.items()),
    )


@blueprint.post("/<int:account_id>/role")
def change_role(account_id: int) -> Response:
    """Give another role."""
    role = _role()
    parts().staff.set_role(person().name, account_id, role)
    say(_("The role is changed. The person signs in again."))
    return _back(account_id)


@blueprint.post("/<int:account_id>/lock")
def lock(account_id: int) -> Response:
    """Lock the account, and end its sessions."""
    parts().staff.set_locked(person().name, account_id, is_locked=True)
    say(_("The account is locked. Its sessions have ended."))
    return _back(account_id)


@blueprint.post("/<int:account_id>/unlock")
def unlock(account_id: int) -> Response:
    """Open the account again, also one that waits after wrong passwords."""
    parts().staff.set_locked(person().name, account_id, is_locked=False)
    say(_("The account is open again."))
    return _back(account_id)


@blueprint.post("/<int:account_id>/link")
def new_link(account_id: int) -> str:
    """A new one-time link, for who lost the password or the second factor."""
    token = parts().staff.renew_link(person().name, account_id)
    return _link(token, parts().staff.person(account_id).name)


@blueprint.post("/<int:account_id>/remove")
def remove(account_id: int) -> Response:
    """Remove the account."""
    name = parts().staff.person(account_id).name
    parts().staff.remove(person().name, account_id)
    say(_("The account of %(name)s is removed.", name=name))
    return redirect(url_for("users.page"))


def _page(error: FedWardError | None = None) -> str:
    return render_template(
        "users/page.html",
        people=parts().staff.people(),
        duties=ROLE_DUTIES,
        roles=list(ROLE_NAMES.items()),
        error=error,
        name=request.form.get("name", ""),
        role=request.form.get("role", Role.REVIEWER),
    )


def _role() -> Role:
    try:
        return Role(request.form.get("role", ""))
    except ValueError:
        raise StaffRefusedError(_("There is no such role."), remedy=_("Choose one of the list.")) from None


def _link(token: str, name: str) -> str:
    link = parts().config.address_at(request.host_url) + url_for("sign_in.invitation", token=token)
    return render_template("users/link.html", link=link, name=name, hours=parts().config.invitation_hours)


def _back(account_id: int) -> Response:
    return redirect(url_for("users.account", account_id=account_id))
