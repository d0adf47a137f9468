"""Runs the suites one after another, says how long each took, and ends with one table.

    python tests/run_suites.py [SUITE…]

The exit code is 0 only if nothing failed. What this machine cannot run is named with its reason, never passed over.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CHROMIUM = Path("/usr/bin/chromium")
MAX_REASON = 400  # characters of a failure in the closing list; the whole of it stands where it happened
MAX_TRACEBACK = 3000  # characters
LIMIT_S = {"lint": 600, "unit": 900, "integration": 1800, "adversarial": 900, "browser": 900, "docs": 300}
# Tests that mostly wait for servers and processes run three at a time. The adversarial suite's limits count a user's
# processes, and the browser's one server is the whole suite's: these run alone.
TOGETHER = {suite: ["-n", "3", "--dist", "worksteal"] for suite in ("unit", "integration")}


@dataclass
class Result:
    """What a suite came to; a suite that did not run says why."""

    passed: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    not_run: str = ""

    def row(self, name: str, seconds: float) -> str:
        """A line of the closing table."""
        if self.not_run:
            return f"{name:<12} not run: {self.not_run}"
        return f"{name:<12} {self.passed:>6} {self.failed:>6} {len(self.skipped):>7} {seconds:>8.1f} s"


def run(command: list[str], limit_s: float) -> int:
    """The exit code of a tool of our virtual environment, or 124 when it took too long."""
    print("$", " ".join(command), flush=True)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # some start others by name
    with subprocess.Popen([str(BIN / command[0]), *command[1:]], cwd=ROOT, env=os.environ | {"PATH": path}) as process:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # Python says where its threads were
            print(f"{command[0]} was stopped after {limit_s:.0f} s", flush=True)
            return 124


def checks(*commands: list[str], limit_s: float) -> Result:
    """One test for each command: its exit code is the verdict."""
    codes = [run(command, limit_s) for command in commands]
    return Result(passed=codes.count(0), failed=len(codes) - codes.count(0))


def lint() -> Result:
    """Style, types, which room may import which, and Ansible's own rules for production."""
    return checks(
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
        ["ansible-lint", "-q"],
        limit_s=LIMIT_S["lint"],
    )


def docs() -> Result:
    """The documentation builds, and no reference in it is broken."""
    return checks(["sphinx-build", "-q", "-W", "-n", "docs", "docs/_build/html"], limit_s=LIMIT_S["docs"])


def tests(suite: str) -> Result:
    """The pytest suite in ``tests/<suite>``."""
    folder = ROOT / "tests" / suite
    if not any(folder.rglob("test_*.py")):
        return Result(not_run=f"there are no tests in tests/{suite} yet")
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        code = run(["pytest", "-q", *TOGETHER.get(suite, []), f"tests/{suite}", f"--junitxml={report}"], LIMIT_S[suite])
        result = read_report(report) if report.exists() else Result()
    if code != 0 and result.failed == 0:
        result.failed = 1  # it crashed, or ran out of time, before it could count
    return result


def browser() -> Result:
    """The GUI in a real browser."""
    if not CHROMIUM.exists():
        return Result(not_run=f"there is no {CHROMIUM} (Debian: apt install chromium)")
    return tests("browser")


def read_report(report: Path) -> Result:
    """Counts and reasons from pytest's JUnit file."""
    result = Result()
    for case in ET.parse(report).getroot().iter("testcase"):
        skip = case.find("skipped")
        failure = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        if skip is not None:
            result.skipped += (f"{case.get('name')}: {skip.get('message')}",)
        elif failure is not None:
            result.failed += 1
            result.failures += (f"{case.get('classname')}::{case.get('name')}: {reason(failure)}",)
        elif case.get("name"):  # one without was never finished
            result.passed += 1
    return result


def reason(failure: ET.Element) -> str:
    """What a failure says of itself; of an error of pytest's own, which has no message, the end of its traceback."""
    message = " ".join((failure.get("message") or "").split())
    if message == "internal error":
        return f"{message}: {(failure.text or '')[-MAX_TRACEBACK:]}"
    return message[:MAX_REASON]


SUITES: dict[str, Callable[[], Result]] = {
    "lint": lint,
    "unit": lambda: tests("unit"),
    "integration": lambda: tests("integration"),
    "adversarial": lambda: tests("adversarial"),
    "browser": browser,
    "docs": docs,
}


def main(names: list[str]) -> int:
    """Run the suites named, or all of them."""
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"Unknown suite {unknown[0]!r}; there are: {', '.join(SUITES)}.")
        return 2
    rows, results = [], []
    for name in names or list(SUITES):
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        result = SUITES[name]()
        seconds = time.monotonic() - start
        print(f"== {name}: {seconds:.1f} s", flush=True)
        results.append(result)
        rows.append(result.row(name, seconds))
    skipped = [reason for result in results for reason in result.skipped]
    print("\nsuite        passed failed skipped     time", *rows, sep="\n")
    print(*(f"not run: {reason}" for reason in skipped), sep="\n")
    print(*(f"failed: {failure}" for result in results for failure in result.failures), sep="\n")
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"{passed} passed, {failed} failed" + (f", {len(skipped)} skipped" if skipped else ""), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
