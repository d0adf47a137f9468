"""Sums that are kept: what an experiment's rounds and what left come to, and indexes for lists of any length."""

# ruff: noqa: S608 - no text but what stands here
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_UPDATE = "kind IN ('upload', 'enclosed')"


def upgrade() -> None:
    """Bring the store to this version, and sum up what is there."""
    _rounds()
    _egress()
    op.create_index("plans_by_name", "plans", ["name", "state", "decided_at"])


def _rounds() -> None:
    op.drop_index("rounds_by_experiment", "rounds")
    op.drop_index("rounds_by_step", "rounds")
    op.create_index("rounds_by_experiment", "rounds", ["experiment_id", "accepted_at", "researcher"])
    op.create_index("rounds_open", "rounds", ["experiment_id", "accepted_at"], sqlite_where=sa.text("ended_at IS NULL"))
    answered, failed = sa.text("step = 'replied'"), sa.text("step = 'failed'")
    op.create_index("rounds_answered", "rounds", ["experiment_id", "round", "accepted_at"], sqlite_where=answered)
    op.create_index("rounds_failed", "rounds", ["ended_at"], sqlite_where=failed)
    op.create_table(
        "experiments",
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("researcher", sa.Text(), nullable=False),
        sa.Column("last_request", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.Float(), nullable=False),
        sa.Column("last_activity_at", sa.Float(), nullable=False),
        sa.Column("latest_jti", sa.Text(), nullable=False),
        sa.Column("answered_jti", sa.Text(), nullable=True),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("trained_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_id"),
        sa.UniqueConstraint("last_request"),
    )
    op.create_index("experiments_open", "experiments", ["last_request"], sqlite_where=sa.text("open > 0"))
    op.execute(
        f"""
        INSERT INTO experiments
        SELECT
            experiment_id, researcher, row_number() OVER (ORDER BY max(accepted_at), experiment_id),
            min(accepted_at), max(coalesce(ended_at, accepted_at)),
            (SELECT jti FROM rounds AS r WHERE r.experiment_id = rounds.experiment_id
             ORDER BY accepted_at DESC LIMIT 1),
            (SELECT jti FROM rounds AS r WHERE r.experiment_id = rounds.experiment_id AND step = 'replied'
             ORDER BY accepted_at DESC LIMIT 1),
            count(*), count(*) FILTER (WHERE ended_at IS NULL), sum({_trained_s("rounds")})
        FROM rounds GROUP BY experiment_id
        """
    )
    op.execute(
        f"""
        CREATE TRIGGER rounds_accepted AFTER INSERT ON rounds BEGIN
            INSERT INTO experiments VALUES (
                new.experiment_id, new.researcher, (SELECT coalesce(max(last_request), 0) + 1 FROM experiments),
                new.accepted_at, coalesce(new.ended_at, new.accepted_at),
                new.jti, CASE WHEN new.step = 'replied' THEN new.jti END,
                1, new.ended_at IS NULL, {_trained_s("new")}
            )
            ON CONFLICT (experiment_id) DO UPDATE SET
                last_request = excluded.last_request,
                last_activity_at = max(last_activity_at, excluded.last_activity_at),
                latest_jti = excluded.latest_jti,
                answered_jti = coalesce(excluded.answered_jti, answered_jti),
                requests = requests + 1,
                open = open + excluded.open,
                trained_s = trained_s + excluded.trained_s;
        END
        """
    )
    op.execute(
        f"""
        CREATE TRIGGER rounds_ended AFTER UPDATE OF ended_at ON rounds
        WHEN old.ended_at IS NULL AND new.ended_at IS NOT NULL BEGIN
            UPDATE experiments SET
                last_activity_at = max(last_activity_at, new.ended_at),
                answered_jti = CASE WHEN new.step = 'replied' THEN new.jti ELSE answered_jti END,
                open = open - 1,
                trained_s = trained_s + {_trained_s("new")}
            WHERE experiment_id = new.experiment_id;
        END
        """
    )


def _trained_s(row: str) -> str:
    """How long a round trained, once it has ended; text that is no JSON must not hold up a round."""
    told = f"CASE WHEN json_valid({row}.timing) THEN json_extract({row}.timing, '$.train_s') END"
    return f"CASE WHEN {row}.ended_at IS NULL THEN 0.0 ELSE coalesce({told}, 0.0) END"


def _egress() -> None:
    op.drop_index("egress_by_experiment", "egress")
    op.create_index("egress_by_experiment", "egress", ["experiment_id", "at"])
    op.create_index("egress_by_recipient", "egress", ["recipient", "at"])
    op.create_index("updates_by_time", "egress", ["at"], sqlite_where=sa.text(_UPDATE))
    op.create_index("updates_by_experiment", "egress", ["experiment_id", "at"], sqlite_where=sa.text(_UPDATE))
    op.create_index("updates_by_recipient", "egress", ["recipient", "at"], sqlite_where=sa.text(_UPDATE))
    op.create_index("updates_by_round", "egress", ["experiment_id", "round", "norm"], sqlite_where=sa.text(_UPDATE))
    op.create_table(
        "egress_totals",
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("updates", sa.Integer(), nullable=False),
        sa.Column("update_bytes", sa.Integer(), nullable=False),
        sa.Column("last_update_at", sa.Float(), nullable=True),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_id", "recipient"),
    )
    op.execute(
        f"""
        INSERT INTO egress_totals
        SELECT
            coalesce(experiment_id, '') AS experiment, recipient,
            count(*) FILTER (WHERE {_UPDATE}), coalesce(sum(size_bytes) FILTER (WHERE {_UPDATE}), 0),
            max(at) FILTER (WHERE {_UPDATE}), count(*), sum(size_bytes), max(at)
        FROM egress GROUP BY experiment, recipient
        """
    )
    is_update = f"(new.{_UPDATE})"
    op.execute(
        f"""
        CREATE TRIGGER egress_left AFTER INSERT ON egress BEGIN
            INSERT INTO egress_totals VALUES (
                coalesce(new.experiment_id, ''), new.recipient,
                {is_update}, {is_update} * new.size_bytes, CASE WHEN {is_update} THEN new.at END,
                1, new.size_bytes, new.at
            )
            ON CONFLICT (experiment_id, recipient) DO UPDATE SET
                updates = updates + excluded.updates,
                update_bytes = update_bytes + excluded.update_bytes,
                last_update_at = max(
                    coalesce(last_update_at, excluded.last_update_at), coalesce(excluded.last_update_at, last_update_at)
                ),
                messages = messages + 1,
                size_bytes = size_bytes + excluded.size_bytes,
                last_at = max(last_at, excluded.last_at);
        END
        """
    )
