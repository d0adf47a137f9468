"""What people do on the site: data managers, reviewers and the researcher, each by the commands that they have."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.site.stage import HOSPITALS, RESEARCHER, ROOT, SiteError, on

DEMO = ROOT / "appliance/demo"
PLAN = "bleeding at visit 5"  # its name, as researcher.py gives it


def register_data() -> None:
    """What three data managers do: bring a file, register it, permit the researcher."""
    for name, file in HOSPITALS.items():
        table = (DEMO / f"opt/{file}.csv").read_text()
        on(name, "sh", "-lc", "umask 077 && cat > /srv/fedward/data/opt.csv", stdin=table)
        if re.search(r"\bopt\b", on(name, "fedward-node", "dataset", "list")):
            continue  # an earlier try
        on(
            name, "fedward-node", "dataset", "add", "opt.csv", "--name", "opt", "--tag", "opt",
            "--loading-plan", "/dev/stdin", "--researcher", RESEARCHER,
            stdin=(DEMO / "loading_plan.toml").read_text(),
        )  # fmt: skip


def ask_and_approve() -> None:
    """The researcher asks; each hospital's reviewer approves."""
    notebooks = "/var/lib/fedward/researcher/notebooks"
    for file in (Path(__file__).with_name("researcher.py"), DEMO / "plan.py"):
        on(
            RESEARCHER,
            "sh",
            "-c",
            f"cat > {notebooks}/{file.name} && chmod 644 {notebooks}/{file.name}",
            stdin=file.read_text(),
        )
    in_kit("ask")
    for name in HOSPITALS:
        on(
            name,
            "fedward-node",
            "plan",
            "approve",
            "bleeding at visit 5",
            "--note",
            "Read line by line: one logistic regression.",
        )


def in_kit(*arguments: str, timeout_s: float = 600) -> dict[str, Any]:
    """Run the researcher's script in the kit; returns what it says."""
    said = on(
        RESEARCHER, "docker", "exec", "fedward-kit", "python", "researcher.py", *arguments,
        timeout_s=timeout_s,
    )  # fmt: skip
    return json.loads(said.splitlines()[-1])


def until(what: str, attempt: Callable[[], Any], timeout_s: float = 180) -> Any:
    """Try again until it works; raises the last SiteError at the end of the time."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            return attempt()
        except SiteError:
            if time.monotonic() > end:
                print(f"   {what}: not within {timeout_s:.0f} s", flush=True)
                raise
            time.sleep(2)
