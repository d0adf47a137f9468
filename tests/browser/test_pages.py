"""Every page in both themes and on a narrow screen: nothing that a machine can find wrong with it."""

from __future__ import annotations

import hashlib
import tomllib

import pytest
from playwright.sync_api import Page, expect

from node_gui.access import Role
from tests.browser.axe import VENDOR, violations
from tests.browser.desk import Desk
from tests.browser.scenes import APPROVAL_OFF, EMPTY, NODE_DOWN, SCENES, Scene, show
from tests.browser.stage import NEWCOMER, Stage
from tests.hospitals import Hospitals

pytestmark = pytest.mark.timeout(300)  # the first to ask starts a consortium and trains

NARROW = {"width": 380, "height": 800}


def faults(page: Page) -> list[str]:
    """What is wrong with the page in either theme, and what makes it scroll sideways on a telephone."""
    found = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found += [f"{theme}: {fault}" for fault in violations(page)]
    page.set_viewport_size(NARROW)
    width = page.evaluate("document.scrollingElement.scrollWidth")
    return found if width <= NARROW["width"] else [*found, f"{width} pixels wide"]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_page_is_without_fault(desk: Desk, on_stage: Stage, scene: Scene) -> None:
    """By axe-core's rules, in the console, in its requests, in its policy header, and in its width."""
    window = desk.window(scene.role)
    show(window, desk, on_stage, scene)

    assert faults(window.page) == []
    assert window.faults == []


@pytest.mark.parametrize("scene", EMPTY, ids=lambda scene: scene.name)
def test_an_empty_page_is_without_fault(new_desk: Desk, on_stage: Stage, scene: Scene) -> None:
    """The first hour decides whether staff trust it; each empty place says what will be there."""
    window = new_desk.window(scene.role)
    show(window, new_desk, on_stage, scene)

    expect(window.page.locator(".empty").first).to_be_visible()
    assert faults(window.page) == []
    assert window.faults == []


def test_the_bands_are_seen_on_every_page(new_desk: Desk, on_stage: Stage, hospitals: Hospitals) -> None:
    """Code that runs unread, and a node that is down, must not be overlooked; the pages show what they can."""
    window = new_desk.window(Role.ADMINISTRATOR)
    found = {}
    hospitals.staff(NEWCOMER).call("policy.set", changes={"plan_approval": "off"})
    for scene in APPROVAL_OFF:
        show(window, new_desk, on_stage, scene)
        expect(window.page.get_by_role("alert")).to_contain_text("Plan approval is off.")
        found[scene.name] = faults(window.page)
    hospitals.staff(NEWCOMER).call("policy.set", changes={"plan_approval": None})
    hospitals.consortium.kill(NEWCOMER)
    try:
        for scene in NODE_DOWN:
            show(window, new_desk, on_stage, scene)
            expect(window.page.get_by_role("status").first).to_contain_text("The node does not answer.")
            found[scene.name] = faults(window.page)
    finally:
        hospitals.consortium.launch(NEWCOMER)
        hospitals.consortium.wait_until_up(NEWCOMER)

    assert [name for name, wrong in found.items() if wrong] == [], found


@pytest.mark.parametrize(
    ("path", "status"),
    [("/static/style.css", 200), ("/static/vendor/htmx.min.js", 200), ("/static/nothing.js", 404), ("/nowhere", 404)],
)
def test_what_is_no_page_carries_the_policy_too(desk: Desk, path: str, status: int) -> None:
    """A file or an error without it would be the place to run a stranger's script."""
    window = desk.window(Role.AUDITOR)
    window.open(path, status=status)

    assert window.faults == []


def test_the_file_that_judges_is_the_one_that_was_taken() -> None:
    """Another axe-core would find other faults, or none."""
    (file,) = tomllib.loads((VENDOR / "files.toml").read_text())["file"]

    assert hashlib.sha256((VENDOR / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert "MPL" in file["licence"]
