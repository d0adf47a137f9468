"""Whether this host's packet filter is in force."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.doctor.commands import CommandError
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host

_TABLE = ("inet", "fedward")


def check(host: Host) -> Iterator[Finding]:
    """Our one table; what else is filtered here is the hospital's own."""
    if not host.is_site:
        return
    try:
        host.run("nft", "list", "table", *_TABLE)
    except CommandError as error:
        if error.is_refused:
            raise
        because = f"the table '{' '.join(_TABLE)}' is not loaded: {error.text}"
        yield Finding("firewall", "", State.FAILED, because, "systemctl restart fedward-firewall.service")
    else:
        yield Finding("firewall", "", State.OK, f"the table '{' '.join(_TABLE)}' is loaded")
