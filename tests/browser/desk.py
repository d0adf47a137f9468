"""A hospital's GUI as it is served, and the windows in which its staff have it open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from node_gui.access import Role
from node_gui.certificate import ready_tls_files
from node_gui.config import read_config
from node_gui.serve import READY_FILE
from node_gui.staff import StaffBook
from tests.browser.chromium import Window
from tests.integration.network.hosts import wait_until

PASSWORD = "correct horse battery staple"
NAMES = {
    Role.ADMINISTRATOR: "Anna Weiss",
    Role.DATA_MANAGER: "Daniel Okafor",
    Role.REVIEWER: "Ruth Lindqvist",
    Role.AUDITOR: "Omar Haddad",
}


class Desk:
    """The GUI of one hospital.

    Attributes:
        home: The node's folder.
        address: Where it is served.
        windows: What was opened, for whoever closes them.
    """

    def __init__(self, browser: Browser, home: Path, address: str) -> None:
        self.home = home
        self.address = address
        self.windows: list[Window] = []
        self._browser = browser
        self._sessions: dict[Role, Any] = {}

    def window(self, role: Role | None = None, **options: Any) -> Window:
        """A window, with somebody of that role signed in or with nobody."""
        session = {"storage_state": self._session(role)} if role else {}
        window = Window(self._browser, self.address, **session, **options)
        self.windows.append(window)
        return window

    def close_windows(self) -> list[str]:
        """Close them all; returns what went wrong in them."""
        faults = [fault for window in self.windows for fault in window.faults]
        for window in self.windows:
            window.close()
        self.windows.clear()
        return faults

    def add(self, role: Role, name: str) -> None:
        """An account with our password, made beside the GUI."""
        staff = StaffBook(self.home)
        staff.join(staff.invite("setup", name, role), PASSWORD)
        staff.close()

    def _session(self, role: Role) -> Any:
        """Signed in once for all windows: attempts are counted."""
        if role not in self._sessions:
            self.add(role, NAMES[role])
            window = Window(self._browser, self.address)
            sign_in(window.open("/sign-in"), NAMES[role])
            self._sessions[role] = window.state()
            window.close()
        return self._sessions[role]


def certificate(home: Path) -> Path:
    """What the GUI of the node in ``home`` shows browsers; made now if it never ran."""
    return ready_tls_files(home, read_config(home)).certificate


@contextmanager
def served(browser: Browser, home: Path) -> Iterator[Desk]:
    """The GUI of the node in ``home``, as ``fedward gui start`` starts it."""
    ready = home / READY_FILE
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "appliance.cli.main", "gui", "start", "--home", str(home)]
    environment = os.environ | {"FEDWARD_GUI__PORT": "0"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        try:
            wait_until(lambda: ready.exists() or process.poll() is not None, timeout_s=90)
            assert process.poll() is None
            yield Desk(browser, home, f"https://127.0.0.1:{ready.read_text().strip()}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


# What people do on the pages


def join(page: Page, name: str | None = None) -> None:
    """Choose a password where an invitation leads; the first account has its name still to be chosen."""
    if name is not None:
        page.get_by_label("Your name").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same password again").fill(PASSWORD)
    page.get_by_role("button", name="Set the password").click()


def sign_in(page: Page, name: str) -> None:
    """Fill in the form, and wait until the door is open."""
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def invite(page: Page, name: str, role: str) -> str:
    """Make a colleague's account under Users; returns the one-time link."""
    page.get_by_role("link", name="Users", exact=True).click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Role").select_option(role)
    page.get_by_role("button", name="Make a one-time link").click()
    return page.locator("pre.link").inner_text()
