"""The researcher's connection: questions, presence, and post that belongs to somebody else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from appliance.protocol.envelope import Envelope
from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.messages import Body, ErrorReply, Ping, PlanApproval, Pong, TrainReply
from appliance.protocol.register import MemberState, sign_register
from researcher_kit import Federation
from researcher_kit.errors import ExperimentArgumentError, NetworkUnreachableError
from tests.simulator import Consortium, SimulatedNode


def stray_reply(node: SimulatedNode) -> str:
    """A TrainReply for an experiment that nobody here runs."""
    body = TrainReply(experiment_id="exp-elsewhere", round=1, dataset_id="x", update=None)
    return node.send("alice", body, in_reply_to="0" * 32)


def test_ping_says_who_answers_and_how_fast(federation: Federation) -> None:
    """The first thing that anybody tries."""
    table = federation.ping()

    assert set(table.answers) == {"north", "south", "west"}
    assert "North Hospital" in str(table)


def test_a_silent_node_is_named(federation: Federation, consortium: Consortium) -> None:
    """Silence is an answer too, and it must not look like a hospital that is not a member."""
    consortium.nodes["west"].is_silent = True
    table = federation.ping(timeout_s=0.3)

    assert "west" in table.silent
    assert "no answer" in str(table)


def test_a_question_that_is_lost_is_asked_again_word_for_word(federation: Federation, consortium: Consortium) -> None:
    """With the same jti, so that an answer to either one counts."""
    consortium.broker.drop("ping", 3)
    table = federation.ping(timeout_s=10)

    assert set(table.answers) == {"north", "south", "west"}
    assert len({text for topic, text in consortium.broker.texts if topic.endswith("/ping")}) == 3


def test_a_question_is_asked_again_when_the_line_comes_back(federation: Federation, consortium: Consortium) -> None:
    """At once, and not at the next repetition."""
    with consortium.broker.down():
        questions = federation._send_questions({"north": Ping(sequence=1)})
    federation._await_answers(questions, time.monotonic() + 10)

    assert [question.answer.body for question in questions.values()] == [Pong(sequence=1)]


def test_no_line_at_all_is_said_so(federation: Federation, consortium: Consortium) -> None:
    """Not as three silent hospitals: the researcher would call the wrong people."""
    with consortium.broker.down(), pytest.raises(NetworkUnreachableError, match="memory:1"):
        federation.ping(timeout_s=0.2)


def test_search_finds_datasets_by_all_tags(federation: Federation) -> None:
    """One that lacks a tag is another dataset."""
    assert federation.search(["demo"])["north"][0].dataset_id == "north-cohort"
    assert federation.search(["demo", "more"])["north"] == ()


def test_list_shows_what_may_be_used(federation: Federation) -> None:
    """The researcher's view of the consortium's data."""
    assert "south-cohort" in str(federation.list())


@pytest.mark.parametrize("tags", ["demo", [], [""], [1], ["x"] * 17])
def test_wrong_tags_are_refused_here(federation: Federation, tags: object) -> None:
    """Before every hospital refuses them."""
    with pytest.raises(ExperimentArgumentError, match="tags"):
        federation.search(tags)


def test_an_unknown_node_is_refused_by_name(federation: Federation) -> None:
    """A typing error should not become a timeout."""
    with pytest.raises(ExperimentArgumentError, match="nroth"):
        federation.search(["demo"], nodes=["nroth"])


def test_liveness_is_the_last_signed_heartbeat(federation: Federation, consortium: Consortium) -> None:
    """The broker's word alone makes no node dead or alive."""
    consortium.nodes["north"].beat()
    consortium.nodes["south"].beat(at=time.time() - 100)
    consortium.nodes["west"].leave_a_last_will()
    federation.ping()  # answers come behind what was sent before

    states = {row[0]: row[2] for row in federation.nodes().rows}
    assert states == {"north": "alive", "south": "silent", "west": "line broke?"}


def test_an_old_heartbeat_proves_nothing(federation: Federation, consortium: Consortium) -> None:
    """Whoever carries the post could repeat it to make a dead node look alive."""
    consortium.nodes["north"].beat()
    consortium.nodes["north"].beat(at=time.time() - 50)
    federation.ping()

    assert federation.nodes()["north"].is_alive(time.time())


def test_a_last_will_is_only_a_hint(federation: Federation, consortium: Consortium) -> None:
    """Anybody at the broker can write one; the next heartbeat takes it back."""
    consortium.nodes["north"].beat()
    consortium.nodes["north"].leave_a_last_will()
    federation.ping()
    hinted = federation.nodes().rows[0][2]
    consortium.nodes["north"].beat(at=time.time() + 5)
    federation.ping()

    assert hinted == "alive, line broke?"
    assert federation.nodes().rows[0][2] == "alive"


def test_the_reply_of_another_experiment_is_not_acknowledged(federation: Federation, consortium: Consortium) -> None:
    """Another notebook of the same researcher may wait for it: a Receipt would lose it."""
    north = consortium.nodes["north"]
    stray_reply(north)
    federation.ping()

    assert north.waiting == 1
    assert consortium.broker.passed["receipt"] == 0


def test_two_notebooks_of_one_researcher_do_not_disturb_each_other(
    federation: Federation, consortium: Consortium
) -> None:
    """Each has its own line and its own answers, and they share the store."""
    with consortium.federation() as other:
        assert set(other.ping().answers) == set(federation.ping().answers)


def test_a_refusal_of_a_question_is_an_answer_and_acknowledged(federation: Federation, consortium: Consortium) -> None:
    """Otherwise the node would send it for a week."""
    federation.ping()
    north = consortium.nodes["north"]
    refusal = ErrorReply(code=Code.PERMISSION_DENIED, message="Not you.")
    north._answers = lambda _envelope: iter([refusal])
    answers = federation.ask({"north": Ping(sequence=1)})
    north._answers = lambda _envelope: iter([Pong(sequence=1)])
    federation.ask({"north": Ping(sequence=2)})

    assert answers["north"].body == refusal
    assert north.waiting == 0


def test_an_answer_by_another_member_is_no_answer(federation: Federation, consortium: Consortium) -> None:
    """The question went to north: mallory cannot speak for it."""
    north, mallory = consortium.nodes["north"], consortium.nodes["west"]

    def forge(envelope: Envelope) -> list[Body]:
        mallory.send("alice", Pong(sequence=1), in_reply_to=envelope.jti)
        return []

    north._answers = forge

    assert federation.ask({"north": Ping(sequence=1)}, timeout_s=0.3) == {}


def test_a_request_for_review_outlives_the_notebook(consortium: Consortium) -> None:
    """The hospital was off and the notebook is closed: the next connection still delivers it."""
    body = PlanApproval(name="p", description="d", source="s", sha256="0" * 64)
    with consortium.federation() as federation, consortium.broker.down(), pytest.raises(NetworkUnreachableError):
        federation.ask({"north": body}, timeout_s=0.1)
    with consortium.federation() as federation:
        federation.ping()
        federation.ping()

    assert consortium.nodes["north"].plans == {"0" * 64: "s"}


def test_a_new_register_is_taken_up(federation: Federation, consortium: Consortium, tmp_path: Path) -> None:
    """A node that lost its membership must not be asked by a notebook that has been open for days."""
    lines = [
        member.model_copy(update={"state": MemberState.REVOKED}) if member.id == "west" else member
        for member in consortium.register.members
    ]
    newer = consortium.register.model_copy(update={"members": tuple(lines), "version": 2})
    (tmp_path / "alice/register.jws").write_text(sign_register(newer, consortium.operator))

    assert federation.node_ids() == ("north", "south")


def test_an_older_register_is_never_taken_back(federation: Federation, consortium: Consortium, tmp_path: Path) -> None:
    """It could bring a revoked member back."""
    path = tmp_path / "alice/register.jws"
    path.write_text(sign_register(consortium.register.model_copy(update={"version": 5}), consortium.operator))
    assert federation.register.version == 5
    path.write_text(sign_register(consortium.register, consortium.operator))

    assert federation.register.version == 5


def test_no_folder_is_an_error_that_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that goes wrong in a new notebook."""
    monkeypatch.delenv("FEDWARD_RESEARCHER_HOME", raising=False)

    with pytest.raises(ConfigurationError) as caught:
        Federation()

    assert "FEDWARD_RESEARCHER_HOME" in caught.value.remedy


def test_whoever_stops_listening_was_told_all_that_was_recorded_for_him(
    federation: Federation, consortium: Consortium
) -> None:
    """Else the next one finds no reply in the store, and waits for ever for one that is recorded a moment later."""
    is_recording, is_recorded = threading.Event(), threading.Event()
    heard: list[str] = []

    class Slow:
        def record(self, *_: object) -> None:
            is_recording.set()
            assert is_recorded.wait(10)

        def arrived(self, envelope: Envelope) -> None:
            heard.append(envelope.kind)

        def received(self, jti: str) -> None:
            """Of no interest."""

    with federation.listening("exp-elsewhere", Slow()):
        stray_reply(consortium.nodes["north"])
        assert is_recording.wait(10)
        threading.Timer(0.2, is_recorded.set).start()

    assert heard == [TrainReply.kind]
