"""Rules on arguments in the browser, at a real warden: they are shown before they hold, and audited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from node_gui.access import Role
from node_gui.arguments import mark
from tests.conftest import Members
from tests.unit.node_gui.conftest import Browser
from tests.unit.node_gui.hospital import Hospital


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A node and its GUI."""
    hospital = Hospital(tmp_path, members)
    yield hospital
    hospital.close()


@pytest.fixture
def administrator(hospital: Hospital) -> Browser:
    """Who sets the policy."""
    return hospital.signed_in(Role.ADMINISTRATOR)


def shown(browser: Browser, rule: str) -> str:
    """The mark of what the page shows."""
    page = browser.get("/policy/arguments").text
    found = re.search(rf'name="rule" value="{rule}"><input type="hidden" name="shown" value="(\w+)"', page)
    assert found is not None
    return found[1]


def ask(browser: Browser, rule: str, **form: str) -> Any:
    """Send a form of the page as it is now."""
    return browser.post("/policy/arguments", rule=rule, **({"shown": shown(browser, rule)} | form))


def own(hospital: Hospital) -> dict[str, Any]:
    """What the site has set."""
    return {name: value for name, value in hospital.node.services.policy.own().items() if value}


def test_a_limit_holds_once_it_was_shown_and_confirmed(hospital: Hospital, administrator: Browser) -> None:
    """In the name of who did it."""
    form = {"argument": "epochs", "minimum": "1", "maximum": "5"}
    asked = ask(administrator, "ranges", **form)
    assert "epochs: 1 to 5" in asked.text
    assert "less strict" not in asked.text
    assert own(hospital) == {}

    done = ask(administrator, "ranges", **form, confirmed="yes")

    assert done.status_code == 302
    range_ = {"name": "epochs", "minimum": 1.0, "maximum": 5.0, "allowed": None}
    assert own(hospital) == {"ranges": [range_]}
    line = hospital.node.audit()[-1]
    assert (line["actor"], line["event"]) == ("staff:administrator anna", "policy.changed")
    assert line["details"]["changes"]["ranges"][0]["maximum"] == 5.0


def test_a_value_is_forced_and_given_free_again(hospital: Hospital, administrator: Browser) -> None:
    """The second is called what it is."""
    ask(administrator, "overrides", argument="loader_args.num_workers", value="0", confirmed="yes")
    assert own(hospital) == {"overrides": {"loader_args.num_workers": 0}}
    removal = {"argument": "loader_args.num_workers", "remove": "yes"}
    asked = unescape(ask(administrator, "overrides", **removal).text)
    assert "less strict" in asked
    assert "no rule of this hospital's own" in asked

    ask(administrator, "overrides", **removal, confirmed="yes")

    assert own(hospital) == {}


@pytest.mark.parametrize(
    ("after", "is_looser"),
    [
        ({"minimum": "2", "maximum": "4"}, False),
        ({"minimum": "1", "maximum": "6"}, True),
        ({"maximum": "4"}, True),
        ({"remove": "yes"}, True),
        ({"minimum": "1", "maximum": "5", "allowed": "2,3"}, False),
    ],
)
def test_a_looser_limit_is_called_so(administrator: Browser, after: dict[str, str], *, is_looser: bool) -> None:
    """Before it is confirmed."""
    ask(administrator, "ranges", argument="epochs", minimum="1", maximum="5", confirmed="yes")

    assert ("less strict" in ask(administrator, "ranges", argument="epochs", **after).text) is is_looser


@pytest.mark.parametrize(
    ("rule", "form", "sentence"),
    [
        ("ranges", {"argument": "epochs"}, "neither ends nor values"),
        ("ranges", {"argument": "epochs", "minimum": "5", "maximum": "1"}, "above the largest"),
        ("ranges", {"argument": "epochs", "minimum": "many"}, "is not a number"),
        ("ranges", {"argument": "", "minimum": "1"}, "No argument is named"),
        ("ranges", {"argument": "<b>", "minimum": "1", "confirmed": "yes"}, "ranges.0.name"),
        ("overrides", {"argument": "epochs", "value": " "}, "value is empty"),
        ("nonsense", {"argument": "epochs", "value": "1"}, "No argument is named"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_sentence(
    hospital: Hospital, administrator: Browser, rule: str, form: dict[str, str], sentence: str
) -> None:
    """And nothing is changed."""
    reply = administrator.post("/policy/arguments", rule=rule, **({"shown": mark_of(hospital, rule)} | form))

    assert reply.status_code == 400
    assert sentence in unescape(reply.text)
    assert own(hospital) == {}


def test_a_page_that_is_not_of_now_changes_nothing(hospital: Hospital, administrator: Browser) -> None:
    """Two administrators, one stale page: what the other set must not go lost."""
    before = shown(administrator, "ranges")
    ask(administrator, "ranges", argument="epochs", maximum="5", confirmed="yes")

    reply = ask(administrator, "ranges", argument="batch_size", maximum="64", confirmed="yes", shown=before)

    assert reply.status_code == 409
    assert [one["name"] for one in own(hospital)["ranges"]] == ["epochs"]


def test_a_value_that_the_consortium_sets_is_the_consortium_s(tmp_path: Path, members: Members) -> None:
    """Another one here would change nothing, and look as if it did."""
    (tmp_path / "consortium-policy.toml").write_text("[overrides]\nepochs = 1\n")
    hospital = Hospital(tmp_path, members)
    reply = ask(hospital.signed_in(Role.ADMINISTRATOR), "overrides", argument="epochs", value="9", confirmed="yes")

    assert reply.status_code == 400
    assert "The consortium forces the value of epochs itself." in reply.text
    assert own(hospital) == {}
    hospital.close()


def test_arguments_that_rounds_came_with_are_suggested(hospital: Hospital, administrator: Browser) -> None:
    """A mistyped name would refuse every round."""
    hospital.node.accepted(training_args={"epochs": 1, "optimizer_args": {"lr": 0.1}})

    assert '<option value="optimizer_args.lr">' in administrator.get("/policy/arguments").text


def mark_of(hospital: Hospital, rule: str) -> str:
    """The mark of what the site has set of a rule."""
    known = hospital.node.services.policy.own()
    return mark(known, rule) if rule in known else ""
