"""The operator's book of members: changes are noted first, then issued together as the register's next version.

Only public keys are ever written here. A revoked member stays revoked: a new enrolment needs a new id, so that
what the old one did stays apart from what the new one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from appliance.enrolment.errors import EnrolmentError
from appliance.protocol.files import replace_file
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Member, MemberState, Register, Role, open_register, sign_register

# Whom all others hang on, and what to do instead of ending that.
_KEYSTONES = {
    Role.OPERATOR: "Restore the operator's keys from their backup; if others have them, set the consortium up anew.",
    Role.NETWORK: "A hub that was lost or broken into gets new keys with 'fedward member rotate'.",
}


class RegisterBook:
    """Edits the register at ``path`` with the operator's key.

    Args:
        path: Where the issued register stands, or will.
        operator: The operator's keys; the signature is the operator's alone.
        consortium: The consortium's name.
        clock: Seconds since the epoch.

    Raises:
        ConfigurationError: The register at ``path`` is not signed by this operator.
        EnrolmentError: It is another consortium's.
    """

    def __init__(
        self, path: Path, operator: MemberKeys, *, consortium: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._operator = operator
        self._consortium = consortium
        self._clock = clock
        self._issued = open_register(path.read_text(), self.operator_identity) if path.exists() else None
        if self._issued is not None and self._issued.consortium != consortium:
            raise EnrolmentError(
                f"{path} is the register of '{self._issued.consortium}', not of '{consortium}'.",
                remedy="Choose another folder, or keep the consortium's name.",
            )
        self._members = {member.id: member for member in (self._issued.members if self._issued else ())}

    @property
    def operator_identity(self) -> str:
        """The operator's public identity key, which every member pins at joining."""
        return self._operator.public.identity

    @property
    def register(self) -> Register:
        """What was issued last; raises EnrolmentError if nothing was."""
        if self._issued is None:
            raise EnrolmentError("No register was issued yet.", remedy="Issue it first.")
        return self._issued

    def find(self, member_id: str) -> Member | None:
        """The member as it would stand in the next version."""
        return self._members.get(member_id)

    def require(self, member_id: str) -> Member:
        """The same; raises EnrolmentError if there is none."""
        member = self._members.get(member_id)
        if member is None:
            raise EnrolmentError(f"'{member_id}' is not in the register.", remedy="Choose one of the members listed.")
        return member

    def add(self, member: Member) -> None:
        """Note a new member, or a known one's new institution or contact. It stays suspended if it is.

        Raises:
            EnrolmentError: The id is taken, by other keys, in another role, or by a member that is revoked.
        """
        known = self._members.get(member.id)
        if known is None:
            self._note(member)
            return
        if known.state is MemberState.REVOKED:
            raise EnrolmentError(
                f"'{member.id}' is in the register already, and revoked.",
                remedy="Leave it out; whoever joins anew needs another id.",
            )
        if (known.keys, known.role) != (member.keys, member.role):
            raise EnrolmentError(
                f"'{member.id}' is in the register already ({known.role}, key {known.kid.partition(':')[2][:8]}…) "
                f"with {'other keys' if known.keys != member.keys else 'another role'}.",
                remedy="If it lost its keys, give it these with 'fedward member rotate'; else choose another id.",
            )
        self._note(member.model_copy(update={"state": known.state}))

    def suspend(self, member_id: str) -> None:
        """Let the member do nothing until ``resume``; raises EnrolmentError for the operator and the network host."""
        self._require_dispensable(member_id, "suspended")
        self._change(member_id, state=MemberState.SUSPENDED)

    def resume(self, member_id: str) -> None:
        """Let a suspended member act again."""
        self._change(member_id, state=MemberState.ACTIVE)

    def revoke(self, member_id: str) -> None:
        """End the membership for good; raises EnrolmentError for the operator and the network host."""
        self._require_dispensable(member_id, "revoked")
        self._change(member_id, state=MemberState.REVOKED)

    def rotate(self, member_id: str, *, identity: str, sealing: str) -> None:
        """Replace the member's public keys; its id, and all that hangs on it, stays."""
        self._change(member_id, identity=identity, sealing=sealing)

    def issue(self) -> str:
        """Sign what was noted as the next version and put it at the book's path.

        Returns:
            The signed register; without changes, the very text that was issued last.

        Raises:
            EnrolmentError: There is no member to list.
        """
        members = tuple(self._members.values())
        if self._issued is not None and self._issued.members == members:
            return self._path.read_text()
        if not members:
            raise EnrolmentError("The register has no members.", remedy="Add a member before you issue it.")
        register = self._register(members, version=self._issued.version + 1 if self._issued else 1)
        text = sign_register(register, self._operator)
        replace_file(self._path, text)
        self._issued = register
        return text

    def _require_dispensable(self, member_id: str, done: str) -> None:
        role = self.require(member_id).role
        if remedy := _KEYSTONES.get(role):
            what = "network host" if role is Role.NETWORK else role
            raise EnrolmentError(
                f"'{member_id}' is the {what}, and cannot be {done}: no member could reach or believe another.",
                remedy=remedy,
            )

    def _change(self, member_id: str, **changes: str | MemberState) -> None:
        """Every change is refused for a revoked member, but revoking it again."""
        member = self.require(member_id)
        if member.state is MemberState.REVOKED and changes != {"state": MemberState.REVOKED}:
            raise EnrolmentError(f"'{member_id}' is revoked.", remedy="Enrol the member anew, under another id.")
        self._note(_validated(member.model_dump() | changes, member_id))

    def _note(self, member: Member) -> None:
        """Take the change only if the register as a whole stays valid."""
        members = self._members | {member.id: member}
        self._register(tuple(members.values()), version=1)
        self._members = members

    def _register(self, members: tuple[Member, ...], *, version: int) -> Register:
        try:
            return Register(consortium=self._consortium, version=version, issued_at=int(self._clock()), members=members)
        except ValidationError as error:
            raise EnrolmentError(f"The register cannot be so: {error.errors()[0]['msg']}.") from error


def _validated(values: dict[str, object], member_id: str) -> Member:
    try:
        return Member.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise EnrolmentError(f"'{member_id}': {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
