"""Training plans and what the hospital's staff decided about them.

A plan is its exact text; its SHA-256 is its name. An approval covers that text and the ranges of its arguments,
may end by itself, and can be taken back at any moment. Where the site asks for a second reviewer, it counts once two
different people gave it, neither of whom let the other into the GUI.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from appliance.protocol.envelope import Clock
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.person import same_person
from appliance.protocol.messages import ArgumentRange, PlanApproval, PlanState
from appliance.transport.sqlite import Statement
from appliance.warden.audit import AuditLog
from appliance.warden.findings import lone_returns
from appliance.warden.history import let_in_by
from appliance.warden.policy import Policy
from appliance.warden.store import plan_decisions, plans

_BY_HASH = Statement(sa.select(plans).where(plans.c.sha256 == sa.bindparam("sha256")))
PENDING_AT_MOST = 50  # a researcher's plans that wait for review; a text may have half a megabyte


class PlanNotApprovedError(FedWardError):
    """The plan's text is not among those that this node's staff approved."""

    code = Code.PLAN_NOT_APPROVED


class DecisionStaleError(FedWardError):
    """Somebody else decided since this was shown to whoever decides now."""

    code = Code.DECISION_STALE


class PlanBook:
    """All plans that this node knows."""

    def __init__(self, policy: Policy, audit: AuditLog, clock: Clock = time.time) -> None:
        self._policy = policy
        self._audit = audit
        self._clock = clock

    def request(self, connection: sa.Connection, researcher: str, asked: PlanApproval) -> None:
        """A researcher asks for review. A text that is already known keeps its standing.

        Raises:
            FedWardError: The stated hash is not the text's, a line of it ends unseen, or too many plans of theirs wait.
        """
        sha256 = _sha256(asked.source)
        if sha256 != asked.sha256:
            raise FedWardError("The plan's text does not match its stated hash.", code=Code.PLAN_INVALID)
        if self._find(connection, sha256) is None:
            self._require_room(connection, researcher)
            self._insert(
                connection, asked.name, asked.description, asked.source, researcher, "researcher", asked.ranges
            )
        self._audit.write(connection, researcher, "plan.requested", sha256, name=asked.name)

    def add(self, connection: sa.Connection, staff: str, name: str, description: str, source: str) -> str:
        """The hospital brings a plan of its own, which is its approval by whoever brings it. Returns its SHA-256.

        Raises:
            FedWardError: It waits for its second approval, which is given to what the first reviewer approved.
        """
        sha256 = _sha256(source)
        known = self._find(connection, sha256)
        if known is not None and known["first_approval"] is not None:
            raise FedWardError(
                f"This text waits here as '{known['name']}' for the second of two approvals.",
                code=Code.POLICY_REFUSED,
                rule=str(self._policy.rule("second_reviewer")),
                remedy="Another reviewer approves it where it waits, after reading it and the first one's terms.",
            )
        if known is None:
            self._insert(connection, name, description, source, staff, "hospital", ())
        self.approve(connection, staff, sha256, note="Brought by the hospital.", until=None, ranges=None)
        return sha256

    def approve(
        self,
        connection: sa.Connection,
        staff: str,
        sha256: str,
        *,
        note: str,
        until: float | None,
        ranges: Sequence[ArgumentRange] | None,
        shown: int | None = None,
    ) -> bool:
        """Permit the text to run, or be the first of two who do.

        Args:
            until: When the approval ends by itself (seconds since the epoch), or None.
            ranges: What values its arguments may take; None takes over what the researcher proposed, or, from the
                second reviewer, what the first one gave.
            shown: The revision of the plan that the reviewer saw; None decides on the plan whatever it is now.

        Returns:
            Whether the text may run now.

        Raises:
            DecisionStaleError: The plan is not as it was shown.
            FedWardError: The approval would end in the past; the second reviewer is the first, or gives other terms.
        """
        plan = self._require_shown(connection, sha256, shown)
        given = None if ranges is None else [r.model_dump(mode="json") for r in ranges]
        first = plan["first_approval"]
        if first is not None:
            self._require_second(connection, staff, first, given, until)
            given, until = first["ranges"], first["until"]
        if until is not None and until <= self._clock():
            raise FedWardError("The approval would end in the past.", code=Code.ARGUMENT_INVALID)
        given = plan["asked_ranges"] if given is None else given
        if first is None and self._policy.value("second_reviewer"):
            kept = {"reviewer": staff, "at": self._clock(), "note": note, "until": until, "ranges": given}
            self._change(connection, sha256, first_approval=kept)
            self._record(connection, staff, sha256, "first-approved", note, until=until, ranges=given)
            return False
        self._decide(connection, staff, sha256, PlanState.APPROVED, note, until=until, ranges=given)
        return True

    def reject(
        self, connection: sa.Connection, staff: str, sha256: str, *, note: str, shown: int | None = None
    ) -> None:
        """Say no to the text; raises DecisionStaleError as ``approve``."""
        self._require_shown(connection, sha256, shown)
        self._decide(connection, staff, sha256, PlanState.REJECTED, note)

    def revoke(
        self, connection: sa.Connection, staff: str, sha256: str, *, note: str, shown: int | None = None
    ) -> None:
        """Take an approval back; the caller ends what runs under it. Raises DecisionStaleError as ``approve``."""
        self._require_shown(connection, sha256, shown)
        if self.standing(connection, sha256)[0] is not PlanState.APPROVED:
            raise FedWardError("Only an approved plan can be revoked.", code=Code.ARGUMENT_INVALID)
        self._decide(connection, staff, sha256, PlanState.REVOKED, note)

    def standing(self, connection: sa.Connection, sha256: str) -> tuple[PlanState, str, int | None]:
        """Where the text stands now, the reviewer's note, and when an approval ends."""
        plan = self._find(connection, sha256)
        if plan is None:
            return PlanState.UNKNOWN, "", None
        return self._state(plan), plan["note"], None if plan["until"] is None else int(plan["until"])

    @property
    def is_required(self) -> bool:
        """Whether only approved plans run here."""
        return bool(self._policy.value("plan_approval") == "required")

    def require_runnable(self, connection: sa.Connection, sha256: str) -> tuple[str, tuple[ArgumentRange, ...]]:
        """The text of a plan that may run now, and the ranges of its arguments.

        Raises:
            PlanNotApprovedError: It may not.
        """
        plan = self._find(connection, sha256)
        if plan is None:
            raise PlanNotApprovedError(f"The plan {sha256[:12]} is unknown here.", code=Code.PLAN_UNKNOWN)
        state = self._state(plan)
        if state not in (PlanState.APPROVED, PlanState.NOT_REQUIRED):
            said = f" The reviewer wrote: {plan['note']}" if plan["note"] else ""
            raise PlanNotApprovedError(
                f"The plan {sha256[:12]} is {state} here.{said}", rule=str(self._policy.rule("plan_approval"))
            )
        return plan["source"], tuple(ArgumentRange.model_validate(r) for r in plan["ranges"])

    def require(self, connection: sa.Connection, sha256: str) -> dict[str, Any]:
        """The plan's row; raises FedWardError (PLAN_UNKNOWN)."""
        plan = self._find(connection, sha256)
        if plan is None:
            raise FedWardError(f"No plan {sha256[:12]} is known here.", code=Code.PLAN_UNKNOWN)
        return plan

    def _state(self, plan: dict[str, Any]) -> PlanState:
        state = PlanState(plan["state"])
        if state is PlanState.APPROVED and plan["until"] is not None and plan["until"] <= self._clock():
            state = PlanState.EXPIRED
        if state is PlanState.PENDING and not self.is_required:
            state = PlanState.NOT_REQUIRED
        return state

    def _require_room(self, connection: sa.Connection, researcher: str) -> None:
        theirs = sa.and_(plans.c.requested_by == researcher, plans.c.state == PlanState.PENDING)
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(plans).where(theirs)) or 0
        if waiting >= PENDING_AT_MOST:
            raise FedWardError(
                f"{waiting} plans of '{researcher}' wait for review here already.",
                code=Code.POLICY_REFUSED,
                rule=f"pending_plans = {PENDING_AT_MOST} (set by the release)",
            )

    def _find(self, connection: sa.Connection, sha256: str) -> dict[str, Any] | None:
        return _BY_HASH.first(connection, sha256=sha256)

    def _insert(
        self,
        connection: sa.Connection,
        name: str,
        description: str,
        source: str,
        by: str,
        origin: str,
        ranges: Sequence[ArgumentRange],
    ) -> None:
        if hidden := lone_returns(source):
            raise FedWardError(
                f"Line {hidden[0]} of the plan ends in a carriage return alone; code could hide behind a comment so: "
                "save the text with LF or CRLF line ends.",
                code=Code.PLAN_INVALID,
            )
        connection.execute(
            plans.insert().values(
                sha256=_sha256(source),
                name=name,
                description=description,
                source=source,
                origin=origin,
                requested_by=by,
                requested_at=self._clock(),
                asked_ranges=[r.model_dump(mode="json") for r in ranges],
                state=PlanState.PENDING,
                note="",
                ranges=[],
            )
        )

    def _decide(
        self,
        connection: sa.Connection,
        staff: str,
        sha256: str,
        state: PlanState,
        note: str,
        **terms: Any,
    ) -> None:
        self._change(
            connection,
            sha256,
            state=state,
            reviewer=staff,
            note=note,
            decided_at=self._clock(),
            first_approval=sa.null(),
            **terms,
        )
        self._record(connection, staff, sha256, state, note, **terms)

    def _change(self, connection: sa.Connection, sha256: str, **values: Any) -> None:
        self.require(connection, sha256)
        changed = plans.update().where(plans.c.sha256 == sha256)
        connection.execute(changed.values(revision=plans.c.revision + 1, **values))

    def _record(
        self, connection: sa.Connection, staff: str, sha256: str, decision: str, note: str, **terms: Any
    ) -> None:
        """Keep a decision: for the reviewers to come, and in the audit log."""
        line = {"sha256": sha256, "staff": staff, "at": self._clock(), "decision": decision, "note": note}
        connection.execute(
            plan_decisions.insert().values(**line, until=terms.get("until"), ranges=terms.get("ranges", []))
        )
        self._audit.write(connection, f"staff:{staff}", f"plan.{decision}", sha256, note=note, **terms)

    def _require_shown(self, connection: sa.Connection, sha256: str, shown: int | None) -> dict[str, Any]:
        plan = self.require(connection, sha256)
        if shown is not None and plan["revision"] != shown:
            who = (plan["first_approval"] or plan).get("reviewer") or "somebody"
            raise DecisionStaleError(f"{who} decided on this plan since it was shown to you; nothing was changed.")
        return plan

    def _require_second(
        self,
        connection: sa.Connection,
        staff: str,
        first: dict[str, Any],
        ranges: list[Any] | None,
        until: float | None,
    ) -> None:
        if same_person(staff, first["reviewer"]):
            raise FedWardError(
                "You gave the first of two approvals; somebody else gives the second.",
                code=Code.POLICY_REFUSED,
                rule=str(self._policy.rule("second_reviewer")),
                remedy="Ask another reviewer to read the plan.",
            )
        pairs = ((staff, first["reviewer"]), (first["reviewer"], staff))
        if any(same_person(maker, one) for one, other in pairs for maker in let_in_by(connection, other)):
            raise FedWardError(
                f"One of you and {first['reviewer']} let the other in, so that the two accounts may be one person's.",
                code=Code.POLICY_REFUSED,
                rule=str(self._policy.rule("second_reviewer")),
                remedy="Ask a reviewer to read the plan who let in neither of you, and whom neither of you let in.",
            )
        if ranges not in (None, first["ranges"]) or until not in (None, first["until"]):
            raise FedWardError(
                "The second approval takes over the first one's end and ranges.",
                code=Code.ARGUMENT_INVALID,
                remedy="Approve it as the first reviewer did, or reject it with a note.",
            )


def _sha256(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()
