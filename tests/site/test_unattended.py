"""An experiment in the federator's hands, while its researcher's machine is off and the federator's reboots."""

from __future__ import annotations

from tests.site import hosts
from tests.site.people import in_kit, until
from tests.site.stage import FEDERATOR, HOSPITALS, RESEARCHER, container, on

ROUNDS = 60
JOBS = "/var/lib/fedward/federator/jobs"


def test_an_experiment_ends_without_its_researcher_and_over_a_reboot() -> None:
    """Submitted through the VPN from the researcher's host, whose kit is then stopped; found again when it is back."""
    job = in_kit("submit", str(ROUNDS))["job"]
    on(RESEARCHER, "docker", "stop", "--time=5", "fedward-kit")
    try:
        until("the first round", lambda: on(FEDERATOR, "sh", "-c", f"ls {JOBS}/{job}/experiment/breakpoint_*/*.json"))
        hosts.reboot(container(FEDERATOR))
        assert on(FEDERATOR, "sh", "-c", f"ls {JOBS}/{job}/ended 2>/dev/null || true") == "", "it was over before"
    finally:
        on(RESEARCHER, "docker", "start", "fedward-kit")
    result = in_kit("attach", job)

    assert (result["state"], result["rounds"], result["nodes"]) == ("done", ROUNDS, sorted(HOSPITALS))
