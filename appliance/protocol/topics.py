"""Topic names: ``to/<member>/from/<member>/<kind>``.

The broker's access list lets a member read what is addressed to it and write what is from it, by the name in
its certificate. Presence is addressed to the whole consortium.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.register import CONSORTIUM

_TOPIC = re.compile(r"to/([a-z0-9-]{1,63})/from/([a-z0-9-]{1,63})/([a-z-]{1,32})")


@dataclass(frozen=True)
class Topic:
    """Where a message travels."""

    to: str
    sender: str
    kind: str

    def __str__(self) -> str:
        return f"to/{self.to}/from/{self.sender}/{self.kind}"


def parse_topic(text: str) -> Topic:
    """Raises MessageRefusedError when ``text`` is none of our topics."""
    match = _TOPIC.fullmatch(text)
    if match is None:
        raise MessageRefusedError("The topic is not of the form to/MEMBER/from/MEMBER/KIND.")
    return Topic(*match.groups())


def inbox_filter(member_id: str) -> str:
    """What a member subscribes to."""
    return f"to/{member_id}/from/+/+"


def presence_filter() -> str:
    """Heartbeats and last wills of everybody."""
    return f"to/{CONSORTIUM}/from/+/+"


def last_will_topic(member_id: str) -> str:
    """Where the broker says that a line broke: unsigned, so a hint and no more."""
    return str(Topic(CONSORTIUM, member_id, "last-will"))


def require_route(topic: Topic, *, to: str, sender: str, kind: str) -> None:
    """The signed message must say what its topic says; raises MessageRefusedError otherwise."""
    if (topic.to, topic.sender, topic.kind) != (to, sender, kind):
        raise MessageRefusedError(
            f"A message for '{to}' from '{sender}' ({kind}) arrived on {topic}.", code=Code.MESSAGE_MISADDRESSED
        )
