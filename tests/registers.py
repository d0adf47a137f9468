"""A membership register of people who exist in a test only."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Member, MemberState, Register, Role


def register_of(
    keys: Mapping[str, MemberKeys],
    roles: Mapping[str, Role],
    *,
    version: int = 1,
    issued_at: int,
    states: Mapping[str, str] | None = None,
) -> Register:
    """Everybody in ``roles`` with a line, active unless ``states`` says otherwise."""
    members = tuple(
        Member(
            id=name,
            role=role,
            institution=f"{name} hospital",
            contact=f"{name}@example.org",
            identity=keys[name].public.identity,
            sealing=keys[name].public.sealing,
            state=MemberState((states or {}).get(name, MemberState.ACTIVE)),
        )
        for name, role in roles.items()
    )
    return Register(consortium="test", version=version, issued_at=issued_at, members=members)
