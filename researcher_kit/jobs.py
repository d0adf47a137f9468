"""Unattended runs, as the researcher sees them: a job in a federator's queue, and what comes back of it.

job = experiment.submit()            # and the laptop closes
...
job = attach("2f1c…")                # from anywhere with the researcher's folder
job.wait()
experiment = job.experiment()
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, ValidationError

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.keys import thumbprint
from appliance.protocol.mandate import MAX_MANDATE_S, Mandate, open_mandate
from appliance.protocol.messages import ArgumentRange, Stop, Stopped
from appliance.protocol.register import Member, Role
from researcher_kit import breakpoints, handover
from researcher_kit.aggregators import Aggregator
from researcher_kit.errors import BreakpointError, ExperimentArgumentError
from researcher_kit.federation import Federation
from researcher_kit.handover import Report, Submission
from researcher_kit.history import History
from researcher_kit.monitor import RoundClosed
from researcher_kit.round import Terms
from researcher_kit.strategies import Strategy
from researcher_kit.tables import NodeTable, Table

if TYPE_CHECKING:  # an experiment submits jobs
    from researcher_kit.experiment import Experiment

UNATTENDED_DAYS = 7.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 2.0
_DAY = 86_400


class JobState(StrEnum):
    """Where a job stands.

    Example:
        >>> [state.value for state in JobState if state.is_final]
        ['done', 'failed', 'stopped']
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come of it."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


# As the network host calls them.
_STATES = {
    "queued": JobState.QUEUED,
    "claimed": JobState.RUNNING,
    "done": JobState.DONE,
    "failed": JobState.FAILED,
    "cancelled": JobState.STOPPED,
}


@dataclass(frozen=True)
class JobStatus(Table):
    """Where a job stands, shown as a table.

    Attributes:
        state: See ``JobState``.
        federator: Who runs it, by its member id.
        round: How many rounds are closed.
        round_limit: Of how many.
        heard_at: When its federator was last heard of it, or it was submitted, by the network host (seconds since the
            epoch).
        error: Why it failed, if it did.
    """

    state: JobState
    federator: str
    round: int
    round_limit: int
    heard_at: float
    error: FedWardError | None = None


class Job:
    """An experiment in a federator's hands. ``Experiment.submit`` and ``attach`` give it.

    Args:
        federation: The researcher's connection.
        job_id: As ``submit`` gave it.
        load: Makes an experiment of a breakpoint: ``Experiment.load_breakpoint``.

    Attributes:
        id: By which ``attach`` finds it again.

    Example:
        >>> job = attach("2f1c2d6e-5b3a-4c55-9a83-0f5f8c2d9b11")  # doctest: +SKIP
        >>> job.wait().state  # doctest: +SKIP
        <JobState.DONE: 'done'>
    """

    def __init__(self, federation: Federation, job_id: str, load: Callable[..., Experiment]) -> None:
        self.id = job_id
        self._federation = federation
        self._load = load

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> JobStatus:
        """Where it stands now.

        Raises:
            FedWardError: There is no such job of yours (JOB_UNKNOWN), or the network host is out of reach.
        """
        row, mandate, report = self._look()
        state = _STATES[row["state"]]
        done = report.round if report else mandate.first_round - 1
        failure = report.failure if report and state is JobState.FAILED else None
        error = failure.error() if failure else None
        heard_at = datetime.fromisoformat(row["changed_at"]).timestamp()
        lines = [
            ("state", state.value),
            ("federator", f"{self._federation.institution(row['federator'])} ({row['federator']})"),
            ("rounds", f"{done} of {mandate.last_round}"),
            ("last heard", datetime.fromtimestamp(heard_at).astimezone().strftime("%d %B %Y, %H:%M:%S")),
            ("mandate ends", datetime.fromtimestamp(mandate.expires_at).astimezone().strftime("%d %B %Y, %H:%M")),
            *([("error", error.explain())] if error else []),
        ]
        rows = tuple(lines)
        return JobStatus(
            f"Job {self.id}",
            ("what", "value"),
            rows,
            state,
            row["federator"],
            done,
            mandate.last_round,
            heard_at,
            error,
        )

    @property
    def history(self) -> History:
        """The rounds that are closed by now; empty before the first one was reported."""
        report = self._look()[2]
        if report is None or not report.files:
            return History()
        with tempfile.TemporaryDirectory(dir=self._federation.home.folder("run")) as folder:
            target = Path(folder) / breakpoints.STATE_FILE
            connection = self._federation
            handover.fetch_file(report.files, target.name, target, connection.files, connection.keys, job_id=self.id)
            return History(breakpoints.read_state(target).history)

    def wait(
        self,
        *,
        timeout_s: float | None = None,
        on_round: Callable[[RoundClosed], None] | None = None,
        every_s: float = _POLL_S,
    ) -> JobStatus:
        """Wait until the job is over, and say each round that is closed meanwhile.

        To end the wait (Ctrl-C) ends nothing else.

        Args:
            timeout_s: Return after so long in any case; None for never.
            on_round: Hears of each round, those before the call included; a line is printed for it if None.
            every_s: Seconds between two looks.

        Returns:
            Where it stands then.

        Raises:
            FedWardError: The job failed; what its round would have raised here.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        told = 0
        while True:
            status = self.status()
            if status.round > told:
                for record in self.history[told:]:
                    (on_round or _say)(RoundClosed(record))
                    told = record.round
            if status.error is not None:
                raise status.error
            if status.state.is_final or (deadline is not None and time.monotonic() >= deadline):
                return status
            threading.Event().wait(every_s)

    def experiment(
        self,
        *,
        aggregator: Aggregator | None = None,
        strategy: Strategy | None = None,
        progress: bool | None = None,
    ) -> Experiment:
        """The experiment as its newest breakpoint has it, on this machine.

        While the job runs, look at it and leave it: two who ask the hospitals for the same round disturb each other.

        Args:
            aggregator: Needed when it is a class of your own.
            strategy: Likewise.
            progress: As of ``Experiment``.

        Raises:
            BreakpointError: No round has been reported yet, or the newest one is none of this experiment.
        """
        _, mandate, report = self._look()
        if report is None or not report.files:
            raise BreakpointError(
                "The federator has not reported a round yet.", remedy="Ask again later; status() says how far it is."
            )
        folder = self._federation.home.folder("experiments") / mandate.experiment_id
        connection = self._federation

        def require_ours(state: breakpoints.Breakpoint) -> None:
            # What is loaded may be run on this machine: never another plan than the one that went out.
            if (state.experiment_id, state.plan.sha256) != (mandate.experiment_id, mandate.plan_sha256):
                raise BreakpointError(
                    "The federator reported another experiment or another training plan than you gave it.",
                    remedy="Tell the operator, and stop() the job.",
                )

        found = handover.fetch(
            report.files, connection.files, connection.keys, job_id=self.id, experiment=folder, require=require_ours
        )
        return self._load(found, federation=connection, aggregator=aggregator, strategy=strategy, progress=progress)

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> NodeTable[Stopped]:
        """End the job, and its work at every node; what the nodes were told holds whatever the federator does.

        The mandate is void from then on. ``experiment()`` gives what was reached; submit it again to go on.

        Returns:
            When each node saw the last process end; a node that is silent stops when it hears of it.
        """
        mandate = self._look()[1]
        federation = self._federation
        federation.queue.jobs_cancel(self.id)
        asked = dict.fromkeys(sorted(mandate.datasets), Stop(experiment_id=mandate.experiment_id))
        return federation.stopped(federation.ask(asked, timeout_s=timeout_s), asked)

    def _look(self) -> tuple[dict[str, Any], Mandate, Report | None]:
        federation = self._federation
        row = federation.queue.jobs_show(self.id)
        researcher, mandate = open_mandate(row["mandate"], federation.register)
        if (researcher.id, mandate.id) != (federation.member_id, self.id):
            raise FedWardError(
                f"The network host gave another mandate than that of job {self.id}.", code=Code.NETWORK_REFUSED
            )
        report = None
        if row["progress"] is not None:
            report = handover.read(
                Report, row["progress"], federation.register, author=mandate.federator, job_id=self.id
            )
        return row, mandate, report


def submit(
    terms: Terms,
    arguments: Sequence[Mapping[str, JsonValue]],
    saved: Path,
    federation: Federation,
    federator: str | None,
    *,
    days: float,
) -> str:
    """Put an experiment into a federator's queue; see ``Experiment.submit``.

    Args:
        terms: Of the first round that is left.
        arguments: The training arguments of each round that is left.
        saved: The breakpoint to begin with.
        federation: The researcher's connection.
        federator: Who shall run it.
        days: How long the mandate holds.

    Returns:
        The job's id.
    """
    chosen, job_id = _choose(federation, federator), str(uuid.uuid4())
    mandate = _mandate(terms, arguments, federation, chosen, job_id, days)
    mandate_text = mandate.sign(federation.signer)
    files = handover.send(
        saved,
        federation.files,
        chosen,
        job_id=job_id,
        experiment_id=terms.experiment_id,
        scratch=federation.home.folder("run"),
    )
    spec = handover.sign(Submission(job_id=job_id, files=files), federation.signer)
    federation.queue.jobs_submit(job_id, federator=chosen.id, spec=spec, mandate=mandate_text)
    return job_id


def _choose(federation: Federation, federator: str | None) -> Member:
    known = {member.id: member for member in federation.register.with_role(Role.FEDERATOR)}
    if federator is None and len(known) == 1:
        return next(iter(known.values()))
    if not known:
        raise ExperimentArgumentError(
            "The consortium has no federator.", remedy="Ask the operator for one, or run() the experiment here."
        )
    if federator not in known:
        said = "several federators" if federator is None else f"no federator '{federator}'"
        raise ExperimentArgumentError(f"The consortium has {said}; choose among {', '.join(known)}.")
    return known[federator]


def _mandate(
    terms: Terms,
    arguments: Sequence[Mapping[str, JsonValue]],
    federation: Federation,
    federator: Member,
    job_id: str,
    days: float,
) -> Mandate:
    if not 0 < days * _DAY <= MAX_MANDATE_S:
        raise ExperimentArgumentError(f"days is {days}; expected a number above 0, {MAX_MANDATE_S // _DAY} at most.")
    now = int(federation.clock())
    try:
        return Mandate(
            id=job_id,
            federator=federator.id,
            federator_key=thumbprint(federator.identity),
            experiment_id=terms.experiment_id,
            plan_sha256=terms.plan.sha256,
            plan_class=terms.plan.class_name,
            datasets=dict(terms.datasets),
            first_round=terms.round,
            last_round=terms.round + len(arguments) - 1,
            model_args=dict(terms.model_args),
            training_args=dict(terms.training_args),
            aggregator_args=terms.aggregator.create_aggregator_args(),
            ranges=_ranges(arguments),
            issued_at=now,
            expires_at=now + max(1, int(days * _DAY)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExperimentArgumentError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def _ranges(arguments: Sequence[Mapping[str, JsonValue]]) -> tuple[ArgumentRange, ...]:
    """A range for each training argument that a schedule changes, by its dotted name."""
    rounds = [dict(_dotted(each)) for each in arguments]
    changing = [name for name in rounds[0] if len({repr(values.get(name)) for values in rounds}) > 1]
    return tuple(
        ArgumentRange(
            name=name, minimum=min(values[name] for values in rounds), maximum=max(values[name] for values in rounds)
        )
        for name in changing
    )


def _dotted(arguments: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in arguments.items():
        found += _dotted(value, f"{before}{name}.") if isinstance(value, Mapping) else [(f"{before}{name}", value)]
    return found


def _say(event: RoundClosed) -> None:
    record = event.record
    values = " ".join(f"{name}={value:.4g}" for name, value in record.mean_metrics().items())
    print(f"Round {record.round}: {len(record.replies)} nodes, {record.seconds:.1f} s {values}".rstrip(), flush=True)  # noqa: T201 - for whoever waits
