"""The membership register: who is a member, with which role and keys, in the operator's signature.

It is the consortium's root of identity. Every member pins the operator's public key when it joins and
from then on believes nobody else about who is who; certificates only open lines.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from appliance.protocol.errors import Code, ConfigurationError, MessageRefusedError
from appliance.protocol.jose import NotSignedError, read_jws, sign_text
from appliance.protocol.keys import MemberKeys, PublicKeys, thumbprint

REGISTER_TYPE = "fedward-register+jws"
CONSORTIUM = "consortium"  # the address of broadcasts, so no member may have it

MemberId = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
KeyText = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]


class Role(StrEnum):
    """What a member is."""

    NODE = "node"
    RESEARCHER = "researcher"
    FEDERATOR = "federator"
    NETWORK = "network"
    OPERATOR = "operator"


class MemberState(StrEnum):
    """Whether the member may act: only an active one may."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class Member(BaseModel):
    """One line of the register."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: MemberId
    role: Role
    institution: str = Field(min_length=1, max_length=200)
    contact: str = Field(min_length=1, max_length=200)
    identity: KeyText
    sealing: KeyText
    state: MemberState = MemberState.ACTIVE

    @property
    def kid(self) -> str:
        """``<member id>:<RFC 7638 thumbprint>``: a rotated key keeps the id, and all that hangs on it."""
        return key_id(self.id, self.identity)

    @property
    def keys(self) -> PublicKeys:
        """The member's two public keys."""
        return PublicKeys(self.identity, self.sealing)


class Register(BaseModel):
    """All members at one moment; a higher version replaces a lower one, never the other way round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consortium: str = Field(min_length=1, max_length=200)
    version: int = Field(ge=1)
    issued_at: int
    members: tuple[Member, ...]

    @model_validator(mode="after")
    def _unique(self) -> Register:
        ids = [member.id for member in self.members]
        if len(set(ids)) != len(ids):
            raise ValueError("two members share an id")
        if CONSORTIUM in ids:
            raise ValueError(f"the id '{CONSORTIUM}' is reserved")
        if len({member.identity for member in self.members}) != len(ids):
            raise ValueError("two members share an identity key")
        return self

    def find(self, member_id: str) -> Member | None:
        """The member of that id, active or not."""
        return next((member for member in self.members if member.id == member_id), None)

    def require(self, member_id: str) -> Member:
        """The active member of that id.

        Raises:
            MessageRefusedError: No such member, or not active.
        """
        member = self.find(member_id)
        if member is None:
            raise MessageRefusedError(
                f"'{member_id}' is not in the membership register (version {self.version}).", code=Code.SENDER_UNKNOWN
            )
        if member.state is not MemberState.ACTIVE:
            raise MessageRefusedError(
                f"'{member_id}' is {member.state} in the membership register.", code=Code.SENDER_UNKNOWN
            )
        return member

    def is_active(self, member_id: str) -> bool:
        """Whether there is an active member of that id."""
        member = self.find(member_id)
        return member is not None and member.state is MemberState.ACTIVE

    def by_kid(self, kid: str) -> Member:
        """The active member whose current key ``kid`` names; raises as ``require`` does."""
        member = self.require(kid.partition(":")[0])
        if member.kid != kid:
            raise MessageRefusedError(
                f"'{member.id}' signed with a key that the register does not list.", code=Code.SENDER_UNKNOWN
            )
        return member

    def with_role(self, *roles: Role) -> tuple[Member, ...]:
        """The active members of these roles, by id."""
        chosen = (m for m in self.members if m.role in roles and m.state is MemberState.ACTIVE)
        return tuple(sorted(chosen, key=lambda member: member.id))

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical text, for comparison out of band."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def key_id(member_id: str, identity: str) -> str:
    """The ``kid`` of a member's signatures."""
    return f"{member_id}:{thumbprint(identity)}"


def sign_register(register: Register, operator: MemberKeys) -> str:
    """The register as the operator publishes it (JWS compact serialisation, RFC 7515)."""
    kid = thumbprint(operator.public.identity)
    return sign_text(register.model_dump_json(), operator, typ=REGISTER_TYPE, kid=kid)


def open_register(text: str, operator_identity: str, *, newer_than: int = 0) -> Register:
    """Check and read a signed register.

    Args:
        text: What ``sign_register`` made.
        operator_identity: The operator's Ed25519 public key as pinned at joining (base64url).
        newer_than: The version already held; an older one is refused, for a thief could bring back a revoked member.

    Raises:
        ConfigurationError: Not signed by the operator, not well-formed, or older than the one held.
    """
    try:
        jws = read_jws(text.strip())
        payload = jws.payload_by(operator_identity)
    except NotSignedError as error:
        raise ConfigurationError("The membership register is not signed by the pinned operator key.") from error
    if jws.header.get("typ") != REGISTER_TYPE:
        raise ConfigurationError("The membership register has another document's type.")
    try:
        register = Register.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the register"
        raise ConfigurationError(f"The membership register is signed, but {where}: {first['msg']}.") from error
    if register.version < newer_than:
        raise ConfigurationError(f"The membership register is version {register.version}; {newer_than} is known.")
    return register
