"""Topics: who may be written to, by whom, and that the signed message says the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.messages import BODIES
from appliance.protocol.topics import Topic, inbox_filter, last_will_topic, parse_topic, presence_filter, require_route


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_every_kind_has_a_topic(kind: str) -> None:
    """Written and read again it is the same."""
    topic = Topic("north", "alice", kind)

    assert parse_topic(str(topic)) == topic


@pytest.mark.parametrize(
    "text",
    [
        "",
        "to/north/from/alice",
        "to/north/from/alice/",
        "to/north/from/alice/ping/",
        "/to/north/from/alice/ping",
        "to/north/from/alice/ping\n",
        "to/+/from/alice/ping",
        "to/north/from/#",
        "to/north/from/al ice/ping",
        "TO/north/from/alice/ping",
        "to/north/from/alice/ping/extra",
        "to/" + "n" * 64 + "/from/alice/ping",
        "$SYS/broker/uptime",
    ],
)
def test_another_topic_is_refused(text: str) -> None:
    """The broker's own topics and everybody's experiments arrive on the same line."""
    with pytest.raises(MessageRefusedError):
        parse_topic(text)


@given(st.text())
def test_no_text_ends_in_anything_but_a_refusal(text: str) -> None:
    """A topic is the sender's to choose."""
    with pytest.raises(MessageRefusedError):
        parse_topic(text)


@pytest.mark.parametrize("other", [{"to": "south"}, {"sender": "mallory"}, {"kind": "stop"}])
def test_a_message_on_anothers_topic_is_refused(other: dict[str, str]) -> None:
    """The broker's access list goes by topics; what is signed must agree with it."""
    route = {"to": "north", "sender": "alice", "kind": "ping"}

    with pytest.raises(MessageRefusedError) as caught:
        require_route(Topic("north", "alice", "ping"), **(route | other))
    assert caught.value.code is Code.MESSAGE_MISADDRESSED


def test_a_message_on_its_own_topic_passes() -> None:
    """The other side of the rule."""
    require_route(Topic("north", "alice", "ping"), to="north", sender="alice", kind="ping")


def test_a_member_hears_only_what_is_for_it() -> None:
    """These are the two filters that a member ever subscribes to."""
    assert inbox_filter("north") == "to/north/from/+/+"
    assert presence_filter() == "to/consortium/from/+/+"


def test_a_last_will_is_no_message() -> None:
    """The broker writes it, unsigned: it is a hint, and must not look like a kind of message."""
    assert parse_topic(last_will_topic("north")).kind not in BODIES
