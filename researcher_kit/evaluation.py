"""A test of parameters at the nodes, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.training.metrics import Pooled
from researcher_kit.history import FailureRecord, RoundRecord
from researcher_kit.strategies.base import Decision, RoundView, Strategy, Verdict, require_deadline
from researcher_kit.tables import Table


@dataclass(frozen=True)
class Evaluation(Table):
    """What the nodes' tests said, as a table; it ends with the mean, weighted by the records tested, and the pooled.

    Attributes:
        metrics: By node.
        mean: Of all nodes.
        pooled: Over all nodes' samples, where counts allow it; see ``RoundRecord.pooled``.
        samples: The records that each node tested on.
        failures: Nodes that gave no answer, and why.
    """

    metrics: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, float]
    pooled: Mapping[str, Pooled]
    samples: Mapping[str, int]
    failures: tuple[FailureRecord, ...]

    @classmethod
    def of(cls, record: RoundRecord, round_: int) -> Evaluation:
        """From the record of a round without training.

        Args:
            record: Of that round.
            round_: After which round the parameters were the global ones.
        """
        metrics, mean, pooled = record.metrics(), record.mean_metrics(), record.pooled()
        tested = {reply.node_id: sum(each.samples for each in reply.metrics) for reply in record.replies}
        names = sorted(mean.keys() | pooled.keys())
        rows = []
        for reply in record.replies:
            found = _cells(metrics.get(reply.node_id, {}), names)
            rows.append((reply.node_id, reply.institution, str(tested[reply.node_id]), *found))
        blank = [""] * len(names)
        rows += [(lost.node_id, lost.institution, str(lost.code), *blank) for lost in record.failures]
        measured = sum(samples for node, samples in tested.items() if metrics.get(node))
        rows.append(("mean", "", str(measured), *_cells(mean, names)))
        if pooled:
            of_all = (str(pooled[name]) if name in pooled else "—" for name in names)
            rows.append(("pooled", "", str(max(each.samples for each in pooled.values())), *of_all))
        title = f"Test of the parameters after round {round_}"
        return cls(
            title,
            ("node", "institution", "samples", *names),
            tuple(rows),
            metrics=metrics,
            mean=mean,
            pooled=pooled,
            samples=tested,
            failures=record.failures,
        )


def _cells(values: Mapping[str, float], names: list[str]) -> tuple[str, ...]:
    return tuple(f"{values[name]:.4g}" if name in values else "—" for name in names)


class EveryAnswer(Strategy):
    """Waits for each node's answer, whatever it is; a node that fails spoils nobody's.

    Args:
        deadline_s: Seconds that the nodes have.

    Raises:
        ExperimentArgumentError: The deadline is not above 0.
    """

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = require_deadline(deadline_s)

    def decide(self, view: RoundView) -> Decision:
        """See ``Strategy``."""
        is_over = self.deadline_s is not None and view.elapsed_s >= self.deadline_s
        if not is_over and len(view.arrived) + len(view.failed) < len(view.asked):
            return Decision(Verdict.WAIT, self.deadline_s)
        return Decision(Verdict.CLOSE if view.arrived else Verdict.FAIL)
