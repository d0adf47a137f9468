"""The checks on a live site: ``make site`` runs them last, and writes what each found into its results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import hosts
from tests.site.stage import OUTSIDER, SUITE, address, container, on


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the site's driver wants the results."""
    parser.addoption("--site-report", type=Path, help="where to write what each check found (JSON)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what each check found."""
    path = session.config.getoption("--site-report")
    if path is not None:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        found = {
            report.nodeid.partition("::")[2]: outcome == "passed"
            for outcome in ("passed", "failed", "error", "skipped")
            for report in reporter.stats.get(outcome, [])
        }
        path.write_text(json.dumps(found or {"checks ran": False}))


@pytest.fixture(scope="session")
def outsider() -> Iterator[str]:
    """A machine on the Internet that belongs to nobody of the consortium, with a port scanner."""
    hosts.remove([container(OUTSIDER)])
    hosts.boot(container(OUTSIDER), suite=SUITE, ip=address(OUTSIDER))
    on(OUTSIDER, "apt-get", "-qq", "update")
    on(OUTSIDER, "apt-get", "-qq", "install", "--yes", "--no-install-recommends", "nmap")
    yield OUTSIDER
    hosts.remove([container(OUTSIDER)])
