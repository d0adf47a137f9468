"""Signing in and out, the one-time link that makes an account, and the language, which a stranger chooses too."""

from __future__ import annotations

from flask import Blueprint, g, redirect, render_template, request, url_for
from flask_babel import gettext as _
from werkzeug.wrappers import Response

from node_gui.context import parts
from node_gui.languages import COOKIE, COOKIE_S, LANGUAGES
from node_gui.reports import report_waiting
from node_gui.staff import PASSWORD_LEAST, StaffRefusedError

blueprint = Blueprint("sign_in", __name__)


@blueprint.get("/sign-in")
def page() -> str | Response:
    """The form."""
    if g.session is not None:
        return redirect(url_for("home.page"))
    return _form()


@blueprint.post("/sign-in")
def submit() -> Response | tuple[str, int]:
    """Open a session, and go where the person wanted to go."""
    form = request.form
    try:
        token = parts().staff.sign_in(
            form.get("name", ""),
            form.get("password", ""),
            form.get("code", ""),
            address=request.remote_addr or "",
            browser=request.user_agent.string,
        )
    except StaffRefusedError as error:
        report_waiting()
        return _form(error), 403
    report_waiting()
    response = redirect(_own_path(form.get("then", "")))
    _set_cookie(response, token)
    return response


@blueprint.post("/sign-out")
def leave() -> Response:
    """End the session."""
    parts().staff.sign_out(g.session)
    response = redirect(url_for("sign_in.page"))
    _set_cookie(response, "")
    return response


@blueprint.get("/invitation/<token>")
def invitation(token: str) -> str:
    """Where a person who was invited chooses a password."""
    return _invitation(token)


@blueprint.post("/invitation/<token>")
def accept(token: str) -> Response | tuple[str, int]:
    """Make the account and go to the sign-in."""
    form = request.form
    staff = parts().staff
    try:
        staff.invited(token)  # a dead link has nothing to mend in its form
        require_same(form.get("password", ""), form.get("again", ""))
        person = staff.join(token, form.get("password", ""), name=form.get("name", "").strip())
    except StaffRefusedError as error:
        return _invitation(token, error), 403
    report_waiting()
    return redirect(url_for("sign_in.page", name=person.name))


@blueprint.post("/language")
def choose_language() -> Response:
    """Let this browser's pages speak another language; the one that the browser asks for, when none is named."""
    response = redirect(_own_path(request.form.get("then", "")))
    chosen = request.form.get("language", "")
    # Lax: the page speaks the same language when a link on another page leads here.
    if chosen in LANGUAGES:
        response.set_cookie(COOKIE, chosen, max_age=COOKIE_S, path="/", secure=True, httponly=True, samesite="Lax")
    else:
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
    return response


def require_same(password: str, again: str) -> None:
    """Raise StaffRefusedError when a password was typed in two ways."""
    if password != again:
        raise StaffRefusedError(_("The two passwords differ."), remedy=_("Enter the same password twice."))


def _form(error: StaffRefusedError | None = None) -> str:
    return render_template(
        "sign_in/page.html",
        error=error,
        then=_own_path(request.values.get("then", "")),
        name=request.values.get("name", ""),
        has_joined="name" in request.args,
    )


def _invitation(token: str, error: StaffRefusedError | None = None) -> str:
    invited = parts().staff.invited(token)
    name = request.form.get("name", "")
    return render_template(
        "sign_in/invitation.html", invited=invited, error=error, name=name, least=PASSWORD_LEAST, token=token
    )


def _own_path(path: str) -> str:
    """The path if it is one of this site, else Home."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_own else url_for("home.page")


def _set_cookie(response: Response, token: str) -> None:
    response.set_cookie(
        parts().cookie, token, secure=True, httponly=True, samesite="Strict", path="/", max_age=None if token else 0
    )
