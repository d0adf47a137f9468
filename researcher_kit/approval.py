"""Asking hospitals' staff for their approval of a training plan, and whether it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from appliance.protocol.messages import (
    ArgumentRange,
    ErrorReply,
    PlanApproval,
    PlanStanding,
    PlanState,
    PlanStatus,
)
from appliance.training.source import PlanSource
from researcher_kit.errors import ExperimentArgumentError, PlanNotApprovedError
from researcher_kit.federation import ASK_TIMEOUT_S, Federation
from researcher_kit.tables import NodeTable

_MAY_RUN = frozenset({PlanState.APPROVED, PlanState.NOT_REQUIRED})
_WORDS = {
    PlanState.UNKNOWN: "it does not know the plan; call request_approval(description).",
    PlanState.PENDING: "the staff have not reviewed it yet; run again when they have.",
    PlanState.REJECTED: "the staff rejected it; change the plan and request approval of the new text.",
    PlanState.EXPIRED: "the approval has expired; call request_approval(description) again.",
    PlanState.REVOKED: "the staff took the approval back; ask them why.",
}


def approval_of(
    plan: PlanSource,
    description: str,
    *,
    name: str | None = None,
    ranges: Sequence[ArgumentRange | Mapping[str, Any]] = (),
) -> PlanApproval:
    """The message that asks for it.

    Args:
        plan: What is to be approved.
        description: For the reviewer.
        name: What the reviewer reads in the list; the plan's class if None.
        ranges: What values of training arguments the approval should cover.

    Raises:
        ExperimentArgumentError: A range or the description is not one; names it.
    """
    try:
        return PlanApproval(
            name=name or plan.class_name,
            description=description,
            source=plan.text,
            sha256=plan.sha256,
            ranges=tuple(ArgumentRange.model_validate(range_) for range_ in ranges),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "ranges"
        raise ExperimentArgumentError(f"{where}: {first['msg']}.") from error


def standings(
    federation: Federation,
    plan: PlanSource,
    nodes: Sequence[str],
    *,
    request: PlanApproval | None = None,
    timeout_s: float = ASK_TIMEOUT_S,
) -> NodeTable[PlanStanding]:
    """Where the plan stands at each of these nodes; with ``request``, its staff are asked to review it."""
    body = request or PlanStatus(sha256=plan.sha256)
    answers = federation.ask(dict.fromkeys(nodes, body), timeout_s=timeout_s)
    found: dict[str, PlanStanding] = {}
    words = dict.fromkeys(nodes, ("no answer", ""))
    for node, answer in answers.items():
        if isinstance(answer.body, PlanStanding):
            found[node] = answer.body
            words[node] = (answer.body.state, answer.body.note)
        elif isinstance(answer.body, ErrorReply):
            words[node] = (answer.body.code, answer.body.message)
    rows = tuple((node, federation.institution(node), *words[node]) for node in nodes)
    silent = tuple(node for node in nodes if node not in answers)
    return NodeTable(f"Training plan {plan.class_name}", ("node", "institution", "state", "note"), rows, found, silent)


def require_approval(
    federation: Federation, plan: PlanSource, nodes: Sequence[str], request: PlanApproval
) -> frozenset[str]:
    """Those of these nodes that let the plan run; where it is not known, its approval is asked for by ``request``.

    A silent node is passed over: it checks for itself when a request to train reaches it.

    Raises:
        PlanNotApprovedError: Some hospital does not let it run; says which, why, and what its reviewer wrote.
    """
    known = dict(standings(federation, plan, nodes).answers)
    unknown = [node for node, standing in known.items() if standing.state is PlanState.UNKNOWN]
    if unknown:
        known |= standings(federation, plan, unknown, request=request).answers
    refused = {node: standing for node, standing in known.items() if standing.state not in _MAY_RUN}
    if refused:
        raise PlanNotApprovedError(_refusal(federation, plan, refused))
    return frozenset(known)


def _refusal(federation: Federation, plan: PlanSource, refused: Mapping[str, PlanStanding]) -> str:
    lines = [f"The training plan {plan.class_name} may not run at:"]
    for node, standing in sorted(refused.items()):
        note = f' The reviewer wrote: "{standing.note}"' if standing.note else ""
        lines.append(f"- {federation.institution(node)} ({node}): {_WORDS[standing.state]}{note}")
    return "\n".join(lines)
