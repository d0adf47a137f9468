"""Takes each defence out of the code, runs the test that claims to hold it, and expects it to fail.

    python -m tests.defences [PART OF A NAME]

A test that passes without the defence it names holds nothing. The list is ``defences.toml``; one line is printed for
each: what was taken out, which test, and how it failed. It edits the tree in place and puts it back: run it in a clean
one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LIMIT_S = 600


@dataclass(frozen=True)
class Defence:
    """A place in the code, and what holds it.

    Attributes:
        file: Where it is.
        text: The defence, word for word; stands there once.
        without: What stands there when it is taken out.
        test: Which test must fail then (pytest's node id).
    """

    name: str
    file: str
    text: str
    without: str
    test: str


def read_defences() -> list[Defence]:
    """The list."""
    tables = tomllib.loads(Path(__file__).with_name("defences.toml").read_text())["defence"]
    return [Defence(**table) for table in tables]


@contextmanager
def taken_out(defence: Defence) -> Iterator[None]:
    """The tree without a defence."""
    file = ROOT / defence.file
    whole = file.read_text()
    if whole.count(defence.text) != 1:
        raise SystemExit(f"{defence.name}: its text does not stand once in {defence.file}.")
    try:
        file.write_text(whole.replace(defence.text, defence.without))
        yield
    finally:
        file.write_text(whole)


def failure(defence: Defence) -> str:
    """How the test failed without the defence; an empty text when it did not."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", defence.test]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    with taken_out(defence):
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return ""  # a hung test says nothing
    if done.returncode != 1 or "Failed: Timeout" in done.stdout:
        return ""
    reasons = re.findall(r"^E +(\S.*)$", done.stdout, re.MULTILINE)
    return reasons[0][:120] if reasons else "failed"


def main(part: str) -> int:
    """Try all defences whose name holds ``part``; 1 when some test did not miss its defence."""
    unmissed = 0
    for defence in read_defences():
        if part in defence.name:
            how = failure(defence)
            unmissed += not how
            print(f"{'missed' if how else 'NOT MISSED'} | {defence.name} | {defence.test} | {how}", flush=True)
    return min(unmissed, 1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was taken out is put back
    sys.exit(main(" ".join(sys.argv[1:])))
