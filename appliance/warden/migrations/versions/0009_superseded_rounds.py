"""Rounds that were given up for a later one of their experiment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Bring the store to this version; until then every round was worked on to its end."""
    op.add_column("rounds", sa.Column("superseded_by", sa.Integer(), nullable=True))
