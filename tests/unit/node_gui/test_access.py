"""Every page has a rule, and the rule holds."""

from __future__ import annotations

import re

import pytest

from node_gui.access import ALLOWED, PUBLIC, Role, may
from tests.unit.node_gui.conftest import HTTPS, Gui


def _rules(gui: Gui) -> list[tuple[str, str, str]]:
    """Endpoint, method and a path of every route."""
    found = []
    for rule in gui.app.url_map.iter_rules():
        path = re.sub(r"<(?:int:)?\w+>", "1", re.sub(r"<path:\w+>", "x", rule.rule))
        found += [(rule.endpoint, method, path) for method in sorted(rule.methods - {"HEAD", "OPTIONS"})]
    return found


def test_every_page_has_a_rule_and_every_rule_a_page(gui: Gui) -> None:
    """A page that somebody adds without a rule is closed, and this test says so; a rule without a page is a typo."""
    assert {endpoint for endpoint, _, _ in _rules(gui)} == set(ALLOWED) | PUBLIC


@pytest.mark.parametrize("role", list(Role))
def test_a_role_opens_what_its_rule_says_and_nothing_else(gui: Gui, role: Role) -> None:
    """Deny by default, over all pages and both ways of calling them."""
    closed, refused = set(), set()
    browser = gui.signed_in(role)
    for endpoint, method, path in _rules(gui):
        if endpoint == "sign_in.leave":
            continue
        if gui.staff.session(browser.token, is_touch=False) is None:  # the page before ended it
            browser = gui.signed_in(role)
        reply = browser.get(path) if method == "GET" else browser.post(path)
        if not may(role, endpoint):
            closed.add((endpoint, method))
        if reply.status_code == 403 and "not for your role" in reply.text:
            refused.add((endpoint, method))

    assert refused == closed


def test_nobody_opens_a_page_without_signing_in(gui: Gui) -> None:
    """Whoever finds the address finds a sign-in."""
    opened = []
    for endpoint, method, path in _rules(gui):
        if endpoint not in PUBLIC:
            reply = gui.client().open(path, method=method, base_url=HTTPS)
            if reply.status_code != 302 or not reply.location.startswith("/sign-in"):
                opened.append(endpoint)

    assert opened == []


def test_what_does_not_exist_is_closed_too(gui: Gui) -> None:
    """Otherwise a stranger could learn which pages exist."""
    reply = gui.client().get("/nowhere", base_url=HTTPS)

    assert reply.location.startswith("/sign-in")


def test_an_auditor_changes_nothing(gui: Gui) -> None:
    """Whoever reads what others did must not be among them; their own account is theirs."""
    auditor = gui.signed_in(Role.AUDITOR)
    own = {"sign_in", "account"}
    forms = [(e, p) for e, method, p in _rules(gui) if method == "POST" and e.split(".")[0] not in own]
    answered = {endpoint for endpoint, path in forms if auditor.post(path).status_code != 403}

    assert answered == {"audit.verify"}  # it only reads
