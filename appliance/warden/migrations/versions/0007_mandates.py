"""Rounds that a federator asked for in a researcher's name, and mandates that were taken back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Bring the store to this version; whatever ran before was asked for in person."""
    op.add_column("rounds", sa.Column("federator", sa.Text(), nullable=True))
    op.add_column("rounds", sa.Column("mandate_id", sa.Text(), nullable=True))
    is_mandated = sa.text("mandate_id IS NOT NULL")
    op.create_index("rounds_mandated", "rounds", ["mandate_id", "researcher"], sqlite_where=is_mandated)
    op.create_table(
        "withdrawals",
        sa.Column("researcher", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.Text(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("researcher", "experiment_id"),
    )
