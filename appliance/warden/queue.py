"""The rounds that wait and those that run. The queue is the store's table; this gives it workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
import structlog

from appliance.protocol.errors import FedWardError
from appliance.protocol.messages import Scalar
from appliance.protocol.register import Register
from appliance.protocol.rounds import RoundStep
from appliance.transport.sqlite import Statement
from appliance.warden.live import LiveRound, Point
from appliance.warden.round import OnStep, Round
from appliance.warden.services import Services
from appliance.warden.store import IS_OPEN, pauses, rounds

RETRY_S = 5.0
STOP_S = 5.0
_RECHECK_S = 0.5
# What a pause holds back: a round that has yet to begin. One that is trained goes on; one that staff or the researcher
# stopped, or that came too late, has an answer to get.
_WOULD_BEGIN = sa.and_(rounds.c.step == RoundStep.ACCEPTED, rounds.c.stop_reason.is_(None))
_IS_HELD = sa.and_(
    _WOULD_BEGIN,
    rounds.c.expires_at > sa.bindparam("now"),
    rounds.c.experiment_id.in_(sa.select(pauses.c.experiment_id)),
)
_WAITING = Statement(
    sa.select(rounds.c.jti, rounds.c.experiment_id).where(IS_OPEN, sa.not_(_IS_HELD)).order_by(rounds.c.accepted_at)
)
_PAUSED_ROUNDS = (
    sa.select(
        rounds.c.jti,
        rounds.c.researcher,
        rounds.c.federator,
        rounds.c.experiment_id,
        rounds.c.round,
        rounds.c.expires_at,
        pauses.c.since,
    )
    .join_from(pauses, rounds, pauses.c.experiment_id == rounds.c.experiment_id)
    .where(IS_OPEN, _WOULD_BEGIN)
)
_PAUSED = Statement(_PAUSED_ROUNDS.order_by(rounds.c.accepted_at))
_HELD = Statement(_PAUSED_ROUNDS.where(rounds.c.jti == sa.bindparam("of")))
_ROUND = Statement(sa.select(rounds).where(rounds.c.jti == sa.bindparam("of")))
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Running:
    """A round that is being worked on: what staff see of it, and what ends it."""

    live: LiveRound
    stop: threading.Event = field(default_factory=threading.Event)


class RoundQueue:
    """Runs accepted rounds: first come first served, one round of an experiment at a time, none of one that is paused.

    What the store holds unfinished at the start is gone on with.

    Args:
        services: The node's parts.
        workers: How many rounds may run at once.
        on_step: Told of each finished step of each round.
    """

    def __init__(self, services: Services, workers: int, on_step: OnStep) -> None:
        self._services = services
        self._on_step = on_step
        self._changed = threading.Condition()
        self._running: dict[str, _Running] = {}  # by jti
        self._ending: list[str] = []  # experiments, of which no round begins meanwhile
        self._is_closing = False
        self._threads = [threading.Thread(target=self._work, name=f"round-{n}", daemon=True) for n in range(workers)]

    def start(self) -> None:
        """Start the workers."""
        self._clear_spool()
        self._services.kept.tidy()
        for thread in self._threads:
            thread.start()

    def notify(self) -> None:
        """A round was accepted."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of what runs, for it goes on at the next start; returns when the workers have ended, or soon after."""
        with self._changed:
            self._is_closing = True
            experiments = [running.live.experiment_id for running in self._running.values()]
            for running in self._running.values():
                running.stop.set()
            self._changed.notify_all()
        for experiment in experiments:
            self._end_processes(experiment)
        deadline = time.monotonic() + STOP_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def running(self) -> int:
        """How many rounds are being worked on."""
        return len(self._running)

    def live(self) -> list[dict[str, Any]]:
        """The rounds that are being worked on, as ``LiveRound.describe`` has them."""
        with self._changed:
            return [running.live.describe() for running in self._running.values()]

    def live_of(self, experiment_id: str) -> tuple[dict[str, Any], list[Point]] | None:
        """An experiment's round that is being worked on, and its curve of the loss; None when there is none."""
        with self._changed:
            found = (running.live for running in self._running.values())
            live = next((live for live in found if live.experiment_id == experiment_id), None)
        return None if live is None else (live.describe(), live.curve)

    def mark_paused(self, connection: sa.Connection, experiment_id: str, by: str) -> None:
        """Let no round of an experiment begin, from the commit of the caller's transaction on.

        One that is being worked on goes on to its end. What waits, and what is asked for meanwhile, keeps its place
        until ``mark_resumed``, a stop, or its own end.
        """
        connection.execute(pauses.insert().values(experiment_id=experiment_id, staff=by, since=time.time()))

    def mark_resumed(self, connection: sa.Connection, experiment_id: str) -> bool:
        """Let an experiment's rounds begin again, once ``notify`` follows the commit; False if it was not paused."""
        found = connection.execute(pauses.delete().where(pauses.c.experiment_id == experiment_id))
        return bool(found.rowcount)

    def tell_paused(self) -> None:
        """Tell researchers that their experiments wait for a pause to end, and take up what expired meanwhile.

        A word that is lost harms nothing: it is said again with each heartbeat. It is one for each experiment, of the
        round that came first, however many wait.
        """
        with self._services.store.read() as connection:
            paused = _PAUSED.rows(connection)
        now = time.time()
        with self._changed:
            waiting = [row for row in paused if row["jti"] not in self._running]
            if any(row["expires_at"] <= now for row in waiting):
                self._changed.notify_all()
        for row in {row["experiment_id"]: row for row in reversed(waiting)}.values():
            self._tell_waiting(row)

    def tell_if_paused(self, jti: str) -> None:
        """Tell the researcher that a round which was just accepted waits for a pause to end, if it does."""
        with self._services.store.read() as connection:
            row = _HELD.first(connection, of=jti)
        if row is not None:
            self._tell_waiting(row)

    def _tell_waiting(self, row: Mapping[str, Any]) -> None:
        body = Scalar(
            experiment_id=row["experiment_id"],
            round=row["round"],
            iteration=0,
            iterations=0,
            paused_since=int(row["since"]),
        )
        self._services.mailbox.send_once(row["federator"] or row["researcher"], body, in_reply_to=row["jti"])

    def mark_stopped(
        self,
        connection: sa.Connection,
        experiment_id: str,
        by: str,
        *,
        asked_by: int | None = None,
        federator: str | None = None,
    ) -> bool:
        """Note, in the caller's transaction, that an experiment's rounds shall end; True if there were any.

        Args:
            connection: The caller's transaction.
            experiment_id: Whose rounds.
            by: Who stops them, in words.
            asked_by: Only those asked for until then, in seconds since the epoch by the asker's clock.
            federator: Only those that this federator asked for.
        """
        meant = _unfinished(experiment_id)
        if asked_by is not None:
            meant = sa.and_(meant, rounds.c.asked_at <= asked_by)
        if federator is not None:
            meant = sa.and_(meant, rounds.c.federator == federator)
        result = connection.execute(rounds.update().where(meant).values(stop_reason=by))
        return bool(result.rowcount)

    def mark_superseded(self, connection: sa.Connection, experiment_id: str, round_: int, asked_at: int) -> bool:
        """Note, in the caller's transaction, that an experiment went on to a later round; True if one was open.

        Its researcher has closed the rounds before it: their work can count no more, and the new one would wait for it.

        Args:
            connection: The caller's transaction.
            experiment_id: Whose rounds.
            round_: The later one; the same round asked again ends nothing.
            asked_at: When it was asked for, in seconds since the epoch by the asker's clock.
        """
        earlier = sa.and_(
            _unfinished(experiment_id),
            rounds.c.round < round_,
            rounds.c.asked_at <= asked_at,
            rounds.c.stop_reason.is_(None),
        )
        given_up = {"superseded_by": round_, "stop_reason": f"round {round_} of the experiment"}
        return bool(connection.execute(rounds.update().where(earlier).values(**given_up)).rowcount)

    def mark_departed(self, connection: sa.Connection, register: Register) -> list[str]:
        """``mark_stopped`` for whoever is no active member any more; returns their experiments."""
        query = sa.select(rounds.c.experiment_id, rounds.c.researcher, rounds.c.federator).where(IS_OPEN)
        departed = {
            experiment
            for experiment, *askers in connection.execute(query.distinct())
            if not all(register.is_active(member) for member in askers if member)
        }
        for experiment in departed:
            self.mark_stopped(connection, experiment, "the operator, who ended the membership of who asked")
        return sorted(departed)

    def end(self, experiment_id: str) -> float | None:
        """End an experiment's work and its processes, and wait until its round is recorded as ended, if one runs.

        ``mark_stopped`` was committed before. When a round runs that it does not mean, for it was asked for later,
        nothing of what it does mean runs any more: one round of an experiment runs at a time.

        Returns:
            When its last process was seen dead (seconds since the epoch); None when there was none, or when the runner
            cannot be asked.
        """
        with self._changed:
            self._ending.append(experiment_id)
        try:
            return self._end(experiment_id)
        finally:
            with self._changed:
                self._ending.remove(experiment_id)
                self._changed.notify_all()

    def _end(self, experiment_id: str) -> float | None:
        with self._services.store.read() as connection:
            later = sa.and_(_unfinished(experiment_id), rounds.c.stop_reason.is_(None))
            not_meant = set(connection.scalars(sa.select(rounds.c.jti).where(later)))
        with self._changed:
            ending = {jti: r.stop for jti, r in self._running.items() if r.live.experiment_id == experiment_id}
            if not not_meant.isdisjoint(ending):
                return None
            for stop in ending.values():
                stop.set()
            self._changed.notify_all()
        deadline = time.monotonic() + STOP_S
        ended_at = self._end_processes(experiment_id)
        # A round may have been on its way to the runner when it was told: what it began there ends as well.
        while not self._have_ended(ending, _RECHECK_S) and time.monotonic() < deadline:
            ended_at = self._end_processes(experiment_id) or ended_at
        return ended_at

    def _end_processes(self, experiment_id: str) -> float | None:
        try:
            return self._services.runner.stop(experiment_id).ended_at
        except FedWardError as error:
            _log.warning("runner not reached for a stop", experiment=experiment_id, reason=error.message)
            return None

    def _have_ended(self, jtis: Collection[str], timeout_s: float) -> bool:
        """Whether none of these rounds is being worked on, or the last comes to its end in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running.keys().isdisjoint(jtis), timeout_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                row = self._await()
                if row is None:
                    return
                running = _Running(LiveRound(row["experiment_id"], row["round"]))
                self._running[row["jti"]] = running
            if row["stop_reason"]:
                running.stop.set()
            self._attempt(row, running)
            with self._changed:
                del self._running[row["jti"]]
                self._changed.notify_all()

    def _await(self) -> dict[str, Any] | None:
        """The next round, as soon as there is one; None when the queue closes. The caller holds the lock."""
        while not self._is_closing:
            wait_s = None
            try:
                if row := self._take():
                    return row
            except Exception:  # noqa: BLE001 - a worker outlives whatever the disk does
                _log.exception("the queue cannot be read; trying again", in_s=RETRY_S)
                wait_s = RETRY_S
            self._changed.wait(wait_s)
        return None

    def _attempt(self, row: dict[str, Any], running: _Running) -> None:
        stop = running.stop
        try:
            Round(self._services, row, stop, self._on_step, running.live).run()
        except FedWardError as error:
            _log.warning("a round is put off", jti=row["jti"], in_s=RETRY_S, code=error.code, reason=error.message)
        except Exception:  # noqa: BLE001 - a worker outlives whatever one round does
            _log.exception("a round could not be recorded; trying again", jti=row["jti"], in_s=RETRY_S)
        else:
            return
        was_stopped = stop.is_set()
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or stop.is_set() != was_stopped, RETRY_S)

    def _clear_spool(self) -> None:
        """Throw away what a crash left behind of rounds that have ended."""
        with self._services.store.read() as connection:
            unfinished = set(connection.scalars(sa.select(rounds.c.jti).where(IS_OPEN)))
        for file in self._services.spool.iterdir():
            if file.name.partition(".")[0] not in unfinished:
                file.unlink()

    def _take(self) -> dict[str, Any] | None:
        busy = {*self._ending, *(running.live.experiment_id for running in self._running.values())}
        with self._services.store.read() as connection:
            found = _WAITING.rows(connection, now=time.time())
            waiting = (row["jti"] for row in found if row["experiment_id"] not in busy)
            first = next(waiting, None)
            return None if first is None else _ROUND.first(connection, of=first)


def _unfinished(experiment_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(rounds.c.experiment_id == experiment_id, IS_OPEN)
