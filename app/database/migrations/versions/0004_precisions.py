"""The precision of the engine that scored, by which scores compare."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("inspections", sa.Column("precision", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.drop_column("inspections", "precision")
