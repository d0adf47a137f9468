"""What the GUI shows: revisions, two reviewers, decisions kept, and indexes for its lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SUBJECT = "CASE WHEN json_valid(text) THEN json_extract(text, '$.subject') END"


def upgrade() -> None:
    """Bring the store to this version."""
    for table in ("datasets", "plans"):
        op.add_column(table, sa.Column("revision", sa.Integer(), server_default="0", nullable=False))
    op.add_column("plans", sa.Column("first_approval", sa.JSON(), nullable=True))
    op.create_index(
        "plans_listed",
        "plans",
        [
            "requested_at", "sha256", "name", "origin", "requested_by", "state", "reviewer", "decided_at", "until",
            "revision", "first_approval",
        ],
    )  # fmt: skip
    op.create_table(
        "plan_decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("staff", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("until", sa.Float(), nullable=True),
        sa.Column("ranges", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("plan_decisions_by_plan", "plan_decisions", ["sha256"])
    # What was decided before is in the plans, each with its last decision.
    op.execute(
        "INSERT INTO plan_decisions (sha256, staff, at, decision, note, until, ranges) "
        "SELECT sha256, reviewer, decided_at, state, note, until, ranges FROM plans WHERE decided_at IS NOT NULL"
    )
    op.drop_index("rounds_by_experiment", "rounds")
    op.create_index(
        "rounds_by_experiment",
        "rounds",
        ["experiment_id", "round", "step", "accepted_at", "ended_at", "researcher", "dataset_id", "plan_sha256"],
    )
    op.create_index("egress_by_time", "egress", ["at"])
    op.add_column("audit", sa.Column("subject", sa.Text(), sa.Computed(_SUBJECT, persisted=False)))
    op.create_index("audit_by_subject", "audit", ["subject"])
