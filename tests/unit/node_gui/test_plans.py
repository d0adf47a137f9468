"""Training plans in the browser: what a reviewer reads, and what the decision does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.messages import ArgumentRange
from appliance.warden.findings import MOST
from appliance.warden.store import plan_decisions, plans
from node_gui.access import Role
from node_gui.source import BLANK_LINES_AT_MOST, COLOURED_AT_MOST, SHOWN_AT_MOST, lines_of
from tests.conftest import Members
from tests.unit.node_gui.conftest import PASSWORD, Browser
from tests.unit.node_gui.hospital import Hospital
from tests.unit.warden.conftest import PLAN

GIVEN = {"minimum-0": "0.001", "maximum-0": "0.1", "maximum-1": "5"}  # the ranges as they stand in the form
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A hospital whose staff use the GUI."""
    hospital = Hospital(tmp_path, members)
    yield hospital
    hospital.close()


@pytest.fixture
def reviewer(hospital: Hospital) -> Browser:
    """Rita, who reads plans."""
    return hospital.signed_in(Role.REVIEWER, "Rita")


def row(hospital: Hospital, sha256: str) -> dict[str, Any]:
    """The plan as the store has it."""
    return next(plan for plan in hospital.node.table(plans) if plan["sha256"] == sha256)


def need_two(hospital: Hospital) -> None:
    """Let two people approve."""
    hospital.node.governance.policy_set(_staff("Ada"), {"second_reviewer": True})


def _staff(name: str) -> Any:
    from appliance.warden.governance import Staff  # noqa: PLC0415 - one use

    return Staff(name=name, via="gui")


def test_a_large_range_is_shown_without_an_exponent(hospital: Hospital, reviewer: Browser) -> None:
    """A million is 1000000 to who reviews it, and so it stands in the form."""
    sha256 = hospital.request_plan(PLAN, ranges=(ArgumentRange(name="num_updates", minimum=1, maximum=1_000_000),))

    page = reviewer.get(f"/plans/{sha256}").text

    assert "num_updates: 1 to 1000000" in page
    assert 'value="1000000"' in page


def test_the_queue_shows_who_asks_for_what(hospital: Hospital, reviewer: Browser) -> None:
    """A reviewer begins there."""
    hospital.request_plan(PLAN)

    page = reviewer.get("/plans/").text
    assert "1 plan waits for a review." in page
    assert "bleeding" in page
    assert "alice" in page


def test_the_queue_finds_by_state_and_by_name(hospital: Hospital, reviewer: Browser) -> None:
    """With five hundred plans nobody scrolls."""
    hospital.request_plan(PLAN, name="first")
    hospital.request_plan(PLAN + "#", name="second")

    assert "second" not in reviewer.get("/plans/?search=firs").text
    assert "No plan fits." in reviewer.get("/plans/?state=approved").text


def test_an_approval_covers_this_text_with_note_end_and_ranges(hospital: Hospital, reviewer: Browser) -> None:
    """All of it is what the reviewer said."""
    sha256 = hospital.request_plan(PLAN)
    form = GIVEN | {"shown": "0", "note": "read it", "until": "2099-12-31", "maximum-0": "0.05"}

    assert reviewer.post(f"/plans/{sha256}/approve", **form).status_code == 302
    plan = row(hospital, sha256)
    assert (plan["state"], plan["reviewer"], plan["note"]) == ("approved", "Rita", "read it")
    assert time.strftime("%Y-%m-%d", time.localtime(plan["until"])) == "2099-12-31"
    assert [(r["minimum"], r["maximum"]) for r in plan["ranges"]] == [(0.001, 0.05), (None, 5)]


@pytest.mark.parametrize(
    "change",
    [
        {"maximum-0": "0.2"},
        {"minimum-0": "0"},
        {"minimum-0": "0.05", "maximum-0": "0.01"},
        {"maximum-1": "nan"},
        {"maximum-1": "1e999"},
        {"until": "31.12.2099"},
        {"until": "2001-01-01"},
        {"shown": ""},
        {"note": "x" * 4001},
    ],
)
def test_what_was_not_asked_or_makes_no_sense_is_refused(
    hospital: Hospital, reviewer: Browser, change: dict[str, str]
) -> None:
    """Beside the form, with what was typed still in it, and nothing decided."""
    sha256 = hospital.request_plan(PLAN)

    reply = reviewer.post(f"/plans/{sha256}/approve", **(GIVEN | {"shown": "0", "note": "kept words"} | change))
    assert reply.status_code == 400
    assert 'role="alert"' in reply.text
    assert "note" in change or "kept words" in reply.text
    assert row(hospital, sha256)["state"] == "pending"


def test_an_emptied_bound_is_the_one_that_was_asked(hospital: Hospital, reviewer: Browser) -> None:
    """Not no bound at all."""
    sha256 = hospital.request_plan(PLAN)
    reviewer.post(f"/plans/{sha256}/approve", shown="0")

    assert [(r["minimum"], r["maximum"]) for r in row(hospital, sha256)["ranges"]] == [(0.001, 0.1), (None, 5)]


def test_of_listed_values_only_those_ticked_are_allowed(hospital: Hospital, reviewer: Browser) -> None:
    """And a value that nobody asked for cannot be smuggled in."""
    asked = (ArgumentRange(name="optimizer", allowed=("sgd", "adam", 1)),)
    sha256 = hospital.request_plan(PLAN, ranges=asked)

    assert reviewer.post(f"/plans/{sha256}/approve", shown="0").status_code == 400
    reviewer.post(f"/plans/{sha256}/approve", shown="0", **{"allow-0": ['"sgd"', "1", '"own"']})
    assert row(hospital, sha256)["ranges"][0]["allowed"] == ["sgd", 1]


def test_a_rejection_needs_a_word_for_the_researcher(hospital: Hospital, reviewer: Browser) -> None:
    """Else she cannot mend it."""
    sha256 = hospital.request_plan(PLAN)

    assert reviewer.post(f"/plans/{sha256}/reject", shown="0").status_code == 400
    reviewer.post(f"/plans/{sha256}/reject", shown="0", note="prints records")
    assert (row(hospital, sha256)["state"], row(hospital, sha256)["note"]) == ("rejected", "prints records")


def test_a_revocation_ends_what_runs(hospital: Hospital, reviewer: Browser) -> None:
    """Within the stop's five seconds."""
    hospital.node.accepted()
    (plan,) = hospital.node.table(plans)
    reviewer.post(f"/plans/{plan['sha256']}/revoke", shown=str(plan["revision"]), note="a mistake")

    assert row(hospital, plan["sha256"])["state"] == "revoked"
    assert hospital.node.runner.stopped == ["e-1"]


def test_a_decision_on_what_was_shown_before_another_is_refused(hospital: Hospital, reviewer: Browser) -> None:
    """Two reviewers with the same page open: the second one reads what the first decided."""
    sha256 = hospital.request_plan(PLAN)
    other = hospital.signed_in(Role.REVIEWER, "Otto")
    reviewer.post(f"/plans/{sha256}/reject", shown="0", note="no")

    reply = other.post(f"/plans/{sha256}/approve", shown="0", **GIVEN)
    assert reply.status_code == 409
    assert "Rita decided" in reply.text
    assert row(hospital, sha256)["state"] == "rejected"


def test_two_people_approve_where_the_site_wants_it(hospital: Hospital, reviewer: Browser) -> None:
    """One alone does not, however often he clicks; the second takes over the first one's terms."""
    need_two(hospital)
    sha256 = hospital.request_plan(PLAN)
    assert "first approval" in reviewer.get(f"/plans/{sha256}").text
    reviewer.post(f"/plans/{sha256}/approve", shown="0", **(GIVEN | {"maximum-1": "2"}))
    assert reviewer.post(f"/plans/{sha256}/approve", shown="1").status_code == 400
    assert row(hospital, sha256)["state"] == "pending"

    otto = hospital.signed_in(Role.REVIEWER, "Otto")
    assert "Rita's account, its role or its link came from setup" in otto.get(f"/plans/{sha256}").text
    otto.post(f"/plans/{sha256}/approve", shown="1")
    assert (row(hospital, sha256)["state"], row(hospital, sha256)["reviewer"]) == ("approved", "Otto")
    assert row(hospital, sha256)["ranges"][1]["maximum"] == 2
    assert [d["decision"] for d in hospital.node.table(plan_decisions)] == ["first-approved", "approved"]


def test_who_made_the_other_s_account_gives_no_second_approval(hospital: Hospital, reviewer: Browser) -> None:
    """Whatever waits to be told to the log counts already: Rita was an administrator once."""
    need_two(hospital)
    sha256 = hospital.request_plan(PLAN)
    reviewer.post(f"/plans/{sha256}/approve", shown="0", **GIVEN)
    hospital.gui.staff.join(hospital.gui.staff.invite("Rita", "Otto", Role.REVIEWER), PASSWORD)

    reply = hospital.signed_in(Role.REVIEWER, "Otto").post(f"/plans/{sha256}/approve", shown="1")

    assert reply.status_code == 400
    assert "let the other in" in reply.text
    assert row(hospital, sha256)["state"] == "pending"


def test_hints_stand_beside_their_lines(hospital: Hospital, reviewer: Browser) -> None:
    """And the lines can be linked to."""
    sha256 = hospital.request_plan("import socket\nx = 1\neval('x')\n")

    page = reviewer.get(f"/plans/{sha256}").text
    assert 'href="#line-3"' in page
    assert page.count('class="hint-mark"') == 2


def test_hints_that_are_not_listed_are_counted(hospital: Hospital, reviewer: Browser) -> None:
    """A reviewer must not take the list for all."""
    sha256 = hospital.request_plan("print(x)\n" * (MOST + 30))

    page = reviewer.get(f"/plans/{sha256}").text
    assert f"{MOST + 30} places to look at" in page
    assert "30 more of this kind follow and are not listed." in page


def test_changes_stand_side_by_side(hospital: Hospital, reviewer: Browser) -> None:
    """Against the version that was approved, whoever asked for it."""
    before = hospital.request_plan(PLAN, researcher="mallory")
    reviewer.post(f"/plans/{before}/approve", shown="0", **GIVEN)
    sha256 = hospital.request_plan(PLAN + "import socket\n")

    page = reviewer.get(f"/plans/{sha256}/changes").text
    assert '<td class="line added">' in page
    assert "socket" in page
    assert "asked for by mallory, not by alice" in reviewer.get(f"/plans/{sha256}").text


def test_a_first_version_has_nothing_beside_it(hospital: Hospital, reviewer: Browser) -> None:
    """Which the page says."""
    assert "nothing to compare" in reviewer.get(f"/plans/{hospital.request_plan(PLAN)}/changes").text


def test_no_text_of_a_researchers_acts_in_the_page(hospital: Hospital, reviewer: Browser) -> None:
    """Name, description, note and the text itself are shown, not run; what turns the writing is spelt out."""
    text = f'x = """{SCRIPT}"""  # \u202e\n{SCRIPT}\n'
    sha256 = hospital.request_plan(text, name=SCRIPT, description=f"{SCRIPT}\u202e")
    reviewer.post(f"/plans/{sha256}/reject", shown="0", note=SCRIPT)
    hospital.request_plan(text + "#", name=SCRIPT)

    for path in ("/plans/", f"/plans/{sha256}", f"/plans/{sha256}/changes", f"/plans/?search={SCRIPT}"):
        page = reviewer.get(path).text
        assert "<script>alert" not in page
        assert "\u202e" not in page


@pytest.mark.parametrize(
    "text", ["\r\n\r\n", "x\ry\r", "\r\r\n", "\x0c\n\x0b", "\u2028\x85", "", "\n\n\n", "'''\n", "x = 1"]
)
def test_every_line_has_its_number_whatever_ends_it(hospital: Hospital, reviewer: Browser, text: str) -> None:
    """A hint beside the wrong line would mislead."""
    sha256 = hospital.request_plan(PLAN)
    with hospital.node.store.write() as connection:  # as an older release took it
        connection.execute(plans.update().values(source=f"a{text}b\neval('z')"))
    number = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 2

    page = reviewer.get(f"/plans/{sha256}").text
    line = page.split(f'id="line-{number}"')[1]
    assert line.split("</tr>")[0].count("eval") >= 1
    assert f'id="line-{number + 1}"' not in page


@pytest.mark.parametrize(
    ("text", "is_coloured"),
    [
        ("x = 1\n" + "\n" * BLANK_LINES_AT_MOST + "y = 1", True),
        ("x = 1\n" + " \t\n" * (BLANK_LINES_AT_MOST + 1), False),
        ("x = 1\n" * (COLOURED_AT_MOST // 6), True),
        ("x = 1\n" * (COLOURED_AT_MOST // 6 + 1), False),
    ],
)
def test_what_would_take_long_to_colour_is_shown_without(text: str, is_coloured: bool) -> None:
    """A researcher writes the text, and a page must come whatever he wrote."""
    lines = lines_of(text)
    assert ("py-" in lines[0]) is is_coloured
    assert len(lines) == text.count("\n") + 1


def test_a_very_long_text_is_shown_in_parts_that_say_so(hospital: Hospital, reviewer: Browser) -> None:
    """With its true line numbers; a hint leads to the part that it is in."""
    sha256 = hospital.request_plan("x = 1\n" * SHOWN_AT_MOST + "eval('z')\n")
    first, last = SHOWN_AT_MOST, SHOWN_AT_MOST + 1

    page = reviewer.get(f"/plans/{sha256}").text
    assert f'id="line-{first}"' in page
    assert f'id="line-{last}"' not in page
    assert f"Lines 1 to {first} of {last + 1}." in page
    assert f'href="/plans/{sha256}?page=2#line-{last}"' in page

    page = reviewer.get(f"/plans/{sha256}?page=2").text
    assert f'id="line-{first}"' not in page
    assert 'class="hint-mark"' in page.split(f'id="line-{last}"')[1].split("</tr>")[0]
    assert f"Lines {last} to {last + 1} of {last + 1}." in page
    assert reviewer.get(f"/plans/{sha256}?page=99").text.count("The lines before") == 2


def test_a_plan_that_nobody_knows_is_no_page(reviewer: Browser) -> None:
    """A link may be old."""
    assert reviewer.get(f"/plans/{'0' * 64}").status_code == 404


def test_with_the_warden_down_plans_are_read_and_nothing_is_decided(hospital: Hospital, reviewer: Browser) -> None:
    """History must not need it."""
    sha256 = hospital.request_plan(PLAN)
    hospital.stop_warden()

    assert reviewer.get(f"/plans/{sha256}").status_code == 200
    assert reviewer.post(f"/plans/{sha256}/approve", shown="0", **GIVEN).status_code == 503
    assert row(hospital, sha256)["state"] == "pending"
