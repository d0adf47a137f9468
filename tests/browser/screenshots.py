"""Pictures of every page, in both themes and two widths, for somebody to look at.

    python -m tests.browser.screenshots [--only NAME…]

They lie in ``screenshots/``, which git ignores.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.browser.chromium import chromium
from tests.browser.desk import Desk, certificate, served
from tests.browser.scenes import APPROVAL_OFF, EMPTY, NODE_DOWN, SCENES, Scene, show
from tests.browser.stage import NEWCOMER, NODE, Stage, add_colleagues, stage
from tests.hospitals import Hospitals

FOLDER = Path(__file__).parents[2] / "screenshots"
THEMES = ("light", "dark")
WIDTHS = (1280, 380)  # pixels


def main(names: Sequence[str]) -> None:
    """Make them all, or those whose name begins with one of ``names``."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        people = Hospitals.start(scratch / "consortium", furnished=[NODE])
        stack.callback(people.consortium.stop)
        browser = stack.enter_context(chromium(scratch, [certificate(people.home(node)) for node in (NODE, NEWCOMER)]))
        north = stack.enter_context(served(browser, people.home(NODE)))
        south = stack.enter_context(served(browser, people.home(NEWCOMER)))
        add_colleagues(north.home)
        (scratch / "researcher").mkdir()
        on_stage = stack.enter_context(stage(people, scratch / "researcher", rounds=12))
        _take(north, on_stage, SCENES, names)
        _take(south, on_stage, EMPTY, names)
        people.staff(NEWCOMER).call("policy.set", changes={"plan_approval": "off"})
        _take(south, on_stage, APPROVAL_OFF, names)
        people.consortium.kill(NEWCOMER)
        _take(south, on_stage, NODE_DOWN, names)
    print(f"{len(list(FOLDER.iterdir()))} pictures in {FOLDER}")


def _take(desk: Desk, on_stage: Stage, scenes: Sequence[Scene], names: Sequence[str]) -> None:
    for scene in scenes:
        if names and not scene.name.startswith(tuple(names)):
            continue
        for width in WIDTHS:
            window = desk.window(scene.role, viewport={"width": width, "height": 800})
            show(window, desk, on_stage, scene)
            for theme in THEMES:
                window.page.emulate_media(color_scheme=theme)
                window.page.screenshot(path=FOLDER / f"{scene.name}-{theme}-{width}.png", full_page=True)
            desk.close_windows()
        print(scene.name, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    main(parser.parse_args().only)
