"""The researcher's store: messages in and out, and how far each round has come, in one SQLite file.

A round's step and the messages that belong to it are one transaction. So whatever moment a crash picks, the round
goes on behind its last recorded step, with the very requests that were sent before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel

from appliance.protocol.envelope import Envelope
from appliance.protocol.messages import ErrorReply, SealedFile, TrainReply
from appliance.protocol.rounds import ResearcherStep
from appliance.transport import mailbox
from appliance.transport.sqlite import Statement, durable_engine, writing
from researcher_kit.history import RoundRecord

metadata = sa.MetaData()
for _table in mailbox.metadata.sorted_tables:
    _table.to_metadata(metadata)

rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("experiment_id", sa.String(64), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("step", sa.String(16), nullable=False),
    sa.Column("terms", sa.String(64), nullable=False),  # a hash of all that the requests say
    sa.Column("chosen", sa.JSON, nullable=False),  # node ids
    sa.Column("parameters", sa.JSON),  # the SealedFile, its key sealed to ourselves
    sa.Column("requested_at", sa.Float),
    sa.Column("used", sa.JSON),  # the nodes whose updates count
    sa.Column("record", sa.JSON),
)
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("jti", sa.String(32), primary_key=True),
    sa.Column("experiment_id", sa.String(64), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("node_id", sa.String(63), nullable=False),
    sa.Column("dataset_id", sa.String(64), nullable=False),
    sa.Column("reply_kind", sa.String(32)),
    sa.Column("reply", sa.JSON),
    sa.UniqueConstraint("experiment_id", "round", "node_id"),
)
# The frozen layers of an experiment's model, as the nodes got them last.
frozen = sa.Table(
    "frozen",
    metadata,
    sa.Column("experiment_id", sa.String(64), primary_key=True),
    sa.Column("content_sha256", sa.String(64), nullable=False),  # of the tensor file
    sa.Column("file", sa.JSON, nullable=False),  # the SealedFile, its key sealed to ourselves
    sa.Column("recipients", sa.JSON, nullable=False),  # node ids
    sa.Column("uploaded_at", sa.Float, nullable=False),
)


_ROUND = (rounds.c.experiment_id == sa.bindparam("of")) & (rounds.c.round == sa.bindparam("number"))
_FROM_ROUND = (rounds.c.experiment_id == sa.bindparam("of")) & (rounds.c.round >= sa.bindparam("number"))
_FIND = Statement(sa.select(rounds).where(_ROUND))
_ANY_FROM = Statement(sa.select(rounds.c.round).where(_FROM_ROUND).limit(1))
_PUT = Statement(rounds.insert().prefix_with("OR REPLACE"))
_CLOSE = Statement(rounds.update().where(_ROUND).values(step=ResearcherStep.CLOSED))
_FORGET = Statement(rounds.delete().where(_FROM_ROUND))
_ASK = Statement(requests.insert())
_ASKED = Statement(
    sa.select(requests)
    .where(requests.c.experiment_id == sa.bindparam("of"), requests.c.round == sa.bindparam("number"))
    .order_by(requests.c.node_id)
)
_ANSWER = Statement(
    requests.update()
    .where(
        requests.c.jti == sa.bindparam("asked"),
        requests.c.experiment_id == sa.bindparam("of"),
        requests.c.round == sa.bindparam("number"),
        requests.c.node_id == sa.bindparam("by"),
        requests.c.dataset_id == sa.func.coalesce(sa.bindparam("on"), requests.c.dataset_id),  # an error names none
        requests.c.reply_kind.is_(None),
    )
    .values(reply_kind=sa.bindparam("reply_kind"), reply=sa.bindparam("reply"))
)
_DROP = Statement(
    requests.delete()
    .where(requests.c.experiment_id == sa.bindparam("of"), requests.c.round >= sa.bindparam("number"))
    .returning(requests.c.jti)
)
_FIND_FROZEN = Statement(sa.select(frozen).where(frozen.c.experiment_id == sa.bindparam("of")))
_PUT_FROZEN = Statement(frozen.insert().prefix_with("OR REPLACE"))


@dataclass(frozen=True)
class RoundRow:
    """How far a round is, and what its steps brought."""

    step: ResearcherStep
    terms: str
    chosen: tuple[str, ...]
    parameters: SealedFile | None = None
    requested_at: float | None = None
    used: tuple[str, ...] = ()
    record: RoundRecord | None = None


@dataclass(frozen=True)
class FrozenRow:
    """Frozen layers at the network host: which, for whom, and since when (seconds since the epoch)."""

    content_sha256: str
    file: SealedFile
    recipients: tuple[str, ...]
    uploaded_at: float


@dataclass(frozen=True)
class Request:
    """A Train message that was sent, and the answer to it when there is one."""

    jti: str
    node_id: str
    dataset_id: str
    reply: TrainReply | ErrorReply | None


def open_store(path: Path) -> sa.Engine:
    """The store at ``path``, made when it is missing."""
    engine = durable_engine(path)
    with writing(engine) as connection:
        metadata.create_all(connection)
    return engine


class RoundBook:
    """One experiment's rounds and requests."""

    def __init__(self, engine: sa.Engine, experiment_id: str) -> None:
        self._engine = engine
        self._experiment_id = experiment_id

    def find(self, round_: int) -> RoundRow | None:
        """The round as it was recorded last, or None when nothing of it was."""
        with self._engine.connect() as connection:
            row = _FIND.first(connection, **self._of(round_))
        if row is None:
            return None
        return RoundRow(
            step=ResearcherStep(row["step"]),
            terms=row["terms"],
            chosen=tuple(row["chosen"]),
            parameters=_read(SealedFile, row["parameters"]),
            requested_at=row["requested_at"],
            used=tuple(row["used"] or ()),
            record=_read(RoundRecord, row["record"]),
        )

    def is_clear(self, from_round: int) -> bool:
        """Whether neither this round nor a later one has left anything."""
        with self._engine.connect() as connection:
            return _ANY_FROM.first(connection, **self._of(from_round)) is None

    def put(self, round_: int, row: RoundRow) -> None:
        """Record how far a round is."""
        with writing(self._engine) as connection:
            self.put_within(connection, round_, row)

    def put_within(self, connection: sa.Connection, round_: int, row: RoundRow) -> None:
        """``put``, inside the caller's transaction."""
        _PUT.run(
            connection,
            experiment_id=self._experiment_id,
            round=round_,
            step=row.step,
            terms=row.terms,
            chosen=row.chosen,
            parameters=None if row.parameters is None else row.parameters.model_dump(mode="json"),
            requested_at=row.requested_at,
            used=row.used,
            record=None if row.record is None else row.record.model_dump(mode="json"),
        )

    def add_request(self, connection: sa.Connection, round_: int, *, jti: str, node_id: str, dataset_id: str) -> None:
        """Record a request, in the transaction that puts it into the outbox."""
        whose = {"experiment_id": self._experiment_id, "round": round_}
        _ASK.run(connection, jti=jti, **whose, node_id=node_id, dataset_id=dataset_id)

    def requests(self, round_: int) -> list[Request]:
        """The round's requests, by node."""
        with self._engine.connect() as connection:
            return [_request(row) for row in _ASKED.rows(connection, **self._of(round_))]

    def find_frozen(self) -> FrozenRow | None:
        """The experiment's frozen layers, as they were uploaded last."""
        with self._engine.connect() as connection:
            row = _FIND_FROZEN.first(connection, of=self._experiment_id)
        file = _read(SealedFile, row["file"]) if row else None
        if row is None or file is None:
            return None
        return FrozenRow(row["content_sha256"], file, tuple(row["recipients"]), row["uploaded_at"])

    def put_frozen(self, row: FrozenRow) -> None:
        """Record an upload of frozen layers, in place of the experiment's last one."""
        with writing(self._engine) as connection:
            _PUT_FROZEN.run(
                connection,
                experiment_id=self._experiment_id,
                content_sha256=row.content_sha256,
                file=row.file.model_dump(mode="json"),
                recipients=row.recipients,
                uploaded_at=row.uploaded_at,
            )

    def record_reply(self, connection: sa.Connection, envelope: Envelope) -> bool:
        """Record the first answer to a request of ours; False for any other message.

        The request's ``jti``, its node and its round must all fit, so that no member answers for another.
        """
        body = envelope.body
        if not isinstance(body, TrainReply | ErrorReply):
            return False
        values = {
            **self._of(body.round or 0),
            "asked": envelope.in_reply_to,
            "by": envelope.sender,
            "on": body.dataset_id if isinstance(body, TrainReply) else None,
            "reply_kind": body.kind,
            "reply": body.model_dump(mode="json"),
        }
        return _ANSWER.run(connection, **values).rowcount == 1

    def close(self, round_: int) -> list[str]:
        """Record that a round is done with; returns the ``jti`` of each request, none of which is sent any more."""
        with writing(self._engine) as connection:
            _CLOSE.run(connection, **self._of(round_))
            return self._drop_requests(connection, round_)

    def abandon(self, from_round: int) -> list[str]:
        """Forget this round and later ones; returns the ``jti`` of each request, none of which is sent any more."""
        with writing(self._engine) as connection:
            _FORGET.run(connection, **self._of(from_round))
            return self._drop_requests(connection, from_round)

    def _drop_requests(self, connection: sa.Connection, from_round: int) -> list[str]:
        dropped = [row["jti"] for row in _DROP.rows(connection, **self._of(from_round))]
        mailbox.erase(connection, dropped)
        return dropped

    def _of(self, round_: int) -> dict[str, Any]:
        return {"of": self._experiment_id, "number": round_}


def _request(row: Mapping[str, Any]) -> Request:
    is_reply = row["reply_kind"] == TrainReply.kind
    reply = _read(TrainReply, row["reply"]) if is_reply else _read(ErrorReply, row["reply"])
    return Request(row["jti"], row["node_id"], row["dataset_id"], reply)


_Model = TypeVar("_Model", bound=BaseModel)


def _read(model: type[_Model], data: Mapping[str, Any] | None) -> _Model | None:
    # JSON mode: in the strict models, only there do lists become tuples.
    return None if data is None else model.model_validate_json(json.dumps(data))
