"""The people in the tests: two honest hospitals, a researcher, a member who lies, and whom they all believe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings

from appliance.protocol.envelope import Clock, Signer
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import MemberState, Register, Role
from tests.registers import register_of

# A suite is no lottery: it tries the same cases each time. ``make fuzz`` looks for new ones.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("FEDWARD_HYPOTHESIS", "suite"))

UMASK = os.umask(0o022)
os.umask(UMASK)
NOW = 1_770_000_000
ROLES = {
    "north": Role.NODE,
    "south": Role.NODE,
    "alice": Role.RESEARCHER,
    "mallory": Role.RESEARCHER,
    "fed": Role.FEDERATOR,
    "rival": Role.FEDERATOR,
    "network": Role.NETWORK,
    "operator": Role.OPERATOR,
}


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """Commands that run inside a test's process close it to others, as they should; the next test begins afresh."""
    os.umask(UMASK)
    yield
    os.umask(UMASK)


@dataclass(frozen=True)
class Members:
    """Everybody's keys, and the register that lists them."""

    keys: dict[str, MemberKeys]
    register: Register
    operator: MemberKeys = field(default_factory=MemberKeys.generate)

    def signer(self, name: str, clock: Clock = lambda: NOW) -> Signer:
        """Writes in the name of ``name``, at ``NOW`` unless told otherwise."""
        return Signer(name, self.keys[name], clock)

    def with_changed(self, name: str, **changes: object) -> Members:
        """The same consortium after the operator changed one member's line."""
        lines = tuple(m.model_copy(update=changes) if m.id == name else m for m in self.register.members)
        register = self.register.model_copy(update={"members": lines, "version": self.register.version + 1})
        return replace(self, register=register)

    def without(self, name: str) -> Members:
        """The same consortium with ``name`` struck from the register."""
        lines = tuple(member for member in self.register.members if member.id != name)
        return replace(self, register=self.register.model_copy(update={"members": lines}))

    def with_state(self, name: str, state: MemberState) -> Members:
        """The same consortium with ``name`` suspended or revoked."""
        return self.with_changed(name, state=state)


def make_members() -> Members:
    """A consortium with fresh keys."""
    keys = {name: MemberKeys.generate() for name in ROLES}
    register = register_of(keys, ROLES, issued_at=NOW)
    return Members(keys, register, keys["operator"])


@pytest.fixture(scope="session")
def members() -> Members:
    """Nobody changes it: ``with_changed`` and its kin give a changed copy."""
    return make_members()
