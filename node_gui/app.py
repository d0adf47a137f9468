"""The application: every page closed unless it is listed, one set of headers, one way to say what went wrong."""

from __future__ import annotations

import hmac
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import structlog
from argon2 import PasswordHasher
from flask import Flask, Response, g, make_response, redirect, render_template, request, url_for
from flask_babel import get_locale, gettext
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from appliance.protocol.errors import Code, FedWardError
from node_gui import formats, home, languages, menu, sign_in
from node_gui.access import PUBLIC, ROLE_NAMES, Role, may
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION, Caller, Parts, node_status, parts, said
from node_gui.errors import GuiError
from node_gui.languages import LANGUAGES, chosen_language
from node_gui.reports import report_waiting
from node_gui.staff import StaffBook

CSRF_FIELD, CSRF_HEADER = "csrf", "X-CSRF-Token"
LARGEST_FORM_BYTES = 1 << 20
LARGEST_STRANGERS_FORM_BYTES = 16_000
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all browsers send no Origin either, which forms are checked by
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_STATUS = {
    Code.NODE_NOT_RUNNING: 503,
    Code.STAFF_REFUSED: 403,
    Code.DATASET_UNKNOWN: 404,
    Code.PLAN_UNKNOWN: 404,
    Code.JOB_UNKNOWN: 404,
    Code.DECISION_STALE: 409,
    Code.STORE_CORRUPT: 500,
    Code.INTERNAL: 500,
}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_log = structlog.get_logger(__name__)


def create_app(
    config: GuiConfig,
    governance: Callable[[str], Caller],
    home_folder: Path,
    *,
    hasher: PasswordHasher | None = None,
) -> Flask:
    """The GUI of one node.

    Args:
        config: How it runs.
        governance: Gives the governance socket's client for a person of that name.
        home_folder: The node's folder.
        hasher: For tests, which hash many passwords.
    """
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=LARGEST_FORM_BYTES, MAX_FORM_MEMORY_SIZE=LARGEST_FORM_BYTES)
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    staff = StaffBook(
        home_folder,
        idle_s=config.idle_minutes * 60,
        session_s=config.session_hours * 3600,
        link_s=config.invitation_hours * 3600,
        hasher=hasher,
    )
    app.extensions[EXTENSION] = Parts(home_folder, config, staff, governance)
    languages.register(app)
    app.before_request(_require_person)
    app.after_request(_add_headers)
    app.register_error_handler(FedWardError, _explain)
    app.register_error_handler(HTTPException, _explain_http)
    app.register_error_handler(Exception, _explain_defect)
    app.context_processor(_for_templates)
    formats.register(app)
    for blueprint in (sign_in.blueprint, home.blueprint, *menu.blueprints()):
        app.register_blueprint(blueprint)
    return app


def _require_person() -> AnyResponse | None:
    """Close every page that is not listed, also the one that someone adds tomorrow."""
    g.session = None
    if request.endpoint == "static":
        return None
    is_fragment = "HX-Request" in request.headers and request.method == "GET"
    token = request.cookies.get(parts().cookie)
    if request.endpoint in PUBLIC or not token:
        request.max_content_length = LARGEST_STRANGERS_FORM_BYTES
    if request.method not in _SAFE:
        _ = request.form  # all of it, first: who is locked while it arrives shall do nothing
    if token:
        g.session = parts().staff.session(token, is_touch=not is_fragment)
    if request.method not in _SAFE:
        _require_own_form()
    if request.endpoint in PUBLIC:
        return None
    if g.session is None:
        return _to_sign_in(is_fragment="HX-Request" in request.headers)
    # A page that does not exist says so to whoever is signed in.
    if request.endpoint is not None and not may(g.session.person.role, request.endpoint):
        role = ROLE_NAMES[g.session.person.role]
        raise GuiError(
            gettext("This page is not for your role (%(role)s).", role=str(role)),
            code=Code.STAFF_REFUSED,
            remedy=gettext("Ask a colleague with another role, or an administrator to change yours."),
        )
    return None


def _to_sign_in(*, is_fragment: bool) -> AnyResponse:
    to = url_for("sign_in.page", then=request.full_path.rstrip("?") if request.method == "GET" else None)
    if is_fragment:  # htmx would put the sign-in page into the middle of this one
        response = make_response("", 401)
        response.headers["HX-Redirect"] = url_for("sign_in.page")
        return response
    return redirect(to)


def _require_own_form() -> None:
    """Refuse a form that another site sent, or an old page of ours."""
    origin = request.headers.get("Origin")
    is_foreign = origin is not None and origin.partition("://")[2] != request.host
    given = request.form.get(CSRF_FIELD) or request.headers.get(CSRF_HEADER, "")
    is_forged = g.session is not None and not hmac.compare_digest(given.encode(), g.session.csrf.encode())
    if is_foreign or is_forged or request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise GuiError(
            gettext("This form did not come from this page as it is now; nothing was changed."),
            code=Code.STAFF_REFUSED,
            remedy=gettext("Open the page again and repeat what you wanted to do."),
        )


def _add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    is_file = request.endpoint == "static" and response.status_code == 200
    response.headers["Cache-Control"] = "public, max-age=3600" if is_file else "no-store"
    if request.endpoint != "static":
        response.vary.update(("Accept-Language", "Cookie"))
    if g.get("session") is not None:
        report_waiting()
    return response


def _for_templates() -> dict[str, object]:
    session = g.get("session")
    role: Role | None = session.person.role if session else None
    return {
        "session": session,
        "person": session.person if session else None,
        "ROLE_NAMES": ROLE_NAMES,
        "may": lambda endpoint: role is not None and may(role, endpoint),
        "menu_entries": menu.entries_for(role) if role else [],
        "node_status": node_status,
        "get_locale": get_locale,
        "LANGUAGES": LANGUAGES,
        "chosen_language": chosen_language,
        "said": said,
        "CSRF_FIELD": CSRF_FIELD,
        "CSRF_HEADER": CSRF_HEADER,
    }


# What went wrong


def _explain(error: FedWardError) -> tuple[str, int]:
    status = _STATUS.get(error.code, 400)
    return _error_page(languages.message(error), languages.remedy(error), status, rule=error.rule, code=error.code)


def _explain_http(error: HTTPException) -> AnyResponse | tuple[str, int]:
    if error.code is None or error.code < 400:
        return AnyResponse.force_type(error.get_response())
    said = {
        404: (gettext("There is no such page."), gettext("Go back, or choose a page from the menu.")),
        405: (gettext("That cannot be done at this address."), gettext("Go back, or choose a page from the menu.")),
        413: (gettext("The form is too large; nothing was changed."), gettext("Send less text or a smaller file.")),
    }
    what, remedy = said.get(error.code, (gettext("The request was not understood."), gettext("Go back and try again.")))
    return _error_page(what, remedy, error.code)


def _explain_defect(error: Exception) -> tuple[str, int]:
    reference = os.urandom(4).hex()
    # As text: a renderer that shows local variables would show passwords.
    _log.error(
        "page failed",
        reference=reference,
        endpoint=request.endpoint,
        error=type(error).__name__,
        traceback="".join(traceback.format_tb(error.__traceback__)),
    )
    return _error_page(
        gettext("Something failed inside the node's GUI; nothing was changed."),
        gettext("Try again. If it stays, send the reference %(reference)s to the operator.", reference=reference),
        500,
    )


def _error_page(
    what: str, remedy: str, status: int, *, rule: str | None = None, code: Code | None = None
) -> tuple[str, int]:
    is_fragment = "HX-Request" in request.headers
    template = "error_fragment.html" if is_fragment else "error.html"
    return render_template(template, what=what, remedy=remedy, rule=rule, code=code, status=status), status
