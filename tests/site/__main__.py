"""``make site``: a consortium on systemd test hosts of this machine, from nothing to a model trained through the VPN.

    python -m tests.site up         images, hosts, deployment, training; the same again; a reboot; the checks
    python -m tests.site down       take all of it away again

The first run deploys on bare machines. The second must change nothing. Then hub and nodes reboot with nothing typed,
and training must work again. Times, and what held, go to site-results.json. Images and wheels are kept in
artifacts/, all else in site-run/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.site import hosts
from tests.site.people import ask_and_approve, in_kit, register_data, until
from tests.site.stage import (
    ADDRESSES,
    ARTIFACTS,
    HOSPITALS,
    HOSTS,
    HUB,
    ROOT,
    RUN,
    SiteError,
    boot,
    build,
    container,
    playbook,
)

RESULTS = ROOT / "site-results.json"
ROUNDS = 20
NO_HURRY = ("-o", "timeout=1800", "-o", "faulthandler_timeout=2000")  # a check may hold a whole deployment


@contextmanager
def part(times: dict[str, float], name: str, what: str) -> Iterator[None]:
    """One part of the run, with its time."""
    print(f"== {what}", flush=True)
    start = time.monotonic()
    try:
        yield
    finally:
        times[name] = round(time.monotonic() - start, 1)
        print(f"   {times[name]} s", flush=True)


def reboot() -> None:
    """Hub and nodes reboot, with nothing typed on them."""
    names = [container(name) for name in (HUB, *HOSPITALS)]
    subprocess.run(["docker", "restart", *names], check=True, timeout=300, stdout=subprocess.DEVNULL)
    for name in names:
        hosts.wait_until_running(name)


def up(*, keep_images: bool) -> int:
    """Everything; returns the exit status."""
    down()  # what an earlier run left
    RUN.mkdir()
    times: dict[str, float] = {}
    results: dict[str, Any] = {"checks": {}}
    start = time.monotonic()
    try:
        if not (keep_images and (ARTIFACTS / "images.lock").exists()):
            with part(times, "images", "Building images and wheels"):
                build()
        with part(times, "hosts", "Booting six bare machines"):
            for name in HOSTS:
                boot(name)
        with part(times, "deployment", "The playbook, on bare machines"):
            playbook(log="first")
        with part(times, "data", "Hospitals register data; the researcher asks; reviewers approve"):
            until("data", register_data)
            until("approval", ask_and_approve)
        with part(times, "training", f"Training {ROUNDS} rounds through the VPN"):
            results["training"] = in_kit("train", str(ROUNDS))
        print(f"   {results['training']}")
        results["first_run_s"] = round(time.monotonic() - start, 1)
        with part(times, "second", "The playbook again"):
            results["second_run_changed"] = playbook(log="second")
        results["second_run_s"] = times["second"]
        print(f"   changed: {results['second_run_changed']}")
        with part(times, "reboot", "Hub and nodes reboot; training again"):
            reboot()
            results["training_after_reboot"] = until("training after the reboot", lambda: in_kit("train", "3"))
        results["after_reboot_s"] = times["reboot"]
        with part(times, "checks", "The checks"):
            results["checks"] = checks()
    except (SiteError, hosts.TestHostError, subprocess.CalledProcessError) as error:
        print(f"\n{error}", file=sys.stderr)
        results["checks"]["everything ran"] = False
    results["times"] = times
    results["checks"]["second run changed nothing"] = not any(results.get("second_run_changed", {"-": 1}).values())
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0 if all(results["checks"].values()) else 1


def checks() -> dict[str, bool]:
    """The checks on the live site, by name."""
    report = RUN / "checks.json"
    report.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=12", *NO_HURRY]
    subprocess.run([*pytest, "tests/site", f"--site-report={report}"], cwd=ROOT, check=False)
    return json.loads(report.read_text())


def down() -> int:
    """Take the hosts away, and what the run wrote."""
    hosts.remove([container(name) for name in ADDRESSES])
    shutil.rmtree(RUN, ignore_errors=True)
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.site", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--keep-images", action="store_true", help="use the images of the last run")
    given = parser.parse_args()
    return up(keep_images=given.keep_images) if given.command == "up" else down()


if __name__ == "__main__":
    sys.exit(main())
