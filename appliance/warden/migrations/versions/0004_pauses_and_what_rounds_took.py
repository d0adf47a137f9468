"""Experiments that staff paused, when a round's request ends, and what a round took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Bring the store to this version. A round that is there ends when the release before would have ended it."""
    op.create_table(
        "pauses",
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("staff", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_id"),
    )
    op.create_table(
        "measures",
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("memory_bytes", sa.Integer(), nullable=True),
        sa.Column("loss", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("jti"),
    )
    op.add_column("rounds", sa.Column("expires_at", sa.Float(), nullable=False, server_default="0"))
    op.execute("UPDATE rounds SET expires_at = accepted_at + 604800")
    # A request is kept as JSON text inside a JSON column.
    op.execute(
        "UPDATE rounds SET expires_at = json_extract(json_extract(request, '$'), '$.deadline') WHERE ended_at IS NULL "
        "AND json_extract(json_extract(request, '$'), '$.deadline') < expires_at"
    )
