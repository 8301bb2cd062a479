"""Which inspections' ids do not tell their age, and the time by which those grow older."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_PICTURED: dict[str, Any] = {
    "sqlite_where": sa.text("has_pictures = 1"),
    "postgresql_where": sa.text("has_pictures"),
}
_REBUILT: tuple[tuple[str, dict[str, Any]], ...] = (("decision", {}), ("pictured", _PICTURED))
# The first id of 2026: earlier ones were made while a clock was behind, for there was no FlowGauge before.
_FIRST = "019b76da-a800-0000-0000-000000000000"
_AGELESS: dict[str, Any] = dict.fromkeys(_PICTURED, sa.text("seen_ms IS NOT NULL"))


def upgrade() -> None:
    op.add_column("inspections", sa.Column("seen_ms", sa.BigInteger(), nullable=True))
    op.execute(sa.text("UPDATE inspections SET seen_ms = 0 WHERE id < :first").bindparams(first=_FIRST))
    for name, where in _REBUILT:
        op.drop_index(f"ix_inspections_{name}", "inspections")
        op.create_index(f"ix_inspections_{name}", "inspections", ["decision", "id", "seen_ms"], **where)
    op.create_index(
        "ix_inspections_ageless", "inspections", ["decision", "seen_ms", "id", "has_pictures"], **_AGELESS
    )
    op.create_table(
        "watch",
        sa.Column("ran_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("ran_ms", name=op.f("pk_watch")),
    )


def downgrade() -> None:
    op.drop_table("watch")
    op.drop_index("ix_inspections_ageless", "inspections")
    for name, where in _REBUILT:
        op.drop_index(f"ix_inspections_{name}", "inspections")
        op.create_index(f"ix_inspections_{name}", "inspections", ["decision", "id"], **where)
    op.drop_column("inspections", "seen_ms")
