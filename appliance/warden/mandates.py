"""In whose name a round is asked for: the researcher in person, or a federator within the researcher's mandate.

The rules, in their order; each refuses by itself:

1. A researcher asks in person, and brings no mandate. A federator brings one.
2. The mandate is in the present signature of an active researcher (``appliance.protocol.mandate``).
3. It is for this federator, by id and key.
4. It is in force: issued, not expired, and not withdrawn by a Stop of that researcher.
5. The request is within it: experiment, plan, this node and its dataset, round, and every argument.
6. It is not used up: no more requests were accepted here under it than it has rounds.

Whatever else counts at this node (permission, approval, ranges, kept tensors) counts for the researcher.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import JsonValue

from appliance.protocol.envelope import CLOCK_LEEWAY_S, Envelope
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.keys import thumbprint
from appliance.protocol.mandate import Mandate, open_mandate
from appliance.protocol.messages import Train
from appliance.protocol.register import Register, Role
from appliance.transport.sqlite import Statement
from appliance.warden.policy import describe, is_inside, lookup
from appliance.warden.store import rounds, withdrawals

_USED = Statement(
    sa.select(sa.func.count().label("requests")).where(
        rounds.c.mandate_id == sa.bindparam("mandate"), rounds.c.researcher == sa.bindparam("researcher")
    )
)
_WITHDRAWN = Statement(
    sa.select(withdrawals.c.until).where(
        withdrawals.c.researcher == sa.bindparam("researcher"),
        withdrawals.c.experiment_id == sa.bindparam("experiment"),
    )
)


class MandateRefusedError(FedWardError):
    """A federator asked for what the researcher's mandate does not cover."""

    code = Code.MANDATE_EXCEEDED


@dataclass(frozen=True)
class Asker:
    """In whose name a round is asked for.

    Attributes:
        researcher: Whose permissions, approvals and records count.
        federator: Who asked, and gets the answers; None: the researcher in person.
        mandate: Under which.
    """

    researcher: str
    federator: str | None = None
    mandate: Mandate | None = None


def require_asker(
    connection: sa.Connection, register: Register, envelope: Envelope, request: Train, *, node: str
) -> Asker:
    """In whose name ``request`` is made; the rules stand at the top of this file.

    Args:
        connection: The transaction that accepts the round, so that no two take the mandate's last one.
        register: The membership register in force.
        envelope: The request's, already checked.
        request: What it asks.
        node: Our own member id.

    Raises:
        FedWardError: With the code of the first rule that refuses.
    """
    # (1) In person or by mandate.
    sender = register.require(envelope.sender)
    if sender.role is Role.RESEARCHER:
        if request.mandate is not None:
            raise MandateRefusedError("A mandate is a federator's to bring.", code=Code.MANDATE_INVALID)
        return Asker(sender.id)
    if request.mandate is None:
        raise MandateRefusedError(f"'{sender.id}' came without a researcher's mandate.", code=Code.MANDATE_INVALID)
    # (2) Believe it.
    researcher, mandate = open_mandate(request.mandate, register)
    rule = f"mandate {mandate.id} by {researcher.id}"
    # (3) For this federator.
    if (mandate.federator, mandate.federator_key) != (sender.id, thumbprint(sender.identity)):
        raise MandateRefusedError(
            f"The mandate is for another federator or another key than '{sender.id}'.",
            code=Code.MANDATE_INVALID,
            rule=rule,
        )
    # (4) In force.
    _require_in_force(connection, mandate, researcher.id, rule)
    # (5) Within it.
    fault = _beyond(mandate, request, node)
    if fault is not None:
        raise MandateRefusedError(f"The mandate does not cover {fault}.", rule=rule)
    # (6) Not used up.
    used = _USED.first(connection, mandate=mandate.id, researcher=researcher.id)
    if used is not None and used["requests"] >= mandate.requests:
        raise MandateRefusedError(f"The mandate's {mandate.requests} rounds are used up at this node.", rule=rule)
    return Asker(researcher.id, sender.id, mandate)


def withdraw(connection: sa.Connection, researcher: str, experiment_id: str, until: int) -> None:
    """Void the mandates for an experiment that the researcher issued until a moment, in the caller's transaction."""
    known = _WITHDRAWN.first(connection, researcher=researcher, experiment=experiment_id)
    values = {"researcher": researcher, "experiment_id": experiment_id}
    connection.execute(
        withdrawals.insert()
        .prefix_with("OR REPLACE")
        .values(**values, until=max(until, known["until"] if known else 0))
    )


def _require_in_force(connection: sa.Connection, mandate: Mandate, researcher: str, rule: str) -> None:
    now = time.time()
    if mandate.issued_at > now + CLOCK_LEEWAY_S:
        raise MandateRefusedError("The mandate is not in force yet, by our clock.", code=Code.CLOCK_WRONG, rule=rule)
    if mandate.expires_at < now:
        raise MandateRefusedError(
            f"The mandate expired {now - mandate.expires_at:.0f} s ago.", code=Code.MANDATE_EXPIRED, rule=rule
        )
    withdrawn = _WITHDRAWN.first(connection, researcher=researcher, experiment=mandate.experiment_id)
    if withdrawn is not None and mandate.issued_at <= withdrawn["until"]:
        raise MandateRefusedError(
            f"'{researcher}' stopped the experiment after giving the mandate.", code=Code.MANDATE_WITHDRAWN, rule=rule
        )


def _beyond(mandate: Mandate, request: Train, node: str) -> str | None:
    """What of a request its mandate does not cover, in words; None when it covers all."""
    is_covered = {
        "this experiment": request.experiment_id == mandate.experiment_id,
        "this training plan": (request.plan_sha256, request.plan_class) == (mandate.plan_sha256, mandate.plan_class),
        "this dataset at this node": mandate.datasets.get(node) == request.dataset_id,
        f"round {request.round}": mandate.first_round <= request.round <= mandate.last_round,
        "a test without training": request.train,
        "these model arguments": _text(request.model_args) == _text(mandate.model_args),
        "these arguments of the aggregator": _text(request.aggregator_args) == _text(mandate.aggregator_args),
        "terms of protection": (request.secagg, request.privacy) == (None, None),  # it has no word for them yet
    }
    fault = next((what for what, is_so in is_covered.items() if not is_so), None)
    return fault or _other_argument(request.training_args, mandate)


def _other_argument(asked: Mapping[str, JsonValue], mandate: Mandate) -> str | None:
    for allowed in mandate.ranges:
        if not is_inside(lookup(asked, allowed.name), allowed):
            return f"this value of '{allowed.name}'; it says {describe(allowed)}"
    names = [allowed.name for allowed in mandate.ranges]
    fixed, given = _without(asked, names), _without(mandate.training_args, names)
    differing = sorted(name for name in {*fixed, *given} if _text(fixed.get(name)) != _text(given.get(name)))
    return f"this value of '{differing[0]}'" if differing else None


def _without(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Arguments without those of dotted names."""
    left = json.loads(_text(arguments))
    for name in names:
        *parents, last = name.split(".")
        place = left
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    return dict(left)


def _text(value: Any) -> str:
    """JSON by which two values are the same or not: to Python, true is 1, and 1 is 1.0."""
    return json.dumps(value, sort_keys=True)
