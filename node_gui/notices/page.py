"""Notices: what is told to whom, by which way, and whether it arrived."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from werkzeug.wrappers import Response

from appliance.protocol.errors import FedWardError
from node_gui.context import parts, person, say
from node_gui.forms import invalid, revision, text
from node_gui.languages import LANGUAGES
from node_gui.notices.letter import write_test
from node_gui.notices.outward import NotDeliveredError, Problem
from node_gui.notices.sender import deliver
from node_gui.notices.settings import (
    ADDRESSES_MOST,
    KEY_LEAST,
    KIND_NAMES,
    Channel,
    Kind,
    MailServer,
    Security,
    Webhook,
    addresses,
)

blueprint = Blueprint("notices", __name__, url_prefix="/notices")

CHANNEL_NAMES = {Channel.EMAIL: _("E-mail"), Channel.WEBHOOK: _("Webhook")}
SECURITIES = {
    Security.STARTTLS: _("STARTTLS (mostly port 587)"),
    Security.TLS: _("TLS from the start (mostly port 465)"),
    Security.PLAIN: _("none, on this machine only (port 25)"),
}
PROBLEMS = {
    Problem.UNREACHABLE: _("nobody answers there; check name, port and the hospital's firewall"),
    Problem.NOT_HERE: _("the name leads to another machine, and without TLS nothing goes there"),
    Problem.CERTIFICATE: _("the certificate is not one that this machine trusts for that name"),
    Problem.BROKEN: _("the other end broke off, was too slow, or speaks something else there"),
    Problem.NO_TLS: _("the mail server offers no STARTTLS"),
    Problem.SIGN_IN: _("the mail server refused user name and password"),
    Problem.ADDRESSES: _("the mail server refused addresses"),
    Problem.REFUSED: _("it was refused"),
    Problem.REDIRECT: _("the webhook answers with a redirect, which is not followed"),
}


@blueprint.get("/")
def page() -> str:
    """The settings, and the last attempts."""
    return _page()


@blueprint.post("/choose")
def choose() -> Response | tuple[str, int]:
    """Choose what is told, to whom, in which language."""
    try:
        kinds = frozenset(kind for kind in Kind if kind.value in request.form.getlist("kinds"))
        told = {"reviewers": addresses(text("reviewers")), "others": addresses(text("others"))}
        language = text("language")
        if language not in LANGUAGES:
            raise invalid(gettext("There is no such language."), gettext("Choose one of the list."))
        details = {name: ", ".join(found) for name, found in told.items()}
        details |= {"kinds": ", ".join(sorted(kinds)), "language": language}
        _change("what and whom", details, kinds=kinds, language=language, **told)
    except FedWardError as error:
        return _page(error), 400
    say(gettext("The notices are changed."))
    return _back()


@blueprint.post("/mail")
def set_mail() -> Response | tuple[str, int]:
    """Name the mail server, or none."""
    try:
        mail = _entered_mail()
        if mail is None:
            details = {"server": "none"}
        else:
            details = {"server": f"{mail.host}:{mail.port}", "security": mail.security.value}
            details |= {"sender": mail.sender, "user": mail.user, "password": _fate("password", mail.password)}
        _change("mail server", details, mail=mail)
    except FedWardError as error:
        return _page(error), 400
    say(gettext("The mail server is changed.") if mail else gettext("No e-mail is sent any more."))
    return _back()


@blueprint.post("/webhook")
def set_webhook() -> Response | tuple[str, int]:
    """Name the webhook's address and key; an empty field keeps what there is."""
    before = parts().notices.settings().webhook
    try:
        url = text("url") or (before.url if before else "")
        is_same = before is not None and before.url == url
        webhook = Webhook(url, text("key") or (before.key if before is not None and is_same else ""))
        address = "kept" if is_same else "changed"
        details = {"origin": webhook.origin, "address": address, "key": _fate("key", webhook.key)}
        _change("webhook", details, webhook=webhook)
    except FedWardError as error:
        return _page(error), 400
    say(gettext("The webhook is changed."))
    return _back()


@blueprint.post("/webhook/remove")
def remove_webhook() -> Response | tuple[str, int]:
    """Forget the webhook."""
    try:
        _change("webhook", {"origin": "none"}, webhook=None)
    except FedWardError as error:
        return _page(error), 400
    say(gettext("The webhook is removed."))
    return _back()


@blueprint.post("/test")
def test() -> Response:
    """Send a notice by every way that is set up, and say how it went."""
    settings = parts().notices.settings()
    recipients = tuple(dict.fromkeys((*settings.reviewers, *settings.others)))
    letter = write_test(parts().config.address_at(request.host_url))
    ways = [Channel.EMAIL] if settings.mail is not None and recipients else []
    ways += [Channel.WEBHOOK] if settings.webhook is not None else []
    for way in ways:
        name = str(CHANNEL_NAMES[way])
        try:
            is_whole = deliver(settings, way, letter, recipients)
        except NotDeliveredError as error:
            say(
                gettext("%(way)s: not delivered: %(why)s.", way=name, why=worded(error.problem, error.status)), "danger"
            )
        else:
            if is_whole:
                say(gettext("%(way)s: the test notice was taken.", way=name))
            else:
                why = worded(Problem.ADDRESSES, None)
                say(gettext("%(way)s: the test notice was taken in part: %(why)s.", way=name, why=why), "warning")
    if not ways:
        say(gettext("Nothing was sent: there is no webhook, and no mail server with addresses to write to."), "warning")
    return _back()


def worded(problem: Problem, status: int | None) -> str:
    """Why a notice did not arrive."""
    why = str(PROBLEMS[problem])
    return why if status is None else gettext("%(why)s (answer %(status)s)", why=why, status=status)


def _page(error: FedWardError | None = None) -> str:
    book = parts().notices
    return render_template(
        "notices/page.html",
        settings=book.settings(),
        attempts=book.attempts(),
        kinds=KIND_NAMES,
        channels=CHANNEL_NAMES,
        securities=list(SECURITIES.items()),
        languages=list(LANGUAGES.items()),
        worded=worded,
        error=error,
        form=request.form,
        address=parts().config.address,
        addresses_most=ADDRESSES_MOST,
        key_least=KEY_LEAST,
    )


def _entered_mail() -> MailServer | None:
    host, user = text("host"), text("user")
    if not host:
        return None
    try:
        port, security = int(text("port")), Security(text("security"))
    except ValueError:
        raise invalid(gettext("Port or protection make no sense."), gettext("587 and STARTTLS are usual.")) from None
    # A stored password goes only to the server that it was entered for: nobody draws it out by naming another.
    typed = request.form.get("password", "")
    before = parts().notices.settings().mail
    if user and not typed and before is not None and before.password:
        kept = MailServer(host, port, security, text("sender"), user, before.password)
        if kept.is_same(before):
            return kept
    return MailServer(host, port, security, text("sender"), user, typed)


def _fate(field: str, secret: str) -> str:
    """What became of a secret, for the audit log."""
    if not secret:
        return "none"
    return "entered" if request.form.get(field) else "kept"


def _change(what: str, details: dict[str, str], **changes: object) -> None:
    parts().notices.change(person().name, revision(), what=what, details=details, **changes)


def _back() -> Response:
    return redirect(url_for("notices.page"))
