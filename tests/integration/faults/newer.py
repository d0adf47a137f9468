"""A release of the next minor version, as far as its messages show it."""

from __future__ import annotations

from typing import Any

from appliance.protocol import envelope, messages
from appliance.protocol.messages import Train, TrainReply

CRITICAL, UNCRITICAL = "critical", "uncritical"


def speak_newer(mark: str) -> None:
    """From now on this process writes a newer minor: a claim and a field more in each message, on rounds ``mark``."""
    messages.MINOR += 1
    envelope.VERSION = messages.VERSION = f"{messages.MAJOR}.{messages.MINOR}"
    serialize = envelope.Signer._serialize

    def serialize_newer(signer: envelope.Signer, typ: str, claims: dict[str, Any]) -> str:
        if typ == envelope.MESSAGE_TYPE:
            claims |= {"novelty": 1, "body": claims["body"] | {"weighting": {"by": "age"}}}
            if mark == CRITICAL and claims["kind"] in (Train.kind, TrainReply.kind):
                claims["crit"] = ["weighting"]
        return serialize(signer, typ, claims)

    envelope.Signer._serialize = serialize_newer  # type: ignore[method-assign]
