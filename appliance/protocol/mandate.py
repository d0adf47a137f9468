"""A researcher's mandate: what a federator may ask of which hospitals in the researcher's name, and for how long.

It is a statement in the researcher's own signature, and lies in each request that the federator sends. A node believes
nothing else: what the mandate does not say, the federator may not do, whoever the federator is and whatever it became.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from appliance.protocol.envelope import Signer, open_statement
from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.jose import write_json
from appliance.protocol.messages import ArgumentRange, Count, Identifier, Ordinal, Sha256
from appliance.protocol.register import Member, MemberId, Register, Role

MANDATE_TYPE = "fedward-mandate+jws"
MAX_MANDATE_CHARS = 64 << 10
MAX_MANDATE_S = 90 * 86_400  # whoever needs longer gives another


class MandateError(FedWardError):
    """A mandate that cannot be believed: no statement of an active researcher's, or altered."""

    code = Code.MANDATE_INVALID


class Mandate(BaseModel):
    """One experiment, in a federator's hands.

    Attributes:
        id: The job's id; nodes count the rounds that were asked for under it.
        federator: Who may act upon it.
        federator_key: The RFC 7638 thumbprint of that member's identity key.
        datasets: At which nodes, and on which dataset of each.
        first_round: The first round that may be asked for.
        last_round: The last one. No node takes more requests than there are rounds between the two, both included.
        training_args: Exactly these, but for what ``ranges`` name.
        ranges: The training arguments that change from round to round, and within which bounds.
        issued_at: Seconds since the epoch, as for ``expires_at``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Identifier
    federator: MemberId
    federator_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    experiment_id: Identifier
    plan_sha256: Sha256
    plan_class: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    datasets: dict[MemberId, Identifier] = Field(min_length=1)
    first_round: Ordinal
    last_round: Ordinal
    model_args: dict[str, JsonValue] = {}
    training_args: dict[str, JsonValue] = {}
    aggregator_args: dict[str, JsonValue] = {}
    ranges: tuple[ArgumentRange, ...] = ()
    issued_at: Count
    expires_at: Count

    @model_validator(mode="after")
    def _is_possible(self) -> Mandate:
        if self.first_round > self.last_round:
            raise ValueError(f"round {self.first_round} lies behind the last round, {self.last_round}")
        if not 0 < self.expires_at - self.issued_at <= MAX_MANDATE_S:
            raise ValueError(f"it would last {self.expires_at - self.issued_at} s; at most {MAX_MANDATE_S} are allowed")
        return self

    @property
    def requests(self) -> int:
        """How many requests a node takes under it."""
        return self.last_round - self.first_round + 1

    def sign(self, signer: Signer) -> str:
        """The mandate in the researcher's signature (JWS).

        Raises:
            MandateError: It is longer than nodes take.
        """
        text = signer.sign_statement(MANDATE_TYPE, self.model_dump(mode="json"))
        if len(text) > MAX_MANDATE_CHARS:
            raise MandateError(
                f"The mandate has {len(text)} characters; {MAX_MANDATE_CHARS} are allowed.",
                remedy="Give shorter model or training arguments, or fewer nodes: the mandate names them all.",
            )
        return text


def open_mandate(text: str, register: Register) -> tuple[Member, Mandate]:
    """The researcher who gave a mandate, and what it says.

    Raises:
        MandateError: Not in the signature of an active researcher, or not well-formed.
    """
    if len(text) > MAX_MANDATE_CHARS:
        raise MandateError(f"The mandate has {len(text)} characters; {MAX_MANDATE_CHARS} are allowed.")
    try:
        researcher, claims = open_statement(text, MANDATE_TYPE, register)
    except MessageRefusedError as error:
        raise MandateError(f"The mandate cannot be believed. {error.message}") from error
    if researcher.role is not Role.RESEARCHER:
        raise MandateError(f"'{researcher.id}' is a {researcher.role}; only a researcher gives a mandate.")
    try:
        return researcher, Mandate.model_validate_json(write_json(claims))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise MandateError(
            f"The mandate of '{researcher.id}' is malformed: {where.encode('unicode_escape').decode()[:100]}."
        ) from error
