"""A study as a hospital's four people see it through, each in a browser window of their own."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from node_gui.access import Role
from researcher_kit import Experiment, Federation
from tests.browser.desk import NAMES, Desk, invite, join, sign_in
from tests.browser.stage import NODE, PAUSE_S, training
from tests.hospitals import PLAN, Hospitals, training_args

LAST_DAY = date.today() + timedelta(days=90)  # noqa: DTZ011 - as the reviewer's calendar has it


@pytest.fixture
def federation(hospitals: Hospitals) -> Iterator[Federation]:
    """Alice's connection."""
    with closing(hospitals.federation()) as connection:
        yield connection


@pytest.mark.timeout(400)
def test_four_people_see_a_study_through(
    desk: Desk, hospitals: Hospitals, federation: Federation, tmp_path: Path
) -> None:
    """No command line but the first link's, and a real training; what each may not do, each is told."""
    mark = secrets.token_hex(3)
    (hospitals.data(NODE) / f"{mark}.csv").write_text((hospitals.data(NODE) / "cells.csv").read_text())

    # The administrator comes in by the one-time link and makes the others' accounts.
    printed = hospitals.fedward("gui", "invite", "--home", desk.home)
    link = re.search(r"/invitation/\S+", printed)
    assert link is not None
    administrator = desk.window().open(link[0])
    join(administrator, f"Anna {mark}")
    sign_in(administrator, f"Anna {mark}")
    people = {}
    for role in (Role.DATA_MANAGER, Role.REVIEWER, Role.AUDITOR):
        name = f"{NAMES[role].split()[0]} {mark}"
        own = desk.window().open(urlsplit(invite(administrator, name, role)).path)
        join(own, name if own.get_by_label("Your name").count() else None)
        sign_in(own, name)
        people[role] = own
    manager, reviewer, auditor = people.values()

    # The data manager brings a table by the wizard.
    _add_dataset(manager, mark)

    # Alice asks; the reviewer finds it on Home, reads, compares and approves.
    file = tmp_path / "plan.py"
    changed = f"cross_entropy(self.model()(data), target)  # {mark}\n"
    file.write_text(PLAN.read_text().replace("cross_entropy(self.model()(data), target)\n", changed))
    experiment = hospitals.experiment(
        federation,
        name="wide",
        tags=[mark],
        nodes=[NODE],
        training_plan_file=file,
        model_args={"width": 8, "pause_s": PAUSE_S},
        training_args=training_args() | {"test_metric": "ACCURACY", "test_on_global_updates": True},
        round_limit=40,
    )
    experiment.request_approval(f"Study {mark}", nodes=[NODE])
    _approve(reviewer, mark)

    # It trains: the page follows without being opened anew, and what is typed meanwhile stays.
    _watch(manager, experiment)
    with training(hospitals, experiment):
        _stop(manager, reviewer, experiment)

    # The auditor sees what left, and that the log is whole.
    _audit(auditor, experiment)


def _add_dataset(page: Page, mark: str) -> None:
    page.get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="Add a dataset").click()
    page.get_by_role("link", name=f"{mark}.csv").click()
    expect(page.get_by_role("heading", name=f"{mark}.csv", level=1)).to_be_visible()
    expect(page.get_by_role("region", name="The first rows")).to_contain_text("malign")
    page.get_by_role("button", name="Look at what that gives").click()
    expect(page.get_by_text("285 rows.")).to_be_visible()
    page.get_by_label("Name", exact=True).fill(f"Cells {mark}")
    page.get_by_label("Tags").fill(mark)
    page.get_by_role("button", name="Read the whole file and register it").click()
    expect(page.get_by_role("status")).to_contain_text("is registered with 285 rows")
    page.get_by_label("Researcher's member id").fill("alice")
    page.get_by_label("Last day").fill(LAST_DAY.isoformat())
    page.get_by_role("button", name="Permit").click()
    expect(page.get_by_role("region", name="Permissions")).to_contain_text("alice")


def _approve(page: Page, mark: str) -> None:
    page.get_by_role("link", name="Home").click()
    page.get_by_role("listitem").filter(has_text="“wide”").get_by_role("link", name="Read the plan").first.click()
    expect(page.get_by_text(f"Study {mark}")).to_be_visible()
    source = page.get_by_role("region", name="The plan's text")
    expect(source).to_contain_text("class WidePlan(TorchTrainingPlan)")
    expect(source.locator(".hint-mark").first).to_contain_text("Library")
    page.get_by_role("link", name="See what changed").click()
    sides = page.get_by_role("region", name="The two texts side by side")
    expect(sides.locator("td.added")).to_contain_text(f"# {mark}")
    expect(sides.locator("td.removed")).not_to_contain_text(mark)
    page.get_by_role("link", name="To the plan and its decision").click()
    page.get_by_label("Note", exact=True).fill("Read in full: one comment is new.")
    page.get_by_label("Last day of the approval").fill(LAST_DAY.isoformat())
    page.get_by_role("button", name="Approve this text").click()
    expect(page.get_by_role("status")).to_contain_text("is approved")
    expect(page.get_by_text(f"{LAST_DAY.day} {LAST_DAY:%B %Y}")).to_be_visible()


def _watch(page: Page, experiment: Experiment) -> None:
    experiment.run(1)
    page.get_by_role("link", name="Experiments").click()
    search = page.get_by_label("Researcher, or the beginning")
    row = page.get_by_role("row").filter(has_text=experiment.id[-8:])
    expect(row).to_contain_text("1 of 40")
    search.press_sequentially("half a na")
    page.evaluate("window.isTheSamePage = true")
    experiment.run(1)
    expect(row).to_contain_text("2 of 40")
    expect(search).to_have_value("half a na")
    expect(search).to_be_focused()
    assert page.evaluate("window.isTheSamePage") is True


def _stop(page: Page, reviewer: Page, experiment: Experiment) -> None:
    page.get_by_role("row").filter(has_text=experiment.id[-8:]).get_by_role("link").click()
    expect(page.get_by_text("Running", exact=True)).to_be_visible()
    curve = page.get_by_role("img", name="Curve: Size of the update")
    expect(curve.locator("circle")).to_have_count(2)
    reviewer.get_by_role("link", name="Home").click()
    expect(reviewer.get_by_role("region", name="Experiments at work")).to_contain_text("wide")
    page.get_by_role("button", name="Stop now").click()
    expect(page.get_by_role("status")).to_contain_text("was seen dead at")
    expect(page.get_by_text("its last process was seen dead")).to_be_visible()
    expect(page.get_by_role("region", name="Rounds here")).to_contain_text("stopped by the hospital's staff")


def _audit(page: Page, experiment: Experiment) -> None:
    page.get_by_role("link", name="What left").click()
    page.get_by_label("Experiment's id").fill(experiment.id)
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".figure").first).to_have_text("2")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as a table (CSV)").click()
    table = saved.value.path().read_text().splitlines()
    assert [experiment.id in line for line in table] == [False, True, True]
    page.get_by_role("link", name="Audit log").click()
    page.get_by_label("Search for").fill(experiment.id)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("region", name="Lines, the newest first")).to_contain_text("stopped the experiment")
    page.get_by_role("button", name="Verify the whole log").click()
    expect(page.get_by_role("heading", name="The log is whole")).to_be_visible()


# What a role may not open, of the pages that some role may.
CLOSED = {
    Role.ADMINISTRATOR: ("/datasets/browse", "/datasets/look"),
    Role.DATA_MANAGER: ("/policy/sandbox", "/health/", "/users/", "/audit/export.csv"),
    Role.REVIEWER: ("/datasets/browse", "/policy/sandbox", "/health/", "/users/", "/what-left/what-left.csv"),
    Role.AUDITOR: ("/datasets/browse", "/policy/sandbox", "/users/"),
}


@pytest.mark.parametrize("role", Role)
def test_what_is_not_for_a_role_says_so(desk: Desk, role: Role) -> None:
    """And says whom to ask; the menu does not lead there."""
    window = desk.window(role)
    said = [window.open(path, status=403).get_by_role("heading", level=1).inner_text() for path in CLOSED[role]]
    menu = window.page.get_by_role("navigation", name="Main menu")
    places = {link.get_attribute("href") for link in menu.get_by_role("link").all()}

    assert all(words.startswith("This page is not for your role") for words in said)
    assert places.isdisjoint(CLOSED[role])
