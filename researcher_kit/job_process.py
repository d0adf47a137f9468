"""One job's process: the experiment from its breakpoint, round by round, each reported to the researcher.

    python -m researcher_kit.job_process HOME JOB

No plan is executed here: the initial parameters came with the breakpoint, and of the plan's text only the hash goes on.
Ends with status 0 when there is nothing left to do for the job, and with ``AGAIN`` when it is to be begun again.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import structlog

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.files import replace_file
from appliance.protocol.keys import thumbprint
from appliance.protocol.logs import ErrorStreamLogger
from appliance.protocol.mandate import Mandate, MandateError, open_mandate
from appliance.protocol.messages import SealedFile
from researcher_kit import breakpoints, handover
from researcher_kit.aggregators import Aggregator
from researcher_kit.experiment import Experiment
from researcher_kit.federation import Federation
from researcher_kit.federator import ENDED_FILE, JOBS, REPORT_FILE, own_parts, read_config
from researcher_kit.handover import Failure, Report, Submission
from researcher_kit.strategies import Strategy

AGAIN = 75  # EX_TEMPFAIL of sysexits.h
HEARTBEAT_S = 15.0
_PASSING = frozenset({Code.NETWORK_UNREACHABLE, Code.DISK_FULL, Code.STORE_BUSY, Code.CLOCK_WRONG})
_EXPERIMENT = "experiment"
_log = structlog.get_logger(__name__)


class JobCancelledError(FedWardError):
    """The researcher does not want it any more."""

    code = Code.ROUND_STOPPED


class JobRun:
    """One job, from wherever it is to its end.

    Args:
        federation: The federator's connection, with a store of this job's own.
        folder: The job's folder.
        heartbeat_s: Seconds between two words to the network host, in which a change of mind is heard.
    """

    def __init__(self, federation: Federation, folder: Path, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._federation = federation
        self._folder = folder
        self._id = folder.name
        self._heartbeat_s = heartbeat_s
        self._experiment: Experiment | None = None
        self._is_cancelled = threading.Event()
        self._is_over = threading.Event()
        self._telling = threading.Lock()  # so that an older word never follows a newer one

    def run(self) -> None:
        """Run the rounds that are left, and report each.

        Raises:
            FedWardError: What passes by itself: to be begun again later.
        """
        row = self._federation.queue.jobs_show(self._id)
        if row["state"] == "cancelled":
            self._end()
            return
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        watch.start()
        try:
            self._take_up_or_fail(row)
        except JobCancelledError:
            self._end()
        finally:
            self._is_over.set()
            watch.join()

    def _take_up_or_fail(self, row: dict[str, Any]) -> None:
        try:
            self._take_up(row)
        except FedWardError as error:
            if self._is_cancelled.is_set():
                raise JobCancelledError("The researcher stopped the job.") from error
            if error.code in _PASSING or isinstance(error, JobCancelledError):
                raise
            self._fail(row, error)

    def _take_up(self, row: dict[str, Any]) -> None:
        if row["state"] != "claimed":  # over: its result is put there again, before it expires
            self._experiment = self._load(row)
            self._report(row, is_over=True, failure=self._last_failure(), anew=True)
            return
        mandate = self._require_mandate(row)
        experiment = self._experiment = self._load(row)
        self._report(row)
        while experiment.round_current() < mandate.last_round and experiment.run_once(increase=True):
            self._report(row)
        self._report(row, is_over=True)
        self._federation.queue.jobs_finish(self._id, {"round": experiment.round_current()})
        self._end()

    def _require_mandate(self, row: dict[str, Any]) -> Mandate:
        """Said here what each node would say, before the first of them is asked."""
        federation = self._federation
        researcher, mandate = open_mandate(row["mandate"], federation.register)
        mine = (federation.member_id, thumbprint(federation.keys.public.identity))
        if (mandate.id, mandate.federator, mandate.federator_key) != (self._id, *mine) or researcher.id != row["owner"]:
            raise MandateError("The mandate is another job's, another researcher's, or for another federator's key.")
        return mandate

    def _load(self, row: dict[str, Any]) -> Experiment:
        federation, home = self._federation, self._folder / _EXPERIMENT
        if not any(home.glob(f"breakpoint_*/{breakpoints.STATE_FILE}")):
            self._fetch(row, home)
        state, found = breakpoints.load(home)
        config = read_config(federation.home.root)
        aggregators = own_parts(config.aggregators, Aggregator)  # type: ignore[type-abstract]  # to compare with
        strategies = own_parts(config.strategies, Strategy)  # type: ignore[type-abstract]  # likewise
        aggregator, strategy = aggregators.get(state.aggregator.name), strategies.get(state.strategy.name)
        return Experiment.load_breakpoint(
            found,
            federation=federation,
            aggregator=aggregator() if aggregator else None,
            strategy=strategy() if strategy else None,
            mandate=row["mandate"],
            progress=False,
        )

    def _fetch(self, row: dict[str, Any], home: Path) -> None:
        federation, mandate = self._federation, self._require_mandate(row)
        author = row["owner"]
        submission = handover.read(Submission, row["spec"], federation.register, author=author, job_id=self._id)

        def require_mandated(state: breakpoints.Breakpoint) -> None:
            said = (state.experiment_id, state.plan.sha256, state.round + 1)
            if said != (mandate.experiment_id, mandate.plan_sha256, mandate.first_round):
                raise MandateError("The breakpoint is not of the mandate's experiment, plan and round.")

        handover.fetch(
            submission.files,
            federation.files,
            federation.keys,
            job_id=self._id,
            experiment=home,
            require=require_mandated,
        )

    # What the researcher hears

    def _report(
        self, row: dict[str, Any], *, is_over: bool = False, failure: Failure | None = None, anew: bool = False
    ) -> None:
        """Say how far the experiment is, with its newest breakpoint; then the one before it may go."""
        federation, last = self._federation, self._last()
        number = self._experiment.round_current() if self._experiment else (last.round if last else 0)
        is_sent = last is not None and last.round == number and not anew
        files = last.files if last is not None and is_sent else self._send(row, number)
        report = Report(
            job_id=self._id,
            files=files,
            round=number,
            written_at=federation.clock(),
            is_over=is_over,
            failure=failure,
        )
        text = handover.sign(report, federation.signer)
        with self._telling:
            self._tell(text)
            replace_file(self._folder / REPORT_FILE, text)
        for sealed in last.files.values() if last is not None and not is_sent else ():
            federation.files.delete(str(sealed.upload_id))

    def _send(self, row: dict[str, Any], number: int) -> dict[handover.FileName, SealedFile]:
        """The newest breakpoint, sealed to the researcher; nothing when it is the one that came from there."""
        experiment, federation = self._experiment, self._federation
        if experiment is None or number < self._first_round(row):
            return {}
        return handover.send(
            breakpoints.folder_of(experiment.experimentation_path(), number),
            federation.files,
            federation.register.require(row["owner"]),
            job_id=self._id,
            experiment_id=experiment.id,
            scratch=self._folder,
        )

    def _first_round(self, row: dict[str, Any]) -> int:
        return self._require_mandate(row).first_round

    def _last(self) -> Report | None:
        path, federation = self._folder / REPORT_FILE, self._federation
        if not path.exists():
            return None
        author = federation.member_id
        return handover.read(Report, path.read_text(), federation.register, author=author, job_id=self._id)

    def _last_failure(self) -> Failure | None:
        last = self._last()
        return last.failure if last else None

    def _tell(self, text: str) -> None:
        try:
            self._federation.queue.jobs_progress(self._id, text)
        except FedWardError as error:
            if error.code is Code.JOB_STATE:
                raise JobCancelledError("The researcher stopped the job.") from error
            raise

    def _fail(self, row: dict[str, Any], error: FedWardError) -> None:
        _log.error("the job failed", job=self._id, code=error.code, reason=error.message)
        self._report(row, is_over=True, failure=Failure.of(error))
        self._federation.queue.jobs_fail(self._id, {"code": error.code})
        self._end()

    def _end(self) -> None:
        """Nothing is left to do here; the folder is kept for as long as the result may be asked for."""
        (self._folder / ENDED_FILE).touch()

    def _watch(self) -> None:
        """Say that the job lives, by its last report, and hear whether it is still wanted."""
        path = self._folder / REPORT_FILE
        while not self._is_over.wait(self._heartbeat_s):
            try:
                with self._telling:
                    if path.exists():
                        self._tell(path.read_text())
            except JobCancelledError:
                self._is_cancelled.set()
                if self._experiment is not None:
                    with suppress(FedWardError):
                        self._experiment.stop()
                return
            except FedWardError as error:
                _log.warning("the network host does not answer", code=error.code, reason=error.message)


def run_job(root: Path, job_id: str) -> int:
    """Run a job's process to its end; returns the exit status."""
    folder = root / JOBS / job_id
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with closing(Federation(root, store=folder / "federator.db")) as federation:
            JobRun(federation, folder).run()
    except FedWardError as error:
        _log.warning("the job is put off", job=job_id, code=error.code, reason=error.message)
        return AGAIN
    return 0


def _end_with_parent() -> None:
    """The federator's end closes our standard input; what runs here ends with it, to be begun again by the next one."""
    sys.stdin.buffer.read()
    os._exit(AGAIN)


if __name__ == "__main__":
    structlog.configure(logger_factory=ErrorStreamLogger)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_job(Path(sys.argv[1]), sys.argv[2]))
