"""The line to the broker: what happens on it, and what comes of it when it breaks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from appliance.protocol.home import Endpoint
from appliance.transport.mqtt import RECEIVE_AT_MOST, Arrived, LinkDown, LinkUp, MqttLink
from tests.integration.network.hosts import Authority
from tests.integration.scripted_broker import (
    DISCONNECT,
    HOST,
    PUBLISH,
    WAIT_S,
    Owner,
    ScriptedBroker,
    delivery,
)

TOPIC = "to/north/from/alice/ping"
ANSWER, RESULT = "to/alice/from/north/pong", "to/alice/from/north/train-reply"  # one may be lost, one must arrive

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the broker's certificate and north's."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def broker(authority: Authority) -> Iterator[ScriptedBroker]:
    """Waits for north."""
    broker = ScriptedBroker(authority.files("network", host=HOST))
    yield broker
    broker.close()


@pytest.fixture
def link(broker: ScriptedBroker, authority: Authority) -> MqttLink:
    """North's; not yet open."""
    endpoint = Endpoint(rest_url=f"https://{HOST}:1", broker_host=HOST, broker_port=broker.port)
    return MqttLink(endpoint, member_id="north", client_id="secret", tls=authority.files("north"))


@pytest.fixture
def owned() -> Iterator[Callable[[MqttLink], Owner]]:
    """Gives a link to a thread that receives and closes it."""
    with ExitStack() as stack:

        def own(link: MqttLink) -> Owner:
            owner = Owner(link)
            stack.callback(owner.close)
            return owner

        yield own


Owned = Callable[[MqttLink], Owner]


def test_what_was_kept_for_us_is_answered_before_the_subscription_is_confirmed(
    broker: ScriptedBroker, link: MqttLink, owned: Owned
) -> None:
    """A broker hands it over right behind its greeting; unanswered, it would come again and again."""
    owner = owned(link)
    line = broker.accept()
    line.send(b"\x20\x02\x00\x00" + delivery(TOPIC.encode(), b"kept"))
    subscribe = line.read()
    kept = owner.next()
    link.publish(ANSWER, "pong")
    answer = line.read()

    line.confirm(subscribe)

    assert (kept, owner.next()) == (Arrived(TOPIC, b"kept"), LinkUp())
    assert answer.kind == PUBLISH


def test_what_arrives_together_is_received_one_by_one(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """A stop behind its train must stay behind it. In one record of TLS, only the first shows on the socket."""
    owner = owned(link)
    line = broker.welcome()

    line.send(b"".join(delivery(TOPIC.encode(), b"%d" % number) for number in range(5)))

    assert [owner.next() for _ in range(6)] == [LinkUp(), *(Arrived(TOPIC, b"%d" % number) for number in range(5))]


def test_a_wait_ends_when_its_owner_is_woken(broker: ScriptedBroker, link: MqttLink) -> None:
    """A node that is told to stop must not wait for the next message."""
    broker.close()
    link.wake()

    assert list(link.receive(WAIT_S)) == []
    link.close()


def test_a_flood_leaves_the_owner_time_for_its_own_business(
    broker: ScriptedBroker, link: MqttLink, owned: Owned
) -> None:
    """Else whoever can send messages could keep a node from repeating its own, and from saying that it lives."""
    turns: list[int] = []
    receive = link.receive

    def counted(timeout_s: float) -> list[object]:
        events = list(receive(timeout_s))
        turns.append(len(events))
        return events

    link.receive = counted  # type: ignore[method-assign, assignment]
    owner = owned(link)
    line = broker.welcome()
    line.send(delivery(TOPIC.encode(), b"") * (3 * RECEIVE_AT_MOST))

    heard = [owner.next() for _ in range(3 * RECEIVE_AT_MOST + 1)]

    assert heard.count(Arrived(TOPIC, b"")) == 3 * RECEIVE_AT_MOST
    assert max(turns) <= RECEIVE_AT_MOST


def test_a_line_that_breaks_is_made_anew(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """Networks break; a node mends itself."""
    owner = owned(link)
    broker.welcome().close()
    before = owner.next(), owner.next()

    broker.welcome()

    assert (*before, owner.next()) == (LinkUp(), LinkDown(), LinkUp())


def test_a_refused_connection_is_tried_again(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """A broker refuses a member that it does not know yet."""
    owner = owned(link)
    broker.accept().send(b"\x20\x02\x00\x05")
    before = owner.next()

    broker.welcome()

    assert (before, owner.next()) == (LinkDown(), LinkUp())


@pytest.mark.parametrize(
    "said",
    [delivery(b"\xff\xfe", b""), b"\x30\x01\x00", b"\x90\x00", b"\x40\x00", b"\x00\x00", b"\x30\xff\xff\xff\xff\xff"],
    ids=["topic", "short-publish", "short-suback", "short-puback", "reserved", "length"],
)
def test_what_is_no_mqtt_costs_a_line_and_no_more(
    said: bytes, broker: ScriptedBroker, link: MqttLink, owned: Owned
) -> None:
    """The thread that reads it is the one that does a node's work."""
    owner = owned(link)
    broker.welcome().send(said)
    before = owner.next(), owner.next()

    broker.welcome()

    assert (*before, owner.next()) == (LinkUp(), LinkDown(), LinkUp())


def test_what_must_arrive_is_sent_again_on_the_next_line(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """The broker did not say that it has it."""
    owner = owned(link)
    first = broker.welcome()
    assert owner.next() == LinkUp()
    link.publish(RESULT, "result")
    sent = first.read()
    first.close()

    again = broker.welcome().read()

    assert (sent.payload, sent.is_repeat) == (b"result", False)
    assert (again.payload, again.is_repeat) == (b"result", True)


def test_a_line_that_is_full_is_written_to_the_end(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """A slow line takes a message in parts; nobody but the owner is there to write the rest."""
    owner = owned(link)
    line = broker.welcome()
    assert owner.next() == LinkUp()
    texts = [str(number) * (1 << 20) for number in range(9)]

    for text in texts:
        link.publish(ANSWER, text)

    assert [line.read().payload for _ in texts] == [text.encode() for text in texts]


def test_threads_that_publish_at_once_do_not_mix_their_words(
    broker: ScriptedBroker, link: MqttLink, owned: Owned
) -> None:
    """A line on which two messages were mixed is lost, and what comes behind them too."""
    owner = owned(link)
    line = broker.welcome()
    assert owner.next() == LinkUp()
    texts = {name: [f"{name}{number}" * 10_000 for number in range(40)] for name in "abcd"}

    def say(name: str) -> None:
        for text in texts[name]:
            link.publish(ANSWER, text)

    threads = [threading.Thread(target=say, args=(name,)) for name in texts]
    for thread in threads:
        thread.start()
    heard = [line.read() for _ in range(160)]
    for thread in threads:
        thread.join()

    said = [packet.payload.decode() for packet in heard if packet.kind == PUBLISH]
    assert {name: [text for text in said if text[0] == name] for name in texts} == texts


def test_nothing_is_published_while_there_is_no_line(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """What must arrive is the mailbox's to repeat: kept here too, it would go out twice, and old."""
    link.publish(RESULT, "too early")
    owner = owned(link)
    line = broker.welcome()
    assert owner.next() == LinkUp()

    link.publish(RESULT, "now")

    assert line.read().payload == b"now"


def test_a_link_says_goodbye(broker: ScriptedBroker, link: MqttLink, owned: Owned) -> None:
    """Else the broker tells everybody that the line broke."""
    owner = owned(link)
    line = broker.welcome()
    assert owner.next() == LinkUp()

    owner.close()

    assert line.read().kind == DISCONNECT


def test_a_link_closes_while_it_waits_to_connect(broker: ScriptedBroker, link: MqttLink) -> None:
    """Nobody waits for a host that is away in order to stop."""
    broker.close()
    link.open()

    link.close()

    assert not [thread for thread in threading.enumerate() if thread.name == "fedward-connect"]
