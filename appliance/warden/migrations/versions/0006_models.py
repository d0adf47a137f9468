"""Models that researchers sent for the hospital's staff."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Bring the store to this version."""
    op.create_table(
        "models",
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("researcher", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("kept_at", sa.Float(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("parameters", sa.Integer(), nullable=True),
        sa.Column("rounds", sa.Integer(), nullable=True),
        sa.Column("plan_sha256", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("jti"),
    )
