"""Delivery: an outbox that ends with the recipient's Receipt, an inbox that acts once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.protocol.envelope import Envelope, Signed, Signer, open_envelope
from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.keys import MemberKeys
from appliance.protocol.messages import Body, ErrorReply, Ping, Pong, Receipt, Stop, Stopped
from appliance.protocol.topics import Topic
from appliance.transport.mailbox import FIRST_REPEAT_S, LAST_REPEAT_S, Mailbox, erase, inbox, metadata, outbox
from appliance.transport.mqtt import Arrived
from appliance.transport.sqlite import durable_engine, writing
from tests.conftest import NOW, Members

STOPPED = Stopped(experiment_id="e-1", was_running=True, ended_at=1.0)
STOP = Stop(experiment_id="e-1")


class Post:
    """North's mailbox over a real file, with a line that a test may cut and a clock that it may turn."""

    def __init__(self, path: Path, members: Members) -> None:
        self.path, self.members = path, members
        self.now = float(NOW)
        self.published: list[tuple[str, str]] = []
        self.receipts: list[str] = []
        self.is_up = True
        self.engine = durable_engine(path)
        metadata.create_all(self.engine)
        self.restart()

    def restart(self) -> None:
        """The process dies, and another one takes up the same file."""
        self.engine.dispose()
        self.box = Mailbox(
            self.engine,
            self.members.signer("north", lambda: self.now),
            lambda: self.members.register,
            self._publish,
            clock=lambda: self.now,
            on_receipt=self.receipts.append,
        )

    def _publish(self, topic: str, text: str) -> None:
        if self.is_up:
            self.published.append((topic, text))

    def post(self, to: str = "alice", body: Body = STOPPED, *, send: bool = True) -> Signed:
        """Post a durable message, committed."""
        with writing(self.engine) as connection:
            signed = self.box.post(connection, to, body)
        if send:
            self.box.send(signed)
        return signed

    def arrives(self, sender: str, body: Body, **options: Any) -> Envelope | None:
        """A member's message, on its own topic."""
        return self.opens(self.members.signer(sender, lambda: self.now).sign("north", body, **options))

    def opens(self, signed: Signed) -> Envelope | None:
        """A message arrives, perhaps again."""
        topic = Topic(signed.envelope.to, signed.envelope.sender, signed.envelope.kind)
        return self.box.open(Arrived(str(topic), signed.text.encode()))

    def rows(self, table: sa.Table) -> list[Any]:
        """What is stored."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(table)))

    def tidy(self) -> None:
        """The housekeeping of each heartbeat."""
        with writing(self.engine) as connection:
            self.box.forget_expired(connection)

    def said(self) -> list[Envelope]:
        """What was published, as its recipient reads it."""
        return [
            open_envelope(text, self.members.register, me=topic.split("/")[1], clock=lambda: self.now)
            for topic, text in self.published
        ]


@pytest.fixture
def post(tmp_path: Path, members: Members) -> Iterator[Post]:
    """An empty mailbox."""
    post = Post(tmp_path / "post.db", members)
    yield post
    post.engine.dispose()


def due_now(post: Post) -> None:
    """Let the delay of everything that waits be over."""
    for waiting in post.box._waiting.values():
        waiting.due_at = time.monotonic()


# The outbox


def test_a_message_waits_until_its_recipient_says_that_it_came(post: Post) -> None:
    """A broker's word proves nothing."""
    signed = post.post()
    assert post.box.waiting == 1
    post.arrives("alice", Receipt(received=signed.envelope.jti))
    assert post.box.waiting == 0
    assert post.receipts == [signed.envelope.jti]
    post.tidy()
    assert post.rows(outbox) == []


def test_a_receipt_from_another_member_changes_nothing(post: Post) -> None:
    """Else mallory could make a hospital forget what it owes alice."""
    signed = post.post()
    with pytest.raises(MessageRefusedError, match="mallory"):
        post.arrives("mallory", Receipt(received=signed.envelope.jti))
    post.tidy()
    assert post.box.waiting == 1
    assert len(post.rows(outbox)) == 1


def test_a_receipt_for_something_unknown_is_passed_over(post: Post) -> None:
    """The second Receipt for one message is as usual as the first."""
    post.post()
    assert post.arrives("alice", Receipt(received="f" * 32)) is None
    assert post.box.waiting == 1


def test_an_unsigned_receipt_changes_nothing(post: Post, members: Members) -> None:
    """The network host could write one."""
    signed = post.post()
    forged = Signer("alice", members.keys["mallory"], lambda: NOW).sign("north", Receipt(received=signed.envelope.jti))
    with pytest.raises(MessageRefusedError):
        post.opens(forged)
    assert post.box.waiting == 1


def test_the_same_text_is_sent_again_on_each_new_connection(post: Post) -> None:
    """The broker may have forgotten everything; the recipient knows the jti."""
    post.is_up = False
    signed = post.post()
    assert post.published == []
    post.is_up = True
    post.box.repeat_all()
    post.box.repeat_all()
    assert post.published == [("to/alice/from/north/stopped", signed.text)] * 2


def test_the_same_text_is_sent_again_after_a_delay_that_grows(post: Post) -> None:
    """A Receipt may be lost as well, and a recipient may be away for days."""
    signed = post.post()
    post.box.repeat_due()
    assert len(post.published) == 1
    delays = []
    for _ in range(8):
        due_now(post)
        post.box.repeat_due()
        delays.append(round(post.box.next_due_s(), 0))
    assert {text for _, text in post.published} == {signed.text}
    assert len(post.published) == 9
    assert delays[0] == FIRST_REPEAT_S
    assert delays == sorted(delays)
    assert delays[-1] == LAST_REPEAT_S


def test_the_delay_starts_anew_with_a_new_connection(post: Post) -> None:
    """What waited longest must not wait a minute more once the line is back."""
    post.post()
    for _ in range(6):
        due_now(post)
        post.box.repeat_due()
    post.box.repeat_all()
    assert post.box.next_due_s() <= FIRST_REPEAT_S


def test_a_restart_sends_again_what_had_no_receipt(post: Post) -> None:
    """The message is in the store before it is on the line."""
    signed = post.post(send=False)
    post.restart()
    assert post.box.waiting == 1
    post.box.repeat_due()
    assert [text for _, text in post.published] == [signed.text]


def test_a_receipt_also_settles_what_an_earlier_process_sent(post: Post) -> None:
    """The recipient answers when it can."""
    signed = post.post()
    post.restart()
    post.arrives("alice", Receipt(received=signed.envelope.jti))
    post.restart()
    assert post.box.waiting == 1  # a crash before the next write brings it back, harmlessly
    post.arrives("alice", Receipt(received=signed.envelope.jti))
    post.tidy()
    post.restart()
    assert post.box.waiting == 0


def test_a_settled_message_is_gone_with_the_next_post(post: Post) -> None:
    """The outbox stays as small as what waits."""
    first = post.post()
    post.arrives("alice", Receipt(received=first.envelope.jti))
    second = post.post()
    assert [row.jti for row in post.rows(outbox)] == [second.envelope.jti]


def test_a_refused_transaction_does_not_bring_settled_messages_back(post: Post) -> None:
    """Accepting is what is rolled back most often."""
    first = post.post()
    post.arrives("alice", Receipt(received=first.envelope.jti))
    envelope = post.arrives("alice", STOP)
    assert envelope is not None
    with pytest.raises(ZeroDivisionError), writing(post.engine) as connection:
        post.box.accept(connection, envelope)
        raise ZeroDivisionError
    post.tidy()
    assert post.rows(outbox) == []


def test_a_settled_message_is_gone_although_the_next_post_was_undone(post: Post) -> None:
    """A full disk may undo several in a row; each must not leave one more row for good."""
    first = post.post()
    post.arrives("alice", Receipt(received=first.envelope.jti))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), writing(post.engine) as connection:
            post.box.post(connection, "alice", STOPPED)
            post.box.post(connection, "alice", STOPPED)
            raise ZeroDivisionError
    post.tidy()
    assert post.rows(outbox) == []
    post.tidy()
    assert not post.box._settled  # and memory does not grow either


def test_what_was_not_committed_is_never_sent(post: Post) -> None:
    """A message and its cause are one."""
    with pytest.raises(ZeroDivisionError), writing(post.engine) as connection:
        post.box.post(connection, "alice", STOPPED)
        raise ZeroDivisionError
    post.restart()
    post.box.repeat_all()
    assert post.published == []


def test_an_expired_message_is_dropped(post: Post) -> None:
    """Its recipient would refuse it."""
    post.post()
    post.now += STOPPED.lifetime_s + 1
    post.box.repeat_all()
    assert len(post.published) == 1
    assert post.box.waiting == 0
    post.tidy()
    assert post.rows(outbox) == []


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_message_written_by_a_clock_that_was_ahead_is_dated_anew(is_restarted: bool, post: Post) -> None:
    """Its recipient refuses what is from the future: without this, an hour's mistake would hold it back for an hour."""
    right, post.now = post.now, post.now + 3600
    signed = post.post()
    post.now = right
    if is_restarted:
        post.restart()
    post.box.repeat_all()
    del post.published[0]  # refused by whoever reads it now
    (again,) = post.said()
    assert (again.jti, again.body) == (signed.envelope.jti, signed.envelope.body)
    assert (again.issued_at, again.expires_at) == (right, right + STOPPED.lifetime_s)


def test_a_clock_that_starts_years_behind_costs_no_message(post: Post) -> None:
    """A machine without a battery wakes up in the past; until it is told the time, what waits must not grow old."""
    signed, right = post.post(), post.now
    post.now -= 5 * 365 * 86_400
    post.restart()
    post.box.repeat_all()
    post.published.clear()

    post.now = right + 10
    post.box.repeat_all()
    post.tidy()

    assert post.said()[-1].jti == signed.envelope.jti
    assert post.box.waiting == len(post.rows(outbox)) == 1


def test_a_withdrawn_message_is_not_sent_again(post: Post) -> None:
    """A round that was closed needs no more requests."""
    signed = post.post()
    with writing(post.engine) as connection:
        erase(connection, [signed.envelope.jti])
    post.box.withdraw([signed.envelope.jti])
    post.box.repeat_all()
    post.restart()
    post.box.repeat_all()
    assert len(post.published) == 1


def test_messages_are_taken_up_in_the_order_in_which_they_were_written(post: Post) -> None:
    """A stop behind its train must stay behind it."""
    texts = []
    for number in range(5):
        post.now += 1
        texts.append(post.post(body=Stopped(experiment_id=f"e-{number}", was_running=False, ended_at=None)).text)
    post.published.clear()
    post.restart()
    post.box.repeat_all()
    assert [text for _, text in post.published] == texts


def test_a_message_that_nobody_would_take_is_not_posted(post: Post, members: Members) -> None:
    """It would be repeated for its whole life and refused each time."""
    body = ErrorReply.model_construct(code=Code.INTERNAL, message="x" * (1 << 20))
    with pytest.raises(FedWardError) as refusal:
        post.post(body=body)
    assert refusal.value.code is Code.MESSAGE_TOO_LARGE
    assert post.rows(outbox) == []


def test_nothing_waiting_means_nothing_due_for_a_minute(post: Post) -> None:
    """The caller sleeps until then."""
    assert post.box.next_due_s() == LAST_REPEAT_S


# The inbox


def accept(post: Post, envelope: Envelope) -> None:
    """Act upon a message: commit, then answer."""
    with writing(post.engine) as connection:
        post.box.accept(connection, envelope)
    post.box.acknowledge(envelope)


def test_a_durable_message_that_comes_again_is_answered_and_not_acted_upon(post: Post, members: Members) -> None:
    """Its Receipt was lost; the work was not."""
    signed = members.signer("alice").sign("north", STOP)
    envelope = post.opens(signed)
    assert envelope is not None
    accept(post, envelope)
    for _ in range(3):
        assert post.opens(signed) is None
    receipts = [said.body.received for said in post.said() if isinstance(said.body, Receipt)]
    assert receipts == [signed.envelope.jti] * 4


def test_a_message_is_known_again_after_a_restart(post: Post, members: Members) -> None:
    """Else each restart would train again."""
    signed = members.signer("alice").sign("north", STOP)
    envelope = post.opens(signed)
    assert envelope is not None
    accept(post, envelope)
    post.restart()
    assert post.opens(signed) is None


def test_a_message_whose_acceptance_was_rolled_back_comes_as_a_new_one(post: Post, members: Members) -> None:
    """A crash in the middle loses nothing, for no Receipt was sent."""
    signed = members.signer("alice").sign("north", STOP)
    envelope = post.opens(signed)
    assert envelope is not None
    with pytest.raises(ZeroDivisionError), writing(post.engine) as connection:
        post.box.accept(connection, envelope)
        raise ZeroDivisionError
    assert post.published == []
    assert post.opens(signed) == envelope


def test_one_member_cannot_use_up_anothers_message_id(post: Post, members: Members, monkeypatch: Any) -> None:
    """The network host sees every jti and may have a friend among the members."""
    signed = members.signer("alice").sign("north", STOP)
    with monkeypatch.context() as patch:
        patch.setattr("appliance.protocol.envelope.new_jti", lambda: signed.envelope.jti)
        stolen = members.signer("mallory").sign("north", STOP)
    first = post.opens(stolen)
    assert first is not None
    accept(post, first)
    assert post.opens(signed) is not None


def test_a_question_that_comes_again_is_answered_again(post: Post, members: Members) -> None:
    """Whoever asked repeats it word for word until an answer comes."""
    signed = members.signer("alice").sign("north", Ping(sequence=1))
    assert post.opens(signed) == post.opens(signed) == signed.envelope


def test_what_was_received_is_forgotten_only_when_it_could_not_act_any_more(post: Post, members: Members) -> None:
    """A replay an hour too late must still find its jti here."""
    envelope = post.arrives("alice", STOP)
    assert envelope is not None
    accept(post, envelope)
    post.now = envelope.expires_at + 3600
    post.tidy()
    assert len(post.rows(inbox)) == 1
    post.now += 1
    post.tidy()
    assert post.rows(inbox) == []


def test_receipts_have_no_receipts(post: Post) -> None:
    """Two mailboxes must not thank each other for ever."""
    signed = post.post()
    post.published.clear()
    post.arrives("alice", Receipt(received=signed.envelope.jti))
    assert post.published == []


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("to/north/from/mallory/ping", Code.MESSAGE_MISADDRESSED),
        ("to/south/from/alice/ping", Code.MESSAGE_MISADDRESSED),
        ("to/north/from/alice/pong", Code.MESSAGE_MISADDRESSED),
        ("to/consortium/from/alice/ping", Code.MESSAGE_MISADDRESSED),
        ("to/north/from/alice", Code.MESSAGE_MALFORMED),
        ("to/north/from/alice/ping/more", Code.MESSAGE_MALFORMED),
        ("", Code.MESSAGE_MALFORMED),
    ],
)
def test_a_message_on_another_topic_than_its_own_is_refused(
    post: Post, members: Members, topic: str, code: Code
) -> None:
    """The broker's access list speaks of topics, the signature of members: both must say the same."""
    signed = members.signer("alice").sign("north", Ping(sequence=1))
    with pytest.raises(MessageRefusedError) as refusal:
        post.box.open(Arrived(topic, signed.text.encode()))
    assert refusal.value.code is code


def test_a_message_for_another_member_is_refused(post: Post, members: Members) -> None:
    """The network host could hand it to anybody."""
    signed = members.signer("alice").sign("south", Ping(sequence=1))
    with pytest.raises(MessageRefusedError) as refusal:
        post.box.open(Arrived("to/north/from/alice/ping", signed.text.encode()))
    assert refusal.value.code is Code.MESSAGE_MISADDRESSED


def test_a_stranger_is_refused(post: Post, members: Members) -> None:
    """A certificate opens a line; it makes nobody a member."""
    signed = Signer("eve", MemberKeys.generate(), lambda: NOW).sign("north", Ping(sequence=1))
    with pytest.raises(MessageRefusedError) as refusal:
        post.box.open(Arrived("to/north/from/eve/ping", signed.text.encode()))
    assert refusal.value.code is Code.SENDER_UNKNOWN


def test_an_answer_goes_to_its_asker_alone_whoever_repeats_the_question(post: Post) -> None:
    """A replay makes the node say again what it said, to whom it said it."""
    envelope = post.arrives("alice", Ping(sequence=1))
    assert envelope is not None
    post.box.send_once(envelope.sender, Pong(sequence=1), in_reply_to=envelope.jti)
    assert post.published[-1][0] == "to/alice/from/north/pong"
