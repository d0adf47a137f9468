"""The researcher's store: messages in and out, and how far each round has come, in one SQLite file.

A round's step and the messages that belong to it are one transaction. So whatever moment a crash picks, the round
goes on behind its last finished step, with the very requests that were sent before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from appliance.protocol.envelope import Envelope
from appliance.protocol.messages import ErrorReply, TrainReply
from appliance.protocol.rounds import ResearcherStep
from appliance.transport import mailbox
from appliance.transport.sqlite import durable_engine, writing

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


@dataclass(frozen=True)
class RoundRow:
    """A round as it stands in the store."""

    step: ResearcherStep
    terms: str
    chosen: tuple[str, ...]
    parameters: dict[str, Any] | None
    requested_at: float | None
    used: tuple[str, ...]
    record: dict[str, Any] | None


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
        """The round as it stands, or None when it was never begun."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(rounds).where(self._is_of(rounds, round_))).one_or_none()
        if row is None:
            return None
        return RoundRow(
            step=ResearcherStep(row.step),
            terms=row.terms,
            chosen=tuple(row.chosen),
            parameters=row.parameters,
            requested_at=row.requested_at,
            used=tuple(row.used or ()),
            record=row.record,
        )

    def begin(self, round_: int, *, terms: str, chosen: tuple[str, ...]) -> None:
        """Record that a round's nodes are chosen."""
        with writing(self._engine) as connection:
            connection.execute(
                rounds.insert().values(
                    experiment_id=self._experiment_id,
                    round=round_,
                    step=ResearcherStep.CHOSEN,
                    terms=terms,
                    chosen=list(chosen),
                )
            )

    def advance(self, round_: int, step: ResearcherStep, **values: Any) -> None:
        """Record a finished step and what it brought."""
        with writing(self._engine) as connection:
            self.advance_within(connection, round_, step, **values)

    def advance_within(self, connection: sa.Connection, round_: int, step: ResearcherStep, **values: Any) -> None:
        """``advance``, inside the caller's transaction."""
        connection.execute(rounds.update().where(self._is_of(rounds, round_)).values(step=step, **values))

    def add_request(self, connection: sa.Connection, round_: int, *, jti: str, node_id: str, dataset_id: str) -> None:
        """Record a request, in the transaction that puts it into the outbox."""
        connection.execute(
            requests.insert().values(
                jti=jti, experiment_id=self._experiment_id, round=round_, node_id=node_id, dataset_id=dataset_id
            )
        )

    def requests(self, round_: int) -> list[Request]:
        """The round's requests, by node."""
        chosen = sa.select(requests).where(self._is_of(requests, round_)).order_by(requests.c.node_id)
        with self._engine.connect() as connection:
            return [_request(row) for row in connection.execute(chosen)]

    def record_reply(self, connection: sa.Connection, envelope: Envelope) -> bool:
        """Record the first answer to a request of ours; False for any other message.

        The request's ``jti``, its node and its round must all fit, so that no member answers for another.
        """
        body = envelope.body
        if not isinstance(body, TrainReply | ErrorReply):
            return False
        fits = self._is_of(requests, body.round or 0) & (requests.c.jti == envelope.in_reply_to)
        if isinstance(body, TrainReply):
            fits &= requests.c.dataset_id == body.dataset_id
        first = fits & (requests.c.node_id == envelope.sender) & requests.c.reply_kind.is_(None)
        values = {"reply_kind": body.kind, "reply": body.model_dump(mode="json")}
        return connection.execute(requests.update().where(first).values(values)).rowcount == 1

    def close(self, round_: int) -> list[str]:
        """Record that a round is done with; returns the ``jti`` of each request, of which none matters any more."""
        with writing(self._engine) as connection:
            self.advance_within(connection, round_, ResearcherStep.CLOSED)
            return self._drop_requests(connection, round_)

    def abandon(self, from_round: int) -> list[str]:
        """Forget this round and later ones; returns the ``jti`` of each request."""
        later = (rounds.c.experiment_id == self._experiment_id) & (rounds.c.round >= from_round)
        with writing(self._engine) as connection:
            connection.execute(rounds.delete().where(later))
            return self._drop_requests(connection, from_round)

    def _drop_requests(self, connection: sa.Connection, from_round: int) -> list[str]:
        gone = (requests.c.experiment_id == self._experiment_id) & (requests.c.round >= from_round)
        return list(connection.execute(requests.delete().where(gone).returning(requests.c.jti)).scalars())

    def _is_of(self, table: sa.Table, round_: int) -> sa.ColumnElement[bool]:
        return (table.c.experiment_id == self._experiment_id) & (table.c.round == round_)


def _request(row: Any) -> Request:
    return Request(row.jti, row.node_id, row.dataset_id, _reply(row.reply_kind, row.reply))


def _reply(kind: str | None, data: Mapping[str, Any] | None) -> TrainReply | ErrorReply | None:
    # JSON mode: in the strict models, only there do lists become tuples.
    if kind is None:
        return None
    model = TrainReply if kind == TrainReply.kind else ErrorReply
    return model.model_validate_json(json.dumps(data))
