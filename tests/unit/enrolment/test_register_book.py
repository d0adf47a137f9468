"""The operator's book of members."""

from __future__ import annotations

import pytest

from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Member, MemberState, Role, open_register


def _member(member_id: str, role: Role = Role.NODE) -> Member:
    public = MemberKeys.generate().public
    return Member(
        id=member_id,
        role=role,
        institution="A hospital",
        contact="it@hospital.example",
        identity=public.identity,
        sealing=public.sealing,
    )


def test_what_was_noted_is_issued_in_the_operators_signature(operator) -> None:
    """Members believe the operator's key and nothing else."""
    operator.book.add(_member("north"))

    register = open_register(operator.book.issue(), operator.keys.public.identity)
    assert (register.version, [member.id for member in register.members]) == (1, ["north"])


def test_changes_go_out_together_as_one_version(operator) -> None:
    """A member that saw half of a change would trust half of it."""
    operator.book.add(_member("north"))
    operator.book.issue()
    operator.book.suspend("north")
    operator.book.add(_member("south"))

    register = open_register(operator.book.issue(), operator.keys.public.identity)
    assert (register.version, register.find("north").state) == (2, MemberState.SUSPENDED)


def test_nothing_new_is_issued_without_a_change(operator) -> None:
    """The playbook runs often; a version each time would hide the changes that matter."""
    operator.book.add(_member("north"))

    assert operator.book.issue() == operator.open_book().issue()


def test_the_book_goes_on_from_what_was_issued(operator) -> None:
    """The operator's machine is switched off between two changes."""
    operator.book.add(_member("north"))
    operator.book.issue()
    book = operator.open_book()
    book.add(_member("south"))

    assert open_register(book.issue(), operator.keys.public.identity).version == 2


def test_a_suspended_member_may_be_resumed(operator) -> None:
    """Suspension is for the time of a question, not for good."""
    operator.book.add(_member("north"))
    operator.book.suspend("north")
    operator.book.resume("north")

    assert operator.book.find("north").state is MemberState.ACTIVE


@pytest.mark.parametrize("change", ["suspend", "revoke"])
@pytest.mark.parametrize(("role", "remedy"), [(Role.OPERATOR, "backup"), (Role.NETWORK, "fedward member rotate")])
def test_whom_all_others_hang_on_stays(operator, role: Role, remedy: str, change: str) -> None:
    """A slip of the operator's fingers would end the consortium, and revoking cannot be taken back."""
    operator.book.add(_member("north", role))

    with pytest.raises(EnrolmentError, match=r"'north' is the (operator|network host), and cannot be") as refused:
        getattr(operator.book, change)("north")
    assert remedy in str(refused.value.remedy)
    assert operator.book.find("north").state is MemberState.ACTIVE


@pytest.mark.parametrize("change", ["suspend", "resume"])
def test_a_revoked_member_stays_revoked(operator, change) -> None:
    """Its keys may be in a thief's hands."""
    operator.book.add(_member("north"))
    operator.book.revoke("north")

    with pytest.raises(EnrolmentError, match="'north' is revoked"):
        getattr(operator.book, change)("north")


def test_rotation_keeps_the_id(operator) -> None:
    """Permissions, topics and ledger hang on the id, not on the key."""
    old, new = _member("north"), MemberKeys.generate().public
    operator.book.add(old)
    operator.book.rotate("north", identity=new.identity, sealing=new.sealing)

    assert operator.book.find("north") == old.model_copy(update={"identity": new.identity, "sealing": new.sealing})


def test_an_id_is_given_once(operator) -> None:
    """Otherwise whoever asks second becomes the first."""
    operator.book.add(_member("north"))

    with pytest.raises(EnrolmentError, match="'north' is in the register already"):
        operator.book.add(_member("north"))


def test_a_refused_change_leaves_the_book_as_it_was(operator) -> None:
    """A slip of the operator's hand must not be issued with the next change."""
    operator.book.add(north := _member("north"))
    with pytest.raises(EnrolmentError, match="share an identity key"):
        operator.book.add(north.model_copy(update={"id": "south"}))

    assert operator.book.find("south") is None


def test_a_malformed_key_is_refused(operator) -> None:
    """A register that some members cannot read splits the consortium."""
    operator.book.add(_member("north"))

    with pytest.raises(EnrolmentError, match="identity"):
        operator.book.rotate("north", identity="short", sealing="short")


def test_an_unknown_member_is_named(operator) -> None:
    """A typing error must not pass for a revocation."""
    with pytest.raises(EnrolmentError, match="'nroth' is not in the register"):
        operator.book.revoke("nroth")


def test_an_empty_book_is_not_issued(operator) -> None:
    """A register without members would lock everybody out."""
    with pytest.raises(EnrolmentError, match="no members"):
        operator.book.issue()


def test_another_operators_book_is_refused(operator) -> None:
    """Signing on from a forged register would make the forgery genuine."""
    operator.book.add(_member("north"))
    operator.book.issue()

    with pytest.raises(ConfigurationError, match="not signed by the pinned operator"):
        RegisterBook(operator.folder / "register.jws", MemberKeys.generate(), consortium="Test")
