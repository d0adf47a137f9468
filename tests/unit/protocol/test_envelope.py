"""Signed envelopes and bearer tokens: what is believed, and in which order it is doubted."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey

from appliance.protocol.envelope import (
    CLOCK_LEEWAY_S,
    MAX_ENVELOPE_BYTES,
    MAX_LIFETIME_S,
    MESSAGE_TYPE,
    TOKEN_LIFETIME_S,
    Envelope,
    NewerMessageError,
    Signer,
    open_envelope,
    verify_token,
)
from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.keys import MemberKeys, b64url
from appliance.protocol.messages import Heartbeat, Ping, PlanApproval, Pong
from appliance.protocol.register import MemberState, Role, key_id
from tests.conftest import NOW, Members, make_members
from tests.unit.protocol.conftest import REPLY, SHA, TRAIN, claims, handwritten

# What may be said of bytes that no member wrote so: never that the fault is ours.
_REFUSALS = {
    Code.MESSAGE_MALFORMED,
    Code.MESSAGE_UNSIGNED,
    Code.SENDER_UNKNOWN,
}
LAYERS = {"frozen": TRAIN.parameters}


def opened(text: str | bytes, members: Members, *, me: str = "north", now: float = NOW) -> Envelope:
    """What ``me`` makes of ``text`` at ``now``."""
    return open_envelope(text, members.register, me=me, clock=lambda: now)


def refused(text: str | bytes, members: Members, *, me: str = "north", now: float = NOW) -> Code:
    """The code with which ``me`` refuses ``text``."""
    with pytest.raises(MessageRefusedError) as caught:
        opened(text, members, me=me, now=now)
    return caught.value.code


def altered(members: Members, **changes: Any) -> str:
    """Alice's Ping to north with other claims, well signed."""
    return handwritten(claims(**changes), members.keys["alice"])


# What is believed


def test_what_must_not_be_left_out_is_marked(members: Members) -> None:
    """An older node would train another model without its frozen layers; other requests it understands."""
    texts = [members.signer("alice").sign("north", TRAIN.model_copy(update=more)).text for more in ({}, LAYERS)]
    marks = [json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "==")).get("crit") for text in texts]

    assert marks == [None, ["frozen"]]
    assert opened(texts[1], members).body == TRAIN.model_copy(update=LAYERS)


def test_a_message_arrives_as_it_was_written(members: Members) -> None:
    """Everything else rests on this."""
    signed = members.signer("alice").sign("north", TRAIN)

    assert opened(signed.text, members) == signed.envelope


@pytest.mark.parametrize(("back_s", "dated"), [(0, NOW), (1, NOW), (60, NOW), (61, NOW - 61), (3600, NOW - 3600)])
def test_what_is_said_later_is_dated_later_while_others_bear_it(members: Members, back_s: int, dated: int) -> None:
    """A Stop ends what was asked for before it: a clock that is set right in between must not keep it from doing so."""
    times = iter([NOW, NOW - back_s])
    signer = Signer("alice", members.keys["alice"], lambda: next(times))
    signer.sign("north", TRAIN)

    assert signer.sign("north", Ping(sequence=1)).envelope.issued_at == dated


def test_an_answer_names_what_it_answers(members: Members) -> None:
    """Correlation lives inside the signed message, because MQTT 3.1.1 has no place for it."""
    asked = members.signer("alice").sign("north", Ping(sequence=1))
    answer = members.signer("north").sign("alice", Pong(sequence=1), in_reply_to=asked.envelope.jti)

    assert opened(answer.text, members, me="alice").in_reply_to == asked.envelope.jti


def test_bytes_are_taken_as_well_as_text(members: Members) -> None:
    """The broker hands over bytes."""
    signed = members.signer("alice").sign("north", Ping(sequence=1))

    assert opened(signed.text.encode(), members).jti == signed.envelope.jti


def test_a_heartbeat_is_for_everybody(members: Members) -> None:
    """Presence is the one thing that is said to all."""
    signed = members.signer("south").sign("consortium", Heartbeat(every_s=20, running_rounds=0))

    assert opened(signed.text, members).sender == "south"


def test_a_plan_of_half_a_megabyte_fits(members: Members) -> None:
    """The signing library's own limit of 128 kB must not become ours."""
    plan = PlanApproval(name="p", description="", source="x" * 500_000, sha256=SHA)

    assert opened(members.signer("alice").sign("north", plan).text, members).body == plan


@given(st.integers(min_value=0, max_value=2**53 - 1))
def test_any_sequence_number_survives_the_way(number: int) -> None:
    """Numbers are not rounded on the wire."""
    signed = SHARED.signer("alice").sign("north", Ping(sequence=number))

    assert opened(signed.text, SHARED).body == Ping(sequence=number)


# Form


@pytest.mark.parametrize(
    "text",
    ["", "hello", "..", "a.b.c", "a.b.c.d", "€.€.€", b"\xff\xfe.\x00.\x01", "[" * 5000, '{"payload": ""}'],
    ids=["empty", "words", "dots", "junk", "four parts", "no ascii", "binary", "brackets", "json"],
)
def test_what_is_no_jws_is_refused(text: str | bytes, members: Members) -> None:
    """Anybody who reaches the broker can send bytes."""
    assert refused(text, members) is Code.MESSAGE_MALFORMED


@given(st.binary(max_size=300))
def test_no_bytes_end_in_anything_but_a_refusal(raw: bytes) -> None:
    """A receiver that falls over is a receiver that is switched off from outside."""
    assert refused(raw, SHARED) in _REFUSALS


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_no_signed_payload_ends_in_anything_but_a_refusal(payload: object) -> None:
    """A member may lie, and yet must not bring a receiver down."""
    assert refused(handwritten(payload, SHARED.keys["mallory"], name="mallory"), SHARED) in _REFUSALS


@given(
    st.sampled_from(["v", "jti", "to", "kind", "iat", "exp", "re", "body", "crit"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()) | st.just({"a": 1}),
)
def test_no_wrong_claim_ends_in_anything_but_a_refusal(name: str, value: object) -> None:
    """Every claim is read by some line of code; none may trust its type."""
    text = altered(SHARED, **{name: value})
    try:
        opened(text, SHARED)
    except MessageRefusedError:
        return
    harmless = {"v": "1.0", "kind": "ping", "to": "north", "re": None}
    assert value == harmless.get(name, value)
    assert name in {*harmless, "iat", "exp", "crit"}


@pytest.mark.parametrize("header", ["[]", "null", "5", "{}", '{"alg":[]}', '{"alg":"Ed25519","kid":5}'])
def test_a_header_that_is_no_header_is_refused(header: str, members: Members) -> None:
    """The header is read before any signature was checked."""
    text = f"{b64url(header.encode())}.{b64url(b'{}')}.{b64url(b'x' * 64)}"

    assert refused(text, members) is Code.MESSAGE_MALFORMED


def test_a_message_above_the_limit_is_refused_by_its_size(members: Members) -> None:
    """Size is checked first, so that a flood costs little."""
    assert refused("x" * (MAX_ENVELOPE_BYTES + 1), members) is Code.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("payload", ["", "not json", "[]", '"text"', "[" * 100_000, '{"v": NaN}', b"\xff"])
def test_a_signed_payload_that_is_no_object_is_refused(payload: str | bytes, members: Members) -> None:
    """A signature says who wrote it, not that it makes sense."""
    assert refused(handwritten(payload, members.keys["alice"]), members) is Code.MESSAGE_MALFORMED


@pytest.mark.parametrize("name", ["v", "jti", "to", "kind", "iat", "exp", "re", "body"])
def test_a_missing_claim_is_refused(name: str, members: Members) -> None:
    """No claim has a default that a sender could lean on."""
    assert refused(altered(members, **{name: ...}), members) is Code.MESSAGE_MALFORMED


@pytest.mark.parametrize("jti", ["", "x", "A" * 32, "ü" * 32, "0" * 33, "0" * 32 + "\n", 5, None])
def test_a_message_id_of_another_form_is_refused(jti: object, members: Members) -> None:
    """It goes into the store and into the Receipt: its form is not the sender's to choose."""
    assert refused(altered(members, jti=jti), members) is Code.MESSAGE_MALFORMED


@pytest.mark.parametrize("value", ["1770000000", 1.5e9, True, -1, 1 << 63, "1e999"])
@pytest.mark.parametrize("name", ["iat", "exp"])
def test_a_time_of_another_form_is_refused(name: str, value: object, members: Members) -> None:
    """Infinity and huge numbers must not overflow in the receiver's arithmetic or database."""
    payload = json.dumps(claims(**{name: value})).replace('"1e999"', "1e999")

    assert refused(handwritten(payload, members.keys["alice"]), members) is Code.MESSAGE_MALFORMED


def test_a_number_that_reads_as_infinity_is_refused_in_a_body(members: Members) -> None:
    """JSON has no infinity, but 1e999 reads as one."""
    payload = json.dumps(claims(body={"sequence": "1e999"})).replace('"1e999"', "1e999")

    assert refused(handwritten(payload, members.keys["alice"]), members) is Code.MESSAGE_MALFORMED


# Signature


def test_an_unsigned_message_is_refused(members: Members) -> None:
    """The signature is the only thing that says who speaks."""
    head, payload, _ = members.signer("alice").sign("north", TRAIN).text.split(".")

    assert refused(f"{head}.{payload}.", members) is Code.MESSAGE_UNSIGNED


def test_a_changed_payload_is_refused(members: Members) -> None:
    """The network host forwards messages; it must not be able to edit one."""
    head, payload, signature = altered(members).split(".")
    raw = base64.urlsafe_b64decode(payload + "==").replace(b'"sequence": 1', b'"sequence": 2')

    assert refused(f"{head}.{b64url(raw)}.{signature}", members) is Code.MESSAGE_UNSIGNED


@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    """There is no byte of an envelope that the signature leaves out."""
    text = altered(SHARED)
    place = data.draw(st.integers(0, len(text) - 2))  # the last character has two bits that carry nothing
    other = data.draw(st.sampled_from("AZaz09-_.").filter(lambda c: c != text[place]))

    assert refused(text[:place] + other + text[place + 1 :], SHARED) in _REFUSALS


def test_a_message_signed_by_another_key_is_refused(members: Members) -> None:
    """Mallory knows alice's name and key id; both are public."""
    kid = key_id("alice", members.keys["alice"].public.identity)
    text = handwritten(claims(), members.keys["mallory"], kid=kid)

    assert refused(text, members) is Code.MESSAGE_UNSIGNED


def test_a_members_name_with_anothers_thumbprint_is_refused(members: Members) -> None:
    """Name and key belong together, and only the register says so."""
    text = handwritten(claims(), members.keys["mallory"], name="alice")

    assert refused(text, members) is Code.SENDER_UNKNOWN


def test_the_public_key_is_no_shared_secret(members: Members) -> None:
    """The classic confusion: HMAC with the public key, which everybody knows, as its secret."""
    alice = members.keys["alice"].public.identity
    header = {"alg": "HS256", "kid": key_id("alice", alice), "typ": MESSAGE_TYPE}
    text = jws.serialize_compact(header, json.dumps(claims()), OctKey.import_key(alice), algorithms=["HS256"])

    assert refused(text, members) is Code.MESSAGE_UNSIGNED


def test_the_algorithm_none_is_refused(members: Members) -> None:
    """The standard has it; we do not."""
    header = {"alg": "none", "kid": key_id("alice", members.keys["alice"].public.identity), "typ": MESSAGE_TYPE}
    text = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(claims()).encode())}."

    assert refused(text, members) is Code.MESSAGE_UNSIGNED


def test_the_older_name_of_the_algorithm_is_refused(members: Members) -> None:
    """EdDSA stands for several curves; one name for one thing."""
    assert refused(handwritten(claims(), members.keys["alice"], alg="EdDSA"), members) is Code.MESSAGE_UNSIGNED


@pytest.mark.parametrize(
    "field", [{"crit": ["b64"], "b64": False}, {"jwk": {"kty": "OKP"}}, {"jku": "https://example.org"}, {"cty": "x"}]
)
def test_a_header_with_more_fields_is_refused(field: dict[str, Any], members: Members) -> None:
    """A key, or the way to one, that comes with the message is the sender's word about itself."""
    assert refused(handwritten(claims(), members.keys["alice"], **field), members) is Code.MESSAGE_MALFORMED


def test_a_token_is_no_message(members: Members) -> None:
    """A text signed for one purpose must not serve another."""
    token, _ = members.signer("alice").token()

    assert refused(token, members) is Code.MESSAGE_MALFORMED


# Register


def test_a_stranger_is_refused(members: Members) -> None:
    """A valid certificate opens a line; it makes nobody a member."""
    text = members.signer("mallory").sign("north", TRAIN).text

    assert refused(text, members.without("mallory")) is Code.SENDER_UNKNOWN


@pytest.mark.parametrize("state", [MemberState.SUSPENDED, MemberState.REVOKED])
def test_a_member_that_is_not_active_is_refused(state: MemberState, members: Members) -> None:
    """Losing a member is one line in the register, from that moment on."""
    text = members.signer("mallory").sign("north", TRAIN).text

    assert refused(text, members.with_state("mallory", state)) is Code.SENDER_UNKNOWN


def test_a_rotated_key_ends_the_old_one(members: Members) -> None:
    """Whoever stole the old key has nothing any more."""
    after = members.with_changed("alice", identity=MemberKeys.generate().public.identity)

    assert refused(members.signer("alice").sign("north", TRAIN).text, after) is Code.SENDER_UNKNOWN


@pytest.mark.parametrize("kid", ["", "alice", "alice:", ":" * 50, "alice:" + "A" * 100_000, "al\nice:" + "A" * 43])
def test_a_key_id_of_another_form_is_refused_before_it_is_looked_up(kid: str, members: Members) -> None:
    """It is repeated in the log: nothing long, and no line breaks."""
    assert refused(handwritten(claims(), members.keys["alice"], kid=kid), members) is Code.MESSAGE_MALFORMED


# Address and time


def test_a_message_for_somebody_else_is_refused(members: Members) -> None:
    """The broker may deliver wrongly; south's training is not north's."""
    text = members.signer("alice").sign("south", TRAIN).text

    assert refused(text, members) is Code.MESSAGE_MISADDRESSED


def test_a_request_to_everybody_is_refused(members: Members) -> None:
    """One signature must not start a training at every hospital at once."""
    text = members.signer("alice").sign("consortium", TRAIN).text

    assert refused(text, members) is Code.MESSAGE_MISADDRESSED


def test_an_expired_message_is_refused(members: Members) -> None:
    """The network host may keep a message back and deliver it when it suits."""
    text = members.signer("alice").sign("north", Ping(sequence=1)).text

    assert refused(text, members, now=NOW + 60 + CLOCK_LEEWAY_S + 1) is Code.MESSAGE_EXPIRED


def test_a_message_from_the_future_is_refused(members: Members) -> None:
    """Else a wrong clock would write messages that act long after everybody forgot them."""
    text = members.signer("alice", lambda: NOW + CLOCK_LEEWAY_S + 1).sign("north", Ping(sequence=1)).text

    assert refused(text, members) is Code.CLOCK_WRONG


@pytest.mark.parametrize("skew", [-CLOCK_LEEWAY_S, CLOCK_LEEWAY_S])
def test_clocks_may_differ_a_little(skew: int, members: Members) -> None:
    """Hospital clocks do."""
    text = members.signer("alice", lambda: NOW + skew).sign("north", Ping(sequence=1)).text

    assert opened(text, members).issued_at == NOW + skew


@pytest.mark.parametrize("lifetime_s", [-1, MAX_LIFETIME_S + 1])
def test_a_lifetime_beyond_all_measure_is_refused(lifetime_s: int, members: Members) -> None:
    """The receiver remembers a message for as long as it may act: that time is not the sender's to stretch."""
    text = altered(members, exp=NOW + lifetime_s)

    assert refused(text, members) is Code.MESSAGE_MALFORMED


# Version


def test_another_major_version_is_refused(members: Members) -> None:
    """Its fields may mean anything."""
    assert refused(altered(members, v="2.0"), members) is Code.MESSAGE_VERSION


@pytest.mark.parametrize(
    "version", ["1", "", "1.", ".1", "1.0.0", "one", "1.-1", "\u0661.\u0660", " 1.0", "1.0\n", "1.999999"]
)
def test_a_version_of_another_form_is_refused(version: str, members: Members) -> None:
    """It decides how strictly the rest is read."""
    assert refused(altered(members, v=version), members) is Code.MESSAGE_VERSION


@pytest.mark.parametrize("version", ["1.2", "01.02"])
def test_an_unknown_claim_is_refused_at_our_version(version: str, members: Members) -> None:
    """A misspelt claim must not pass as a new one."""
    assert refused(altered(members, v=version, hurry=True), members) is Code.MESSAGE_MALFORMED


def test_an_unknown_claim_of_a_newer_minor_is_left_out(members: Members) -> None:
    """Hospitals upgrade one after the other."""
    assert opened(altered(members, v="1.9", hurry=True), members).version == "1.9"


def test_an_unknown_claim_marked_critical_is_refused(members: Members) -> None:
    """The sender says that leaving it out would change the meaning."""
    text = altered(members, v="1.9", hurry=True, crit=["hurry"])

    assert refused(text, members) is Code.MESSAGE_VERSION


@pytest.mark.parametrize("critical", ["loud", "loud.by", "hurry"])
def test_an_unknown_field_marked_critical_is_refused(critical: str, members: Members) -> None:
    """The same inside the body, or deep inside what is unknown as a whole."""
    body = {"sequence": 1, "loud": {"by": 3}}
    text = altered(members, v="1.9", body=body, hurry=True, crit=["sequence", critical])

    assert refused(text, members) is Code.MESSAGE_VERSION


def test_what_is_refused_for_a_critical_field_can_be_answered(members: Members) -> None:
    """Its author would repeat it for days, and wait."""
    text = altered(members, v="1.9", body={"sequence": 1, "loud": True}, crit=["loud"])

    with pytest.raises(NewerMessageError, match=r"protocol 1\.9 .* 'loud'; this side speaks 1\.7") as caught:
        opened(text, members)
    assert (caught.value.envelope.sender, caught.value.envelope.body) == ("alice", Ping(sequence=1))


def test_a_critical_field_opens_no_door(members: Members) -> None:
    """Role, address and time are checked before anything is answered."""
    text = altered(members, v="1.9", to="south", body={"sequence": 1, "loud": True}, crit=["loud"])

    assert refused(text, members) is Code.MESSAGE_MISADDRESSED


@pytest.mark.parametrize("crit", ["hurry", {"hurry": 1}, [1], 5])
def test_a_list_of_critical_names_of_another_form_is_refused(crit: object, members: Members) -> None:
    """A text would read as a list of its letters, and nothing would be critical."""
    assert refused(altered(members, v="1.9", hurry=True, crit=crit), members) is Code.MESSAGE_MALFORMED


# Role


def test_a_node_may_not_ask_another_to_train(members: Members) -> None:
    """Nodes never reach each other."""
    text = members.signer("south").sign("north", TRAIN).text

    assert refused(text, members) is Code.SENDER_ROLE


@pytest.mark.parametrize("role", [Role.NETWORK, Role.OPERATOR])
def test_neither_network_nor_operator_starts_a_training(role: Role, members: Members) -> None:
    """The network host is a post office: it cannot start a training, not even with a signature of its own."""
    name = {Role.NETWORK: "network", Role.OPERATOR: "operator"}[role]

    assert refused(members.signer(name).sign("north", TRAIN).text, members) is Code.SENDER_ROLE


def test_a_researcher_may_not_send_an_update(members: Members) -> None:
    """Else one researcher could poison another's experiment."""
    text = members.signer("mallory").sign("alice", REPLY).text

    assert refused(text, members, me="alice") is Code.SENDER_ROLE


def test_role_is_the_registers_word(members: Members) -> None:
    """The same key, with another line in the register, may do other things."""
    after = members.with_changed("alice", role=Role.NODE)

    assert refused(members.signer("alice").sign("north", TRAIN).text, after) is Code.SENDER_ROLE


def test_unknown_kind_is_refused(members: Members) -> None:
    """There is no default handler."""
    assert refused(altered(members, kind="reboot"), members) is Code.MESSAGE_MALFORMED


# Tokens


def test_a_token_speaks_for_its_member(members: Members) -> None:
    """REST calls carry identity of their own, whoever ends the TLS."""
    token, ends_at = members.signer("north").token()

    assert verify_token(token, members.register, clock=lambda: NOW).id == "north"
    assert ends_at == NOW + TOKEN_LIFETIME_S


def test_a_token_for_another_service_is_refused(members: Members) -> None:
    """A service must not be able to use at another what was shown to it."""
    token, _ = members.signer("north").token("elsewhere")

    with pytest.raises(MessageRefusedError, match="another service"):
        verify_token(token, members.register, clock=lambda: NOW)


def test_an_old_token_is_refused(members: Members) -> None:
    """A stolen token is worth minutes."""
    token, ends_at = members.signer("north").token()

    with pytest.raises(MessageRefusedError, match="expired"):
        verify_token(token, members.register, clock=lambda: ends_at + CLOCK_LEEWAY_S + 1)


@pytest.mark.parametrize(
    "times", [{}, {"iat": NOW}, {"iat": NOW, "exp": NOW + 3600}, {"iat": NOW, "exp": "soon"}, {"iat": NOW, "exp": 0.5}]
)
def test_a_token_with_times_of_its_own_is_refused(times: dict[str, object], members: Members) -> None:
    """Nobody writes itself a token for a year."""
    token = handwritten({"aud": "network", **times}, members.keys["north"], name="north", typ="fedward-token+jws")

    with pytest.raises(MessageRefusedError):
        verify_token(token, members.register, clock=lambda: NOW)


def test_a_message_is_no_token(members: Members) -> None:
    """What travels over the broker must not open the parameter store."""
    text = members.signer("north").sign("alice", REPLY).text

    with pytest.raises(MessageRefusedError):
        verify_token(text, members.register, clock=lambda: NOW)


def test_a_revoked_members_token_is_refused(members: Members) -> None:
    """Revocation ends REST calls as it ends messages."""
    token, _ = members.signer("mallory").token()

    with pytest.raises(MessageRefusedError, match="revoked"):
        verify_token(token, members.with_state("mallory", MemberState.REVOKED).register, clock=lambda: NOW)


def test_a_token_of_any_length_is_refused_early(members: Members) -> None:
    """It comes in a header, before anybody was identified."""
    with pytest.raises(MessageRefusedError) as caught:
        verify_token("x" * 5000, members.register)

    assert caught.value.code is Code.MESSAGE_TOO_LARGE


SHARED = make_members()  # for laws: hypothesis wants no fixtures
