"""Every page of the GUI, and how to come to it; what the tests look at is what the screenshots show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from playwright.sync_api import Page

from node_gui.access import Role
from node_gui.serve import invite_first
from tests.browser.chromium import Window
from tests.browser.desk import Desk
from tests.browser.stage import Stage

ADMINISTRATOR, DATA_MANAGER, REVIEWER, AUDITOR = Role


@dataclass(frozen=True)
class Scene:
    """A page in a certain state.

    Attributes:
        name: What it is called; the screenshot's file as well.
        role: Who looks at it; None: nobody is signed in.
        path: Where it is.
        act: What is done there to come to it.
        status: What the page answers.
    """

    name: str
    role: Role | None
    path: Callable[[Desk, Stage], str]
    act: Callable[[Page], None] | None = None
    status: int = 200


def show(window: Window, desk: Desk, on_stage: Stage, scene: Scene) -> None:
    """Bring the window to the scene."""
    window.stand_still()
    page = window.open(scene.path(desk, on_stage), status=200 if scene.act else scene.status)
    if scene.act is not None:
        window.expect_status(scene.status)
        scene.act(page)


def _at(path: str) -> Callable[[Desk, Stage], str]:
    return lambda _desk, on_stage: path.format(on=on_stage)


def _press(name: str) -> Callable[[Page], None]:
    def press(page: Page) -> None:
        page.get_by_role("button", name=name).click()
        page.wait_for_load_state()

    return press


def _wrong_password(page: Page) -> None:
    page.get_by_label("Name", exact=True).fill("Nobody")
    page.get_by_label("Password", exact=True).fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()


def _approval_turned_off(page: Page) -> None:
    page.get_by_label("off: any code runs unread").check()
    page.get_by_role("button", name="Show what would change").click()
    page.get_by_role("button", name="Change the rule").wait_for()


def _rejected_without_a_word(page: Page) -> None:
    page.get_by_role("button", name="Reject this text").click()
    page.get_by_role("alert").wait_for()


def _profiled(page: Page) -> None:
    page.get_by_role("button", name="Look at what that gives").click()
    page.get_by_role("heading", name="What is in it").wait_for()


def _numbers_opened(page: Page) -> None:
    page.get_by_text("The numbers").first.click()


def unfolded(page: Page) -> None:
    """The menu is open, which a narrow screen folds away."""
    summary = page.locator("nav.narrow summary")
    if summary.is_visible() and not page.locator("nav.narrow details[open]").count():
        summary.click()


def _argument_limited(page: Page) -> None:
    page.locator("#ranges-argument").fill("epochs")
    page.get_by_label("Largest value").fill("5")
    page.get_by_role("button", name="Show what would change").first.click()
    page.get_by_role("heading", name="Change the rule on").wait_for()


def _paused(page: Page) -> None:
    button = page.get_by_role("button", name="Pause after this round")
    if button.is_visible():  # as in the theme before
        button.click()
    page.get_by_role("button", name="Resume").wait_for()


def _account(page: Page) -> None:
    page.get_by_role("link", name="Ines Moreau").click()
    page.get_by_role("heading", name="Ines Moreau").wait_for()


def _linked(page: Page) -> None:
    _account(page)
    page.get_by_role("button", name="Make a new one-time link").click()
    page.get_by_role("heading", name="One-time link").wait_for()


SCENES = (
    Scene("sign-in", None, _at("/sign-in")),
    Scene("sign-in-refused", None, _at("/sign-in"), _wrong_password, 403),
    Scene("invitation", None, lambda desk, _stage: urlsplit(invite_first(desk.home).link).path),
    Scene("invitation-used", None, _at("/invitation/used"), status=403),
    Scene("home", REVIEWER, _at("/")),
    Scene("home-menu", ADMINISTRATOR, _at("/"), unfolded),
    Scene("plans", REVIEWER, _at("/plans/")),
    Scene("plans-none-fits", REVIEWER, _at("/plans/?search=nothing")),
    Scene("plan-asked", REVIEWER, _at("/plans/{on.asked}")),
    Scene("plan-asked-refused", REVIEWER, _at("/plans/{on.asked}"), _rejected_without_a_word, 400),
    Scene("plan-changes", REVIEWER, _at("/plans/{on.asked}/changes")),
    Scene("plan-approved", REVIEWER, _at("/plans/{on.approved}")),
    Scene("plan-rejected", AUDITOR, _at("/plans/{on.rejected}")),
    Scene("plan-nothing-to-compare", AUDITOR, _at("/plans/{on.rejected}/changes")),
    Scene("datasets", DATA_MANAGER, _at("/datasets/")),
    Scene("dataset", DATA_MANAGER, _at("/datasets/{on.dataset}")),
    Scene("dataset-read-only", AUDITOR, _at("/datasets/{on.dataset}")),
    Scene("dataset-changed", DATA_MANAGER, _at("/datasets/{on.changed}")),
    Scene("dataset-removal", DATA_MANAGER, _at("/datasets/{on.dataset}/remove")),
    Scene("wizard-1-browse", DATA_MANAGER, _at("/datasets/browse")),
    Scene("wizard-1-folder", DATA_MANAGER, _at("/datasets/browse?folder=exports")),
    Scene("wizard-2-look", DATA_MANAGER, _at("/datasets/look?path=exports/2026-01.csv")),
    Scene("wizard-3-profile", DATA_MANAGER, _at("/datasets/look?path=exports/2026-01.csv"), _profiled),
    Scene("wizard-new-version", DATA_MANAGER, _at("/datasets/look?path=exports/2026-01.csv&for={on.dataset}")),
    Scene("experiments", REVIEWER, _at("/experiments/")),
    Scene("experiment-running", REVIEWER, _at("/experiments/{on.running}")),
    Scene("experiment-finished", AUDITOR, _at("/experiments/{on.finished}"), _numbers_opened),
    Scene("experiment-stopped", REVIEWER, _at("/experiments/{on.stopped}")),
    Scene("experiment-paused", REVIEWER, _at("/experiments/{on.stopped}"), _paused),
    Scene("models", DATA_MANAGER, _at("/models/")),
    Scene("model", REVIEWER, _at("/models/{on.model}")),
    Scene("model-removal", DATA_MANAGER, _at("/models/{on.model}/remove")),
    Scene("what-left", DATA_MANAGER, _at("/what-left/")),
    Scene("what-left-all", AUDITOR, _at("/what-left/?what=all&experiment={on.finished}")),
    Scene("policy", ADMINISTRATOR, _at("/policy/")),
    Scene("policy-rule", ADMINISTRATOR, _at("/policy/minimum_samples")),
    Scene("policy-choice", ADMINISTRATOR, _at("/policy/plan_approval")),
    Scene("policy-confirm", ADMINISTRATOR, _at("/policy/plan_approval"), _approval_turned_off),
    Scene("policy-arguments", ADMINISTRATOR, _at("/policy/arguments")),
    Scene("policy-arguments-confirm", ADMINISTRATOR, _at("/policy/arguments"), _argument_limited),
    Scene("privacy", AUDITOR, _at("/privacy/")),
    Scene("members", AUDITOR, _at("/members/")),
    Scene("audit", AUDITOR, _at("/audit/")),
    Scene("audit-found", AUDITOR, _at("/audit/?search=plan.approved&since=2020-01-01")),
    Scene("audit-verified", AUDITOR, _at("/audit/"), _press("Verify the whole log")),
    Scene("health", ADMINISTRATOR, _at("/health/")),
    Scene("notices", ADMINISTRATOR, _at("/notices/")),
    Scene("users", ADMINISTRATOR, _at("/users/")),
    Scene("users-account", ADMINISTRATOR, _at("/users/"), _account),
    Scene("users-link", ADMINISTRATOR, _at("/users/"), _linked),
    Scene("account", REVIEWER, _at("/account/")),
    Scene("second-factor", REVIEWER, _at("/account/second-factor")),
    Scene("no-such-page", AUDITOR, _at("/nowhere"), status=404),
    Scene("not-for-your-role", AUDITOR, _at("/users/"), status=403),
)

# The same hospital's first hour, when there is nothing yet.
EMPTY = tuple(
    Scene(f"empty-{name}", role, _at(path))
    for name, role, path in (
        ("home", ADMINISTRATOR, "/"),
        ("plans", REVIEWER, "/plans/"),
        ("datasets", DATA_MANAGER, "/datasets/"),
        ("wizard", DATA_MANAGER, "/datasets/browse"),
        ("experiments", REVIEWER, "/experiments/"),
        ("models", DATA_MANAGER, "/models/"),
        ("what-left", AUDITOR, "/what-left/"),
    )
)
# What every page says while researchers' code runs unread, and while the warden is down.
APPROVAL_OFF = (
    Scene("approval-off-home", ADMINISTRATOR, _at("/")),
    Scene("approval-off", ADMINISTRATOR, _at("/policy/")),
)
NODE_DOWN = (
    Scene("node-down-home", ADMINISTRATOR, _at("/")),
    Scene("node-down-policy", ADMINISTRATOR, _at("/policy/"), status=503),
    Scene("node-down-health", ADMINISTRATOR, _at("/health/")),
)
