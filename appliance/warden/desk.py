"""The desk: takes what arrives from the network, and accepts, answers or refuses it.

What is accepted is committed before its Receipt is sent; what is refused leaves a line in the audit log and an
answer where there is someone to answer.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable

import sqlalchemy as sa
import structlog

from appliance.protocol.envelope import Envelope, NewerMessageError
from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.messages import (
    Datasets,
    ListDatasets,
    Ping,
    PlanApproval,
    PlanStanding,
    PlanStatus,
    Pong,
    Release,
    Search,
    Stop,
    Stopped,
    Train,
)
from appliance.protocol.register import Role
from appliance.protocol.rounds import RoundStep
from appliance.transport.mqtt import Arrived
from appliance.transport.sqlite import Statement
from appliance.warden import mandates
from appliance.warden.models import ModelShelf
from appliance.warden.queue import RoundQueue
from appliance.warden.round import error_reply
from appliance.warden.services import Services
from appliance.warden.store import IS_OPEN, rounds

REFUSALS_PER_MINUTE = 30
_IS_ITS = rounds.c.experiment_id == sa.bindparam("experiment_id")
_IN_USE = Statement(
    sa.select(rounds.c.jti).where(
        sa.or_(sa.and_(_IS_ITS, rounds.c.researcher != sa.bindparam("researcher")), rounds.c.jti == sa.bindparam("jti"))
    )
)
_UNDER_WAY = Statement(
    sa.select(rounds.c.jti).where(
        _IS_ITS,
        rounds.c.round == sa.bindparam("round"),
        rounds.c.dataset_id == sa.bindparam("dataset_id"),
        IS_OPEN,
    )
)
_ACCEPT = Statement(rounds.insert())
_log = structlog.get_logger(__name__)


class Desk:
    """Handles one message at a time; long work goes to the queue."""

    def __init__(self, services: Services, queue: RoundQueue, models: ModelShelf) -> None:
        self._services = services
        self._queue = queue
        self._models = models
        self._stops: set[str] = set()
        self._refusals = _RefusalLog(services)
        self._handlers: dict[type, Callable[[Envelope], None]] = {
            Ping: self._ping,
            Search: self._datasets,
            ListDatasets: self._datasets,
            PlanStatus: self._plan_status,
            PlanApproval: self._plan_approval,
            Train: self._train,
            Stop: self._stop,
            Release: self._release,
        }

    def handle(self, arrived: Arrived) -> None:
        """Deal with one arrival; never raises. What could not be dealt with is not acknowledged, and so comes again."""
        try:
            self._handle(arrived)
        except FedWardError as error:
            _log.error("message put off", topic=arrived.topic[:200], code=error.code, reason=error.message)
        except Exception:  # noqa: BLE001 - whatever one message does, the next one is taken
            _log.exception("message put off: the node failed inside", topic=arrived.topic[:200])

    def _handle(self, arrived: Arrived) -> None:
        try:
            envelope = self._open(arrived)
            if envelope is None:
                return
            handler = self._handlers.get(type(envelope.body))
            if handler is None:
                raise MessageRefusedError(f"A node does not act on '{envelope.kind}'.")  # noqa: TRY301
            handler(envelope)
        except MessageRefusedError as error:
            self._refusals.note(arrived, error)

    def _open(self, arrived: Arrived) -> Envelope | None:
        """The message to act upon; one of a newer release that must arrive is answered, lest its sender wait."""
        try:
            return self._services.mailbox.open(arrived)
        except NewerMessageError as error:
            body = error.envelope.body
            if not body.is_durable:
                raise
            request = body if isinstance(body, Train) else None
            event, subject = ("round.refused", request.experiment_id) if request else ("message.refused", body.kind)
            self._refuse(error.envelope, error, event, subject, request)
            return None

    def tick(self) -> None:
        """Write what the refusal log only counted."""
        self._refusals.flush()

    def _ping(self, envelope: Envelope) -> None:
        assert isinstance(envelope.body, Ping)
        self._services.reply(envelope.sender, Pong(sequence=envelope.body.sequence), in_reply_to=envelope.jti)

    def _datasets(self, envelope: Envelope) -> None:
        services = self._services
        with services.store.read() as connection:
            found = services.datasets.visible_to(connection, envelope.sender)
        if isinstance(envelope.body, Search):
            wanted = set(envelope.body.tags)
            found = [dataset for dataset in found if wanted <= set(dataset.tags)]
        services.reply(envelope.sender, Datasets(datasets=tuple(found)), in_reply_to=envelope.jti)

    def _plan_status(self, envelope: Envelope) -> None:
        assert isinstance(envelope.body, PlanStatus)
        self._answer_standing(envelope, envelope.body.sha256)

    def _plan_approval(self, envelope: Envelope) -> None:
        services, body = self._services, envelope.body
        assert isinstance(body, PlanApproval)
        try:
            with services.store.write() as connection:
                services.mailbox.accept(connection, envelope)
                services.plans.request(connection, envelope.sender, body)
        except FedWardError as error:
            self._refuse(envelope, error, "plan.refused", body.sha256)
            return
        services.mailbox.acknowledge(envelope)
        self._answer_standing(envelope, body.sha256)

    def _answer_standing(self, envelope: Envelope, sha256: str) -> None:
        services = self._services
        with services.store.read() as connection:
            state, note, until = services.plans.standing(connection, sha256)
        standing = PlanStanding(sha256=sha256, state=state, note=note, until=until)
        services.reply(envelope.sender, standing, in_reply_to=envelope.jti)

    def _train(self, envelope: Envelope) -> None:
        services, request = self._services, envelope.body
        assert isinstance(request, Train)
        try:
            with services.store.write() as connection:
                services.mailbox.accept(connection, envelope)
                was_behind = self._accept_round(connection, envelope, request)
        except FedWardError as error:
            self._refuse(envelope, error, "round.refused", request.experiment_id, request)
            return
        if was_behind:  # the end of a training takes up to seconds: the desk stays open meanwhile
            threading.Thread(target=self._queue.end, args=(request.experiment_id,), name="stop", daemon=True).start()
        self._queue.notify()
        services.mailbox.acknowledge(envelope)
        self._queue.tell_if_paused(envelope.jti)

    def _accept_round(self, connection: sa.Connection, envelope: Envelope, request: Train) -> bool:
        """Accept a round or refuse it; True if it ends an earlier one that is open here."""
        services = self._services
        # (1) In whose name is it asked, and may that researcher use this data?
        asker = mandates.require_asker(connection, services.register, envelope, request, node=services.signer.member_id)
        researcher = asker.researcher
        dataset = services.datasets.require_usable(connection, request.dataset_id, researcher)
        # (2) May this text run?
        _, approved = services.plans.require_runnable(connection, request.plan_sha256)
        # (3) With these arguments, after the node's own?
        arguments, overrides = services.policy.override(request.training_args)
        services.policy.require_ranges({**arguments, "model_args": request.model_args}, approved)
        services.policy.require_terms(request.model_copy(update={"training_args": arguments}), dataset["rows"])
        # (4) Once, and in place of the rounds before it.
        self._require_new(connection, envelope, request, researcher)
        was_behind = self._queue.mark_superseded(connection, request.experiment_id, request.round, envelope.issued_at)
        accepted_at = time.time()
        _ACCEPT.run(
            connection,
            jti=envelope.jti,
            researcher=researcher,
            experiment_id=request.experiment_id,
            round=request.round,
            dataset_id=dataset["id"],
            plan_sha256=request.plan_sha256,
            request=request.model_dump_json(),
            step=RoundStep.ACCEPTED,
            asked_at=envelope.issued_at,
            accepted_at=accepted_at,
            expires_at=min(
                accepted_at + Train.lifetime_s,
                request.deadline or math.inf,
                asker.mandate.expires_at if asker.mandate else math.inf,
            ),
            federator=asker.federator,
            mandate_id=asker.mandate.id if asker.mandate else None,
            training_args=arguments,
            overrides=[override.model_dump_json() for override in overrides],
            timing={},
            record="",
        )
        in_name_of = {"researcher": researcher, "mandate": asker.mandate.id} if asker.mandate else {}
        services.audit.write(
            connection,
            envelope.sender,
            "round.accepted",
            request.experiment_id,
            **in_name_of,
            round=request.round,
            dataset=dataset["name"],
            plan=request.plan_sha256,
            parameters_sha256=request.parameters.sha256,
            **({"frozen_sha256": request.frozen.sha256} if request.frozen else {}),
            overrides={override.argument: override.used for override in overrides},
        )
        return was_behind

    def _require_new(self, connection: sa.Connection, envelope: Envelope, request: Train, researcher: str) -> None:
        asked = {"experiment_id": request.experiment_id, "round": request.round, "dataset_id": request.dataset_id}
        others = {"experiment_id": request.experiment_id, "researcher": researcher, "jti": envelope.jti}
        if _IN_USE.first(connection, **others) is not None:
            # Its child, with all that it keeps, belongs to whoever came first.
            raise FedWardError("The experiment's id is in use here already.", code=Code.ROUND_REFUSED)
        if _UNDER_WAY.first(connection, **asked) is not None:
            # Behind its end it may be asked for again: another hospital failed, or the researcher went back.
            raise FedWardError(
                f"Round {request.round} of this experiment is under way here already.", code=Code.ROUND_REFUSED
            )

    def _stop(self, envelope: Envelope) -> None:
        services, body = self._services, envelope.body
        assert isinstance(body, Stop)
        if envelope.jti in self._stops:
            return  # at it; the answer is the Receipt as well
        role = services.register.require(envelope.sender).role
        with services.store.read() as connection:
            query = sa.select(rounds.c.researcher, rounds.c.federator).where(
                rounds.c.experiment_id == body.experiment_id
            )
            askers = connection.execute(query.distinct()).all()
        if askers and not any(envelope.sender in asker for asker in askers):
            error = FedWardError(
                "Only its own researcher, or who asks in their name, may stop an experiment.",
                code=Code.PERMISSION_DENIED,
            )
            self._refuse(envelope, error, "stop.refused", body.experiment_id)
            return
        with services.store.write() as connection:
            # One that was long under way must not end what was asked for since.
            was_running = self._queue.mark_stopped(
                connection,
                body.experiment_id,
                f"the {role} {envelope.sender}",
                asked_by=envelope.issued_at,
                federator=envelope.sender if role is Role.FEDERATOR else None,
            )
            if role is Role.RESEARCHER:  # else a federator would ask for the next round
                mandates.withdraw(connection, envelope.sender, body.experiment_id, envelope.issued_at)
            services.audit.write(connection, envelope.sender, "experiment.stop", body.experiment_id)
        # Its end takes up to seconds: the desk stays open meanwhile.
        self._stops.add(envelope.jti)
        thread = threading.Thread(
            target=self._see_stopped, args=(envelope, body.experiment_id, was_running), name="stop", daemon=True
        )
        thread.start()

    def _see_stopped(self, envelope: Envelope, experiment_id: str, was_running: bool) -> None:
        services = self._services
        try:
            ended_at = self._queue.end(experiment_id)
            body = Stopped(experiment_id=experiment_id, was_running=was_running, ended_at=ended_at)
            # Received only now: a Stop that a crash interrupted comes again, and is answered then.
            with services.store.write() as connection:
                services.mailbox.accept(connection, envelope)
                signed = services.post(connection, envelope.sender, body, in_reply_to=envelope.jti)
                services.audit.write(connection, "node", "experiment.stopped", experiment_id, ended_at=ended_at)
        except FedWardError as error:
            _log.error("a stop could not be recorded", experiment=experiment_id, reason=error.message)
            return
        finally:
            self._stops.discard(envelope.jti)
        services.mailbox.acknowledge(envelope)
        services.mailbox.send(signed)

    def _release(self, envelope: Envelope) -> None:
        services, release = self._services, envelope.body
        assert isinstance(release, Release)
        try:
            with services.store.write() as connection:
                services.mailbox.accept(connection, envelope)
                self._models.accept(connection, envelope, release)
        except FedWardError as error:
            self._refuse(envelope, error, "model.refused", release.experiment_id)
            return
        self._models.notify()
        services.mailbox.acknowledge(envelope)

    def _refuse(
        self, envelope: Envelope, error: FedWardError, event: str, subject: str, request: Train | None = None
    ) -> None:
        """Record a refusal and answer it; the message counts as received, for asking again changes nothing.

        Raises:
            FedWardError: It was this node that failed, for now.
            MessageRefusedError: One member's refusals are too many to be written down.
        """
        if error.code in (Code.DISK_FULL, Code.STORE_BUSY):
            raise error
        if not self._refusals.admits(envelope.sender):
            raise MessageRefusedError(f"'{envelope.sender}' is refused too often to be answered.", code=error.code)
        services = self._services
        body = error_reply(error, request)
        with services.store.write() as connection:
            services.mailbox.accept(connection, envelope)
            signed = services.post(connection, envelope.sender, body, in_reply_to=envelope.jti)
            services.audit.write(
                connection,
                envelope.sender,
                event,
                subject,
                code=error.code,
                reason=error.message,
                rule=error.rule,
                round=request.round if request else None,
            )
        services.mailbox.acknowledge(envelope)
        services.mailbox.send(signed)


class _RefusalLog:
    """Audits refused messages, and only counts them once there are many: a flood must not fill the disk."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._minute = 0
        self._written = 0
        self._answered: Counter[str] = Counter()
        self._uncounted: Counter[str] = Counter()

    def note(self, arrived: Arrived, error: MessageRefusedError) -> None:
        topic = arrived.topic[:200]
        _log.warning("message refused", topic=topic, code=error.code, reason=error.message)
        self._turn()
        self._written += 1
        if self._written > REFUSALS_PER_MINUTE:
            self._uncounted[error.code] += 1
            return
        with self._services.store.write() as connection:
            self._services.audit.write(
                connection, "node", "message.refused", topic, code=error.code, reason=error.message
            )

    def admits(self, sender: str) -> bool:
        """Whether a member's refused request may be written down and answered in this minute."""
        self._turn()
        self._answered[sender] += 1
        return self._answered[sender] <= REFUSALS_PER_MINUTE

    def flush(self) -> None:
        if not self._uncounted or int(time.time() // 60) == self._minute:
            return
        with self._services.store.write() as connection:
            self._services.audit.write(connection, "node", "message.refused-many", "", counts=dict(self._uncounted))
        self._uncounted.clear()

    def _turn(self) -> None:
        minute = int(time.time() // 60)
        if minute != self._minute:
            self.flush()
            self._minute, self._written = minute, 0
            self._answered.clear()
