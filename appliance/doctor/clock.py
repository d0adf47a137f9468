"""Whether this machine's clock is set by somebody who knows the time."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.doctor.commands import CommandError
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host

TOLERATED_S = 120  # a message that is more off is refused
NOTICED_S = 5
_TOPIC = "clock"
_REMEDY = "timedatectl set-ntp true; name the hospital's time server as NTP= in /etc/systemd/timesyncd.conf"


def check(host: Host) -> Iterator[Finding]:
    """What systemd says of the time service."""
    try:
        said = host.run("timedatectl", "show", "--property=NTP", "--property=NTPSynchronized")
    except CommandError as error:
        yield Finding(_TOPIC, "time service", State.UNKNOWN, f"systemd was not to be asked: {error.text}")
        return
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if facts.get("NTPSynchronized") == "yes":
        yield Finding(_TOPIC, "time service", State.OK, "the clock is set by NTP")
    elif facts.get("NTP") == "yes":
        yield Finding(_TOPIC, "time service", State.WEAKER, "it runs, and has not heard a time server yet", _REMEDY)
    else:
        because = "none sets this clock (a virtual machine's host may)"
        yield Finding(_TOPIC, "time service", State.WEAKER, because, _REMEDY)


def against_hub(offset_s: float) -> Finding:
    """How far this clock is from the hub's.

    Args:
        offset_s: The hub's time less ours; known to a second.
    """
    name = "against the hub"
    if abs(offset_s) <= NOTICED_S:
        return Finding(_TOPIC, name, State.OK, f"differs by {abs(offset_s):.0f} s")
    because = f"is {abs(offset_s):.0f} s {'behind' if offset_s > 0 else 'ahead of'} the hub's"
    if abs(offset_s) <= TOLERATED_S:
        return Finding(_TOPIC, name, State.WEAKER, because, _REMEDY)
    return Finding(
        _TOPIC, name, State.FAILED, f"{because}; messages more than {TOLERATED_S} s off are refused", _REMEDY
    )
