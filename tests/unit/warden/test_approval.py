"""Plans: a text is its hash, and only what staff said yes to may run."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import ArgumentRange, PlanApproval, PlanState
from appliance.warden.approval import PENDING_AT_MOST, PlanNotApprovedError
from appliance.warden.store import plan_decisions, plans
from tests.unit.warden.conftest import PLAN, PLAN_SHA, Node

ALLOWED = ArgumentRange(name="epochs", maximum=5)


def request(node: Node, source: str = PLAN, researcher: str = "alice", **changes: Any) -> str:
    """A researcher's request for review; returns the text's hash."""
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    asked = PlanApproval(**({"name": "plan", "description": "", "source": source, "sha256": sha256} | changes))
    with node.store.write() as connection:
        node.services.plans.request(connection, researcher, asked)
    return sha256


def decide(node: Node, decision: str, sha256: str = PLAN_SHA, **options: Any) -> None:
    """Staff decide."""
    with node.store.write() as connection:
        getattr(node.services.plans, decision)(connection, "Dr. Weiss", sha256, **({"note": ""} | options))


def approve(node: Node, **options: Any) -> None:
    """Staff say yes."""
    decide(node, "approve", **({"until": None, "ranges": None} | options))


def state(node: Node, sha256: str = PLAN_SHA) -> PlanState:
    """Where the text stands."""
    with node.store.read() as connection:
        return node.services.plans.standing(connection, sha256)[0]


def runnable(node: Node, sha256: str = PLAN_SHA) -> tuple[str, tuple[ArgumentRange, ...]]:
    """The text, if it may run."""
    with node.store.read() as connection:
        return node.services.plans.require_runnable(connection, sha256)


def test_a_text_waits_until_somebody_said_yes(node: Node) -> None:
    """Silence is not approval."""
    request(node)
    assert state(node) is PlanState.PENDING
    with pytest.raises(PlanNotApprovedError):
        runnable(node)


def test_an_approved_text_runs_exactly_as_it_was_approved(node: Node) -> None:
    """Not a byte less or more."""
    request(node)
    approve(node)
    assert runnable(node)[0] == PLAN


def test_a_text_of_one_other_byte_is_another_text(node: Node) -> None:
    """A blank at the end may be all that a trick needs."""
    request(node)
    approve(node)
    other = request(node, PLAN + " ")
    assert state(node, other) is PlanState.PENDING


def test_a_text_that_does_not_have_its_stated_hash_is_refused_and_not_kept(node: Node) -> None:
    """Else one text would be read and another one approved."""
    with pytest.raises(FedWardError) as refusal:
        request(node, PLAN, sha256="0" * 64)
    assert refusal.value.code is Code.PLAN_INVALID
    assert node.table(plans) == []


@pytest.mark.parametrize("text", ["# harmless\rimport os\n", "x = 1\r", "x = 1\r\r\n"])
def test_a_line_end_that_nobody_sees_is_refused_and_not_kept(node: Node, text: str) -> None:
    """Python runs what the page would show as a comment's end."""
    with pytest.raises(FedWardError, match="carriage return") as refusal:
        request(node, text)
    assert refusal.value.code is Code.PLAN_INVALID
    with pytest.raises(FedWardError, match="carriage return"), node.store.write() as connection:
        node.services.plans.add(connection, "Dr. Weiss", "ours", "", text)
    assert node.table(plans) == []


def test_a_text_from_another_system_and_with_a_form_feed_is_taken(node: Node) -> None:
    """CRLF is a line end that everybody sees, and a form feed ends no line."""
    assert state(node, request(node, "x = 1\r\n\x0cy = 2\r\n")) is PlanState.PENDING


def test_an_unknown_text_is_said_to_be_unknown(node: Node) -> None:
    """The researcher then sends it."""
    assert state(node) is PlanState.UNKNOWN
    with pytest.raises(PlanNotApprovedError) as refusal:
        runnable(node)
    assert refusal.value.code is Code.PLAN_UNKNOWN


@pytest.mark.parametrize("decision", ["reject", "revoke"])
def test_a_no_holds_when_the_same_text_is_asked_for_again(node: Node, decision: str) -> None:
    """Asking until somebody is tired must not help."""
    request(node)
    approve(node)
    decide(node, decision)
    request(node)
    assert state(node) in (PlanState.REJECTED, PlanState.REVOKED)
    with pytest.raises(PlanNotApprovedError):
        runnable(node)


def test_whoever_is_refused_reads_what_the_reviewer_wrote(node: Node) -> None:
    """A no without a reason cannot be mended."""
    request(node)
    decide(node, "reject", note="Please leave the free text out.")
    with pytest.raises(PlanNotApprovedError, match=r"Please leave the free text out\.") as refusal:
        runnable(node)
    assert "plan_approval = required" in (refusal.value.rule or "")


def test_an_approval_ends_by_itself(node: Node) -> None:
    """Nobody has to remember it."""
    request(node)
    approve(node, until=node.clock() + 60)
    assert state(node) is PlanState.APPROVED
    node.clock.ahead_s = 61
    assert state(node) is PlanState.EXPIRED
    with pytest.raises(PlanNotApprovedError):
        runnable(node)


def test_an_approval_cannot_end_before_it_begins(node: Node) -> None:
    """A wrong year would look like an approval."""
    request(node)
    with pytest.raises(FedWardError, match="past"):
        approve(node, until=node.clock() - 1)


def test_only_an_approval_can_be_taken_back(node: Node) -> None:
    """The record must not say revoked of what never ran."""
    request(node)
    with pytest.raises(FedWardError):
        decide(node, "revoke")


def test_the_researchers_ranges_hold_unless_staff_say_others(node: Node) -> None:
    """What the researcher offered to keep to is approved as offered."""
    request(node, ranges=(ALLOWED,))
    approve(node)
    assert runnable(node)[1] == (ALLOWED,)
    tighter = ArgumentRange(name="epochs", maximum=2)
    approve(node, ranges=(tighter,))
    assert runnable(node)[1] == (tighter,)


def test_a_second_request_changes_neither_name_nor_ranges(node: Node) -> None:
    """Else mallory could widen what was approved for alice."""
    request(node, ranges=(ALLOWED,))
    approve(node)
    request(node, researcher="mallory", name="other", ranges=())
    assert runnable(node)[1] == (ALLOWED,)
    assert node.table(plans)[0]["name"] == "plan"


def test_a_plan_of_the_hospitals_own_runs_at_once_and_says_whose_it_is(node: Node) -> None:
    """The hospital need not ask itself."""
    with node.store.write() as connection:
        node.services.plans.add(connection, "Dr. Weiss", "ours", "", PLAN)
    assert runnable(node)[0] == PLAN
    assert (node.table(plans)[0]["origin"], node.table(plans)[0]["reviewer"]) == ("hospital", "Dr. Weiss")


def test_with_approval_switched_off_a_text_runs_unseen_but_not_against_a_no(node: Node) -> None:
    """A rejected text stays rejected, whatever the switch says."""
    node.services.policy.change({"plan_approval": "off"}, lambda _connection: None)
    request(node)
    assert state(node) is PlanState.NOT_REQUIRED
    assert runnable(node)[0] == PLAN
    decide(node, "reject")
    with pytest.raises(PlanNotApprovedError):
        runnable(node)


def test_each_decision_is_in_the_log_with_the_person_who_took_it(node: Node) -> None:
    """Responsibility needs a name."""
    request(node)
    approve(node, note="read on paper")
    decide(node, "revoke")
    lines = [(line["event"], line["actor"]) for line in node.audit()]
    assert lines == [
        ("plan.requested", "alice"),
        ("plan.approved", "staff:Dr. Weiss"),
        ("plan.revoked", "staff:Dr. Weiss"),
    ]


def test_one_researchers_waiting_plans_are_bounded_and_anothers_are_not_hindered(node: Node) -> None:
    """Half a megabyte each: a flood of requests must not fill the disk, nor hide the others."""
    for number in range(PENDING_AT_MOST):
        request(node, f"# {number}", researcher="mallory")
    with pytest.raises(FedWardError) as refusal:
        request(node, "# one more", researcher="mallory")
    assert refusal.value.rule is not None
    request(node, "# 0", researcher="mallory")  # known already: costs nothing
    request(node, "# alice's")
    assert len(node.table(plans)) == PENDING_AT_MOST + 1


# Two reviewers


@pytest.fixture
def two(node: Node) -> Node:
    """A site at which two people approve."""
    node.services.policy.change({"second_reviewer": True}, lambda _connection: None)
    return node


def second(node: Node, staff: str = "Dr. Braun", **options: Any) -> bool:
    """Another person approves; says whether the text may run now."""
    with node.store.write() as connection:
        terms = {"note": "", "until": None, "ranges": None} | options
        return node.services.plans.approve(connection, staff, PLAN_SHA, **terms)


def test_an_approval_counts_once_two_people_gave_it(two: Node) -> None:
    """Neither of them alone."""
    request(two)
    approve(two)
    assert state(two) is PlanState.PENDING
    with pytest.raises(PlanNotApprovedError):
        runnable(two)

    assert second(two)
    assert runnable(two)[0] == PLAN


@pytest.mark.parametrize("name", ["Dr. Weiss", "dr. weiss", "Dr. Weiss ", "Dr.  Weiss", "Dr. Weiß", "\uff24r. Weiss"])
def test_the_same_person_is_not_two(two: Node, name: str) -> None:
    """However the name is written."""
    request(two)
    approve(two)
    with pytest.raises(FedWardError) as refusal:
        second(two, name)
    assert refusal.value.rule == "second_reviewer = True (set by the site)"
    assert state(two) is PlanState.PENDING


@pytest.mark.parametrize(("maker", "made"), [("Dr. Weiss", "Dr. Braun"), ("Dr. Braun", "Dr. Weiss")])
@pytest.mark.parametrize("event", ["account.invited", "account.roles-changed"])
def test_who_let_the_other_in_is_not_two(two: Node, maker: str, made: str, event: str) -> None:
    """Whoever made an account may hold its one-time link, and so be both."""
    request(two)
    approve(two)
    with two.store.write() as connection:
        two.services.audit.write(connection, f"staff:{maker}", event, made)
    with pytest.raises(FedWardError, match="let the other in") as refusal:
        second(two)
    assert refusal.value.rule == "second_reviewer = True (set by the site)"
    assert state(two) is PlanState.PENDING


def test_who_were_let_in_by_somebody_else_are_two(two: Node) -> None:
    """An administrator lets both in, and approves nothing."""
    request(two)
    approve(two)
    for made in ("Dr. Weiss", "Dr. Braun"):
        with two.store.write() as connection:
            two.services.audit.write(connection, "staff:Eva", "account.invited", made)

    assert second(two)


def test_to_bring_a_text_is_no_second_approval(two: Node) -> None:
    """Whoever brings it did not read what the first reviewer approved; it is given where the plan waits."""
    request(two)
    approve(two)
    with pytest.raises(FedWardError, match="second of two") as refusal, two.store.write() as connection:
        two.services.plans.add(connection, "Otto", "ours", "", PLAN)
    assert refusal.value.code is Code.POLICY_REFUSED
    assert state(two) is PlanState.PENDING


def test_the_second_reviewer_takes_over_the_first_ones_terms(two: Node) -> None:
    """Both must have said yes to the same thing."""
    request(two)
    until = two.clock() + 3600
    approve(two, ranges=(ALLOWED,), until=until)
    for other in ({"ranges": ()}, {"until": until + 1}):
        with pytest.raises(FedWardError):
            second(two, **other)

    assert second(two, ranges=(ALLOWED,), until=until)
    assert runnable(two)[1] == (ALLOWED,)
    assert two.table(plans)[0]["until"] == until


def test_an_end_that_passed_before_the_second_approval_is_told(two: Node) -> None:
    """It would be approved and not run."""
    request(two)
    approve(two, until=two.clock() + 60)
    two.clock.ahead_s = 120
    with pytest.raises(FedWardError, match="in the past"):
        second(two)


def test_a_rejection_undoes_a_first_approval(two: Node) -> None:
    """The next approval is a first one again."""
    request(two)
    approve(two)
    decide(two, "reject")
    assert not second(two)
    assert state(two) is PlanState.REJECTED


def test_what_was_approved_before_the_rule_stays(node: Node) -> None:
    """The rule is about approvals to come."""
    request(node)
    approve(node)
    node.services.policy.change({"second_reviewer": True}, lambda _connection: None)
    assert runnable(node)[0] == PLAN


def test_a_first_approval_counts_no_more_than_one_when_the_rule_is_taken_back(two: Node) -> None:
    """Then one is enough: the next one."""
    request(two)
    approve(two)
    two.services.policy.change({"second_reviewer": None}, lambda _connection: None)
    assert state(two) is PlanState.PENDING
    assert second(two)


def test_every_decision_is_kept_for_the_reviewers_to_come(two: Node) -> None:
    """Who approved what before."""
    request(two)
    approve(two, note="read")
    second(two, note="read as well")
    decide(two, "revoke", note="a leak")
    kept = [(d["staff"], d["decision"], d["note"]) for d in two.table(plan_decisions)]
    assert kept == [
        ("Dr. Weiss", "first-approved", "read"),
        ("Dr. Braun", "approved", "read as well"),
        ("Dr. Weiss", "revoked", "a leak"),
    ]
