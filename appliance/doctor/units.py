"""Services of ours that failed."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host, Kind

_OURS = ("fedward-*", "wg-quick@*", "docker.service")
_AT_THE_HUB = ("nginx.service", "mosquitto.service")


def check(host: Host) -> Iterator[Finding]:
    """What systemd lists as failed, among what FedWard needs."""
    if not host.is_site:
        return
    patterns = (*_OURS, *(_AT_THE_HUB if host.kind is Kind.HUB else ()))
    said = host.run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", *patterns)
    failed = [line.split()[0] for line in said.splitlines() if line.split()]
    for unit in failed:
        remedy = f"journalctl -u {unit} -n 50; then: systemctl restart {unit}"
        yield Finding("units", unit, State.FAILED, "failed", remedy)
    if not failed:
        yield Finding("units", "", State.OK, "none failed")
