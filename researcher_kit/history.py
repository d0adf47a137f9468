"""What is kept of each round: who answered with what, how long it took, and where the time went."""

from __future__ import annotations

from collections import defaultdict

from pydantic import BaseModel, ConfigDict

from appliance.protocol.errors import Code
from appliance.protocol.messages import Metrics, Override, Timing
from researcher_kit.tables import Table

_COLUMNS = ("round", "nodes", "without", "samples", "seconds", "training", "transfer", "global parameters")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeRecord(_Record):
    """One node's part in a round.

    Attributes:
        update_bytes: Of the sealed update.
        download_s: Seconds to fetch, open and check it here.
        timing: Where the time went at the node.
        overrides: Arguments that the node changed, each with its rule.
        learning_rates: See ``appliance.protocol.messages.TrainReply``.
    """

    node_id: str
    institution: str
    dataset_id: str
    sample_count: int
    metrics: tuple[Metrics, ...] = ()
    overrides: tuple[Override, ...] = ()
    timing: Timing = Timing()
    learning_rates: float | None = None
    update_bytes: int
    download_s: float


class FailureRecord(_Record):
    """A node without an update in a round that closed nevertheless."""

    node_id: str
    institution: str
    code: Code
    message: str


class RoundTiming(_Record):
    """Where a round's time went, in seconds, along the node that was waited for last.

    Attributes:
        transfer_s: Parameters up, down to that node, its update up and down again.
        training_s: At that node: the child's start, training, and the checks of what leaves.
        aggregation_s: From the last update to the next parameters on disk.
        waiting_s: The rest: messages under way, queues, and nodes that were slower to begin.
    """

    waiting_s: float
    transfer_s: float
    training_s: float
    aggregation_s: float


class RoundRecord(_Record):
    """One closed round.

    Attributes:
        seconds: From the choice of nodes to the next parameters; after a crash, from the resumption.
        parameters_bytes: Of the sealed global parameters, uploaded once for all nodes.
    """

    round: int
    started_at: float
    seconds: float
    timing: RoundTiming
    replies: tuple[NodeRecord, ...]
    failures: tuple[FailureRecord, ...] = ()
    parameters_bytes: int

    @property
    def samples(self) -> int:
        """Training samples of all nodes together."""
        return sum(reply.sample_count for reply in self.replies)

    def metrics(self, stage: str = "global") -> dict[str, dict[str, float]]:
        """Metrics by node: tested on the ``global`` parameters before, or the ``local`` ones after training."""
        return {
            reply.node_id: dict(metrics.values)
            for reply in self.replies
            for metrics in reply.metrics
            if metrics.stage == stage
        }

    def mean_metrics(self, stage: str = "global") -> dict[str, float]:
        """Each metric's mean over the nodes, weighted by the records that it was tested on."""
        sums: defaultdict[str, float] = defaultdict(float)
        samples: defaultdict[str, int] = defaultdict(int)
        for metrics in (metrics for reply in self.replies for metrics in reply.metrics if metrics.stage == stage):
            for name, value in metrics.values.items():
                sums[name] += value * metrics.samples
                samples[name] += metrics.samples
        return {name: sums[name] / samples[name] for name in sums if samples[name]}


class History(tuple[RoundRecord, ...]):
    """The closed rounds, in order; printed, or as a notebook's last line, they are a table.

    ``global parameters`` are the means of what the nodes' tests said of the parameters that the round began with.
    """

    __slots__ = ()

    def table(self) -> Table:
        """A line for each round; times in seconds."""
        return Table("History", _COLUMNS, tuple(map(_row, self)))

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        self.table()._repr_pretty_(printer, cycle)


def _row(record: RoundRecord) -> tuple[str, ...]:
    timing = record.timing
    times = (f"{seconds:.1f}" for seconds in (record.seconds, timing.training_s, timing.transfer_s))
    nodes = (", ".join(part.node_id for part in parts) for parts in (record.replies, record.failures))
    metrics = " ".join(f"{name}={value:.4g}" for name, value in record.mean_metrics().items())
    return (str(record.round), *nodes, str(record.samples), *times, metrics)
