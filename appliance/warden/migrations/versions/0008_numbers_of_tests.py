"""How many numbers of tests left with an answer, counts for metrics over all hospitals among them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Bring the store to this version; of what left before it is not known."""
    op.add_column("egress", sa.Column("numbers", sa.Integer(), nullable=True))
