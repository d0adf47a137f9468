"""The membership register: the consortium's root of identity."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from appliance.protocol.envelope import MESSAGE_TYPE
from appliance.protocol.errors import Code, ConfigurationError, MessageRefusedError
from appliance.protocol.jose import sign_text
from appliance.protocol.keys import MemberKeys, thumbprint
from appliance.protocol.register import REGISTER_TYPE, Member, MemberState, Register, Role, open_register, sign_register
from tests.conftest import NOW, Members


def published(members: Members) -> str:
    """The register as the operator publishes it."""
    return sign_register(members.register, members.operator)


def opened(text: str, members: Members, **how: Any) -> Register:
    """What a member makes of it who pinned the operator's key."""
    return open_register(text, members.operator.public.identity, **how)


def test_a_register_is_read_as_it_was_signed(members: Members) -> None:
    """Everything that is believed about anybody comes from here."""
    assert opened(published(members), members) == members.register


def test_blank_space_around_it_does_no_harm(members: Members) -> None:
    """It travels as a file, and editors add a line break."""
    assert opened(f"\n{published(members)}\n", members) == members.register


def test_a_register_by_another_key_is_refused(members: Members) -> None:
    """A stolen network host can cut lines; it cannot make a member."""
    text = sign_register(members.register, members.keys["network"])

    with pytest.raises(ConfigurationError, match="not signed by the pinned operator key"):
        opened(text, members)


def test_a_changed_register_is_refused(members: Members) -> None:
    """It lies in files and databases that others can write."""
    text = published(members)
    middle = len(text) // 2

    with pytest.raises(ConfigurationError):
        opened(text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :], members)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é"])
def test_what_is_no_register_is_refused(text: str, members: Members) -> None:
    """A cut-off file is no register of nobody."""
    with pytest.raises(ConfigurationError):
        opened(text, members)


def test_another_document_of_the_operator_is_no_register(members: Members) -> None:
    """The operator's key may sign other things: each says what it is."""
    payload = members.register.model_dump_json()
    text = sign_text(payload, members.operator, typ=MESSAGE_TYPE, kid="operator")

    with pytest.raises(ConfigurationError, match="another document's type"):
        opened(text, members)


def test_an_older_register_is_refused(members: Members) -> None:
    """A thief could bring back a member that was revoked."""
    with pytest.raises(ConfigurationError, match="version 1; 2 is known"):
        opened(published(members), members, newer_than=2)


def test_the_version_that_is_held_is_taken_again(members: Members) -> None:
    """The network host sends it with every connection."""
    assert opened(published(members), members, newer_than=1).version == 1


@pytest.mark.parametrize("key", ["", "x" * 43, "A" * 43, "A" * 42])
def test_a_pinned_key_that_is_none_believes_nobody(key: str, members: Members) -> None:
    """A damaged settings file must not open the door."""
    with pytest.raises(ConfigurationError):
        open_register(published(members), key)


def test_a_signed_register_with_a_wrong_line_names_the_line(members: Members) -> None:
    """The operator made a mistake, and has to find it."""
    broken = json.loads(members.register.model_dump_json())
    broken["members"][2]["role"] = "boss"
    kid = thumbprint(members.operator.public.identity)
    text = sign_text(json.dumps(broken), members.operator, typ=REGISTER_TYPE, kid=kid)

    with pytest.raises(ConfigurationError, match=r"members\.2\.role"):
        opened(text, members)


def test_a_register_of_two_thousand_members_is_read(members: Members) -> None:
    """The signing library's own limit of 128 kB must not become ours."""
    line = members.register.members[0]
    many = tuple(
        line.model_copy(update={"id": f"node-{n}", "identity": MemberKeys.generate().public.identity})
        for n in range(2000)
    )
    register = members.register.model_copy(update={"members": many})

    assert opened(sign_register(register, members.operator), members) == register


@pytest.mark.parametrize("name", ["", "North", "-north", "north-", "no rth", "a" * 64, "north/from/x", "+", "#", "n\n"])
def test_an_id_that_could_be_a_topic_or_a_path_is_refused(name: str, members: Members) -> None:
    """Ids become topics, folders and certificates' names."""
    with pytest.raises(ValidationError):
        Member.model_validate(members.register.members[0].model_dump() | {"id": name})


def test_the_address_of_all_belongs_to_nobody(members: Members) -> None:
    """A member called 'consortium' would hear everything."""
    taken = members.register.members[0].model_copy(update={"id": "consortium"})

    with pytest.raises(ValidationError, match="reserved"):
        Register(consortium="test", version=1, issued_at=NOW, members=(taken,))


@pytest.mark.parametrize(("field", "match"), [("id", "share an id"), ("identity", "share an identity key")])
def test_no_two_members_share(field: str, match: str, members: Members) -> None:
    """Else one could speak for the other."""
    first, second = members.register.members[:2]
    twin = second.model_copy(update={field: getattr(first, field)})

    with pytest.raises(ValidationError, match=match):
        Register(consortium="test", version=1, issued_at=NOW, members=(first, twin))


def test_a_stranger_is_not_found(members: Members) -> None:
    """And the refusal says which register was asked."""
    with pytest.raises(MessageRefusedError, match="version 1") as caught:
        members.register.require("eve")

    assert caught.value.code is Code.SENDER_UNKNOWN


@pytest.mark.parametrize("state", [MemberState.SUSPENDED, MemberState.REVOKED])
def test_a_member_that_may_not_act_is_found_but_not_required(state: MemberState, members: Members) -> None:
    """History keeps its name; nothing new is done for it."""
    register = members.with_state("south", state).register

    assert register.find("south") is not None
    with pytest.raises(MessageRefusedError, match=str(state)):
        register.require("south")


def test_roles_list_active_members_only(members: Members) -> None:
    """A strategy chooses from this list."""
    register = members.with_state("south", MemberState.SUSPENDED).register

    assert [member.id for member in register.with_role(Role.NODE)] == ["north"]


def test_the_digest_tells_registers_apart(members: Members) -> None:
    """Sites compare it out of band."""
    assert members.register.digest() != members.without("mallory").register.digest()


def test_the_digest_is_the_same_after_the_way(members: Members) -> None:
    """Sender and receiver compute it each on their own."""
    assert opened(published(members), members).digest() == members.register.digest()
