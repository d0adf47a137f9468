"""Staff without a mouse, and staff whose browser runs no scripts."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from node_gui.access import Role
from tests.browser.desk import NAMES, PASSWORD, Desk
from tests.browser.scenes import unfolded
from tests.browser.stage import DESCRIPTION, NODE, Stage
from tests.hospitals import Hospitals

pytestmark = pytest.mark.timeout(300)  # the first to ask starts a consortium and trains

_FOCUS = """() => {
  const place = document.activeElement, look = getComputedStyle(place);
  return {
    name: (place.getAttribute("aria-label") || place.innerText || place.labels?.[0]?.innerText || place.id).trim(),
    isSeen: look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2,
  };
}"""


def tab_to(page: Page, name: str, *, at_most: int = 30) -> None:
    """Press Tab until the place of that name has the focus; each place on the way shows that it has it."""
    for _ in range(at_most):
        page.keyboard.press("Tab")
        place = page.evaluate(_FOCUS)
        assert place["isSeen"], f"nobody sees the focus on {place['name']!r}"
        if place["name"].startswith(name):
            return
    pytest.fail(f"Tab never came to {name!r}")


def test_a_plan_is_read_and_decided_with_the_keyboard_alone(desk: Desk, on_stage: Stage, hospitals: Hospitals) -> None:
    """From the sign-in to the decision, by Tab, Enter and letters; the skip link saves the way through the menu."""
    desk.window(Role.REVIEWER)  # the account
    page = desk.window().open("/sign-in")
    tab_to(page, "Name")
    page.keyboard.type(NAMES[Role.REVIEWER])
    tab_to(page, "Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Home").wait_for()

    tab_to(page, "Skip to the page's content", at_most=1)
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to(page, "Read the plan", at_most=1)
    page.keyboard.press("Enter")
    page.get_by_text(DESCRIPTION).wait_for()
    tab_to(page, "Go to the decision")
    page.keyboard.press("Enter")
    tab_to(page, "Reason")
    page.keyboard.type("Not by the mouse, and not yet.")
    tab_to(page, "Reject this text")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("The plan is rejected")

    lines = [line for line in hospitals.audit(NODE, "plan.rejected") if line["subject"] == on_stage.asked]
    assert [line["actor"] for line in lines] == [f"staff:{NAMES[Role.REVIEWER]}"]


@pytest.mark.parametrize("width", [1280, 380])
def test_pages_and_forms_work_without_scripts(desk: Desk, on_stage: Stage, width: int) -> None:
    """A hospital may forbid them; the menu opens, a search finds, a check is made and an account signs out."""
    window = desk.window(Role.AUDITOR, java_script_enabled=False, viewport={"width": width, "height": 800})
    page = window.open("/")
    menu = page.get_by_role("navigation", name="Main menu")
    unfolded(page)
    names = [link.inner_text() for link in menu.get_by_role("link").all()]
    seen = []
    for name in names:
        unfolded(page)
        menu.get_by_role("link", name=name, exact=True).click()
        expect(menu.locator("[aria-current=page]")).to_have_text(name)
        seen.append(page.get_by_role("heading", level=1).inner_text())
    page.goto(f"/experiments/{on_stage.finished}")
    expect(page.get_by_role("img", name=re.compile("Curve: AUC"))).to_be_visible()
    page.goto("/audit/")
    page.get_by_label("Search for").fill(on_stage.approved)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("region", name="Lines, the newest first")).to_contain_text("approved the plan")
    page.get_by_role("button", name="Verify the whole log").click()
    expect(page.get_by_role("heading", name="The log is whole")).to_be_visible()

    assert len(names) > 5
    assert len(set(seen)) == len(names)
