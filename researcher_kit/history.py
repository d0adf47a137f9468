"""What is kept of each round: who answered with what, how long it took, and where the time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from appliance.protocol.errors import Code
from appliance.protocol.messages import Metrics, Override, Timing
from appliance.protocol.wording import did_you_mean
from appliance.training.metrics import Part, Pooled, pool
from researcher_kit.curves import Curves, Panel
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.tables import Table

_TELLING_S = 0.05  # shorter transfers say nothing of a line

_REPORT = (
    "node", "institution", "what", "samples", "training", "to the node", "from the node", "seconds", "remark",
)  # fmt: skip
_LATE = frozenset({Code.ROUND_TIMEOUT, Code.ROUND_SUPERSEDED})
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
        learning_rates: See ``appliance.protocol.messages.TrainReply``, as for ``is_optimizer_new``.
        loss: At the last update.
    """

    node_id: str
    institution: str
    dataset_id: str
    sample_count: int
    metrics: tuple[Metrics, ...] = ()
    overrides: tuple[Override, ...] = ()
    timing: Timing = Timing()
    learning_rates: float | None = None
    is_optimizer_new: bool | None = None
    loss: float | None = None
    update_bytes: int
    download_s: float

    @property
    def seconds(self) -> float:
        """That the node and its transfers took, waiting aside."""
        timing = self.timing
        at_node = timing.fetch_s + timing.start_s + timing.train_s + timing.check_s + timing.upload_s
        return at_node + self.download_s


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

    def parts(self) -> dict[str, float]:
        """Seconds by what they went to, the longest first."""
        found = {
            "training": self.training_s, "transfer": self.transfer_s, "waiting": self.waiting_s,
            "aggregation": self.aggregation_s,
        }  # fmt: skip
        return dict(sorted(found.items(), key=lambda part: -part[1]))


class RoundRecord(_Record):
    """One closed round.

    Attributes:
        seconds: From the choice of nodes to the next parameters; after a crash, from the resumption.
        parameters_bytes: Of the sealed global parameters, uploaded once for all nodes; frozen layers count in the round
            that uploads them.
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

    def mean_loss(self) -> float | None:
        """The loss at the end of the nodes' trainings, weighted by their samples; None where none told."""
        told = [(reply.loss, reply.sample_count) for reply in self.replies if reply.loss is not None]
        samples = sum(count for _, count in told)
        return sum(loss * count for loss, count in told) / samples if samples else None

    @property
    def slowest(self) -> NodeRecord | None:
        """The node whose work and transfers took longest."""
        return max(self.replies, key=lambda reply: reply.seconds, default=None)

    def report(self) -> Table:
        """What came of every node that was asked: who answered, who was late or lost and why, and where time went.

        Example:
            >>> print(experiment.history[-1].report())  # doctest: +SKIP
        """
        rows = [_report_row(reply, self.parameters_bytes) for reply in self.replies]
        blank = ("",) * (len(_REPORT) - 4)
        rows += [
            (lost.node_id, lost.institution, "late" if lost.code in _LATE else "lost", *blank,
             f"{lost.code}: {lost.message}")
            for lost in self.failures
        ]  # fmt: skip
        split = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.timing.parts().items())
        return Table(f"Round {self.round}: {self.seconds:.1f} s ({split})", _REPORT, tuple(rows))

    def given_up(self, node_id: str, message: str) -> RoundRecord:
        """This record, when a node that was late in it has given the round up for a later one."""
        failures = tuple(
            lost.model_copy(update={"code": Code.ROUND_SUPERSEDED, "message": message})
            if (lost.node_id, lost.code) == (node_id, Code.ROUND_TIMEOUT)
            else lost
            for lost in self.failures
        )
        return self.model_copy(update={"failures": failures})

    def metrics(self, stage: str = "global") -> dict[str, dict[str, float]]:
        """Metrics by node: tested on the ``global`` parameters before, or the ``local`` ones after training."""
        return {
            reply.node_id: dict(metrics.values)
            for reply in self.replies
            for metrics in reply.metrics
            if metrics.stage == stage
        }

    def pooled(self, stage: str = "global") -> dict[str, Pooled]:
        """Each metric over the held-out samples of all nodes together, as far as their counts allow.

        Pooled are the engine's metrics and a plan's own ``Ratio``; ``Pooled.nodes`` says of how many nodes, for a
        hospital's policy may withhold its counts.

        Args:
            stage: As of ``metrics``.

        Example:
            >>> from researcher_kit.history import RoundRecord, RoundTiming
            >>> timing = RoundTiming(waiting_s=0, transfer_s=0, training_s=0, aggregation_s=0)
            >>> RoundRecord(round=1, started_at=0, seconds=0, timing=timing, replies=(), parameters_bytes=0).pooled()
            {}
        """
        tests = [metrics for reply in self.replies for metrics in reply.metrics if metrics.stage == stage]
        names = dict.fromkeys(name for test in tests for name in (*test.values, *test.counts))
        found = {
            name: pool(name, [Part(test.samples, test.values.get(name), test.counts.get(name)) for test in tests])
            for name in names
        }
        return {name: pooled for name, pooled in found.items() if pooled is not None}

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

    ``global parameters`` is what the tests said of the parameters that the round began with: of all nodes' samples
    together where counts allow it, else the mean over the nodes.
    """

    __slots__ = ()

    def table(self) -> Table:
        """A line for each round; times in seconds."""
        return Table("History", _COLUMNS, tuple(map(_row, self)))

    def plot(self, *names: str, stage: str = "global") -> Curves:
        """Curves over the rounds: text in a terminal, a drawing in a notebook, ``.figure()`` for matplotlib.

        Args:
            names: Which metrics, and ``"loss"`` for the last loss of each node's training; none for all that there are.
            stage: As of ``RoundRecord.metrics``.

        Raises:
            ExperimentArgumentError: No round says anything of that name.

        Example:
            >>> print(History().plot())
            Nothing to draw yet: no round is closed, or none of its tests and trainings said a number.
        """
        panels = {panel.title.split(",")[0]: panel for panel in _panels(self, stage)}
        for name in names:
            if name not in panels:
                known = f"There is {', '.join(panels)}." if panels else "There is nothing to draw yet."
                raise ExperimentArgumentError(f"No closed round says '{name}'.{did_you_mean(name, panels)} {known}")
        nodes = sorted({reply.node_id for record in self for reply in record.replies})
        return Curves(tuple(panels[name] for name in names or panels), tuple(nodes))

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        self.table()._repr_pretty_(printer, cycle)


def _row(record: RoundRecord) -> tuple[str, ...]:
    timing = record.timing
    times = (f"{seconds:.1f}" for seconds in (record.seconds, timing.training_s, timing.transfer_s))
    lost = (f"{failure.node_id} ({failure.code})" for failure in record.failures)
    nodes = (", ".join(reply.node_id for reply in record.replies), ", ".join(lost))
    return (str(record.round), *nodes, str(record.samples), *times, " ".join(_metrics(record)))


def _report_row(reply: NodeRecord, parameters_bytes: int) -> tuple[str, ...]:
    timing = reply.timing
    remarks = [f"{override.argument} = {override.used} by {override.rule}" for override in reply.overrides]
    remarks += ["its optimizer began anew"] if reply.is_optimizer_new else []
    return (
        reply.node_id,
        reply.institution,
        "answered",
        str(reply.sample_count),
        f"{timing.start_s + timing.train_s:.1f} s",
        rate(parameters_bytes, timing.fetch_s),
        rate(reply.update_bytes, timing.upload_s + reply.download_s),
        f"{reply.seconds:.1f}",
        "; ".join(remarks),
    )


def size(size_bytes: float) -> str:
    """A size as people read it, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.4g} GB"


def rate(size_bytes: int, seconds: float) -> str:
    """A transfer: how much, and how fast where it took long enough to tell."""
    return size(size_bytes) + (f" ({size(size_bytes / seconds)}/s)" if seconds >= _TELLING_S else "")


def _panels(records: Sequence[RoundRecord], stage: str) -> list[Panel]:
    """The losses, then each metric: over all nodes where that is known, and at each node."""
    losses: dict[str, list[tuple[int, float]]] = {}
    mean_losses: list[tuple[int, float]] = []
    at_nodes: dict[str, dict[str, list[tuple[int, float]]]] = {}
    wholes: dict[str, list[tuple[int, float]]] = {}
    pooled: set[str] = set()
    for record in records:
        for reply in record.replies:
            if reply.loss is not None:
                losses.setdefault(reply.node_id, []).append((record.round, reply.loss))
        if (mean := record.mean_loss()) is not None:
            mean_losses.append((record.round, mean))
        for node, values in record.metrics(stage).items():
            for name, value in values.items():
                at_nodes.setdefault(name, {}).setdefault(node, []).append((record.round, value))
        found = record.pooled(stage)
        pooled |= found.keys()
        for name, value in (record.mean_metrics(stage) | {name: each.value for name, each in found.items()}).items():
            wholes.setdefault(name, []).append((record.round, value))
    panels = [Panel("loss, at the end of each node's training", mean_losses, losses, "mean")] if losses else []
    of = {"global": "before training", "local": "after training"}.get(stage, stage)
    return panels + [
        Panel(f"{name}, {of}", wholes[name], at_nodes.get(name, {}), "pooled" if name in pooled else "mean")
        for name in sorted(wholes)
    ]


def _metrics(record: RoundRecord) -> list[str]:
    """Each metric over all nodes' samples, or its mean over the nodes where only that is known."""
    pooled, means = record.pooled(), record.mean_metrics()
    words = {name: f"{name}={value:.4g} (mean)" for name, value in means.items()}
    return [*(words | {name: f"{name}={found}" for name, found in pooled.items()}).values()]
