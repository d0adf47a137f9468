"""One consortium, one browser and one stage for all windows of this suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import chromium
from tests.browser.desk import Desk, certificate, served
from tests.browser.stage import NEWCOMER, NODE, Stage, add_colleagues, stage
from tests.hospitals import Hospitals


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """A hospital at work, and one that has only just joined."""
    people = Hospitals.start(tmp_path_factory.mktemp("consortium"), furnished=[NODE])
    yield people
    people.consortium.stop()


@pytest.fixture(scope="session")
def browser(hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium."""
    certificates = [certificate(hospitals.home(node)) for node in (NODE, NEWCOMER)]
    with chromium(tmp_path_factory.mktemp("browser"), certificates) as started:
        yield started


@pytest.fixture(scope="session")
def _north(browser: Browser, hospitals: Hospitals) -> Iterator[Desk]:
    with served(browser, hospitals.home(NODE)) as desk:
        yield desk


@pytest.fixture(scope="session")
def _south(browser: Browser, hospitals: Hospitals) -> Iterator[Desk]:
    with served(browser, hospitals.home(NEWCOMER)) as desk:
        yield desk


@pytest.fixture
def desk(_north: Desk) -> Iterator[Desk]:
    """The GUI of the hospital at work; afterwards no window of it has written down a fault."""
    yield _north
    assert _north.close_windows() == []


@pytest.fixture
def new_desk(_south: Desk) -> Iterator[Desk]:
    """The GUI of the hospital that has only just joined, likewise."""
    yield _south
    assert _south.close_windows() == []


@pytest.fixture(scope="session")
def on_stage(hospitals: Hospitals, _north: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The hospital in the middle of its work, to the session's end: what trains besides comes before it."""
    add_colleagues(_north.home)
    with stage(hospitals, tmp_path_factory.mktemp("researcher"), rounds=3) as furnished:
        yield furnished
