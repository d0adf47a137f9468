"""Account: what a person changes of their own account: password, second factor, sessions."""

from __future__ import annotations

import segno
from flask import Blueprint, g, redirect, render_template, request, url_for
from flask_babel import gettext as _
from markupsafe import Markup
from werkzeug.wrappers import Response

from node_gui.context import parts, person, say
from node_gui.sign_in import require_same
from node_gui.staff import PASSWORD_LEAST, StaffRefusedError, totp_uri

blueprint = Blueprint("account", __name__, url_prefix="/account")


@blueprint.get("/")
def page() -> str:
    """The account, and its open sessions."""
    return _page()


@blueprint.post("/password")
def change_password() -> Response | tuple[str, int]:
    """Set another password; everybody who is signed in with this account signs in anew."""
    form = request.form
    try:
        require_same(form.get("new", ""), form.get("again", ""))
        parts().staff.change_password(g.session, form.get("password", ""), form.get("new", ""))
    except StaffRefusedError as error:
        return _page(error), 400
    response = redirect(url_for("sign_in.page", name=person().name))
    response.delete_cookie(parts().cookie, path="/", secure=True, httponly=True, samesite="Strict")
    return response


@blueprint.get("/second-factor")
def second_factor() -> str:
    """A fresh key as a QR code, and the form that proves that the app has it."""
    return _second_factor()


@blueprint.post("/second-factor")
def set_second_factor() -> str | tuple[str, int]:
    """Ask for codes from now on; shows the recovery codes this once."""
    form = request.form
    try:
        codes = parts().staff.set_second_factor(g.session, form.get("password", ""), form.get("code", ""))
    except StaffRefusedError as error:
        return _second_factor(error), 400
    return render_template("account/codes.html", codes=codes)


@blueprint.post("/second-factor/remove")
def remove_second_factor() -> Response | tuple[str, int]:
    """Sign in with the password alone again."""
    try:
        parts().staff.remove_second_factor(g.session, request.form.get("password", ""))
    except StaffRefusedError as error:
        return _page(error), 400
    say(_("The second factor is removed."))
    return redirect(url_for("account.page"))


@blueprint.post("/sessions")
def end_other_sessions() -> Response:
    """End all sessions but this one."""
    parts().staff.end_other_sessions(g.session)
    say(_("All other sessions have ended."))
    return redirect(url_for("account.page"))


def _page(error: StaffRefusedError | None = None) -> str:
    sessions = parts().staff.sessions(person().id)
    return render_template("account/page.html", error=error, sessions=sessions, least=PASSWORD_LEAST)


def _second_factor(error: StaffRefusedError | None = None) -> str:
    secret = parts().staff.new_totp_secret(g.session)
    uri = totp_uri(secret, person().name, parts().home.name)
    drawing = segno.make(uri, error="m").svg_inline(border=2, scale=4, omitsize=True)
    return render_template("account/second_factor.html", error=error, secret=secret, drawing=Markup(drawing))  # noqa: S704
