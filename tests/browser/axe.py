"""axe-core: what a machine can tell of WCAG 2.2 AA and of good practice."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

VENDOR = Path(__file__).parent / "vendor"
_SOURCE = (VENDOR / "axe.min.js").read_text()
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]


def violations(page: Page) -> list[str]:
    """What the page does wrong as it stands there now: rule, place and how to mend it."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(_SOURCE)  # from outside: the page's own policy forbids scripts of others, and stays in force
    options = {"runOnly": {"type": "tag", "values": _TAGS}, "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{rule['id']}: {node['target']}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
