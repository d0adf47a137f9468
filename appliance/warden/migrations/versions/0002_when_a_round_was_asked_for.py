"""When a round was asked for: a Stop ends what was asked for before it, and nothing later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Bring the store to this version. Rounds that are there count as asked for before any Stop."""
    with op.batch_alter_table("rounds", schema=None) as batch_op:
        batch_op.add_column(sa.Column("asked_at", sa.Float(), nullable=False, server_default="0"))
