"""The audit sample: a column of inspections, and its index."""

from alembic import op
from sqlalchemy import Boolean, Column, false, inspect

from app.database.tables import inspections

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first migration makes new tables as they are declared now.
    if any(column["name"] == "audit" for column in inspect(op.get_bind()).get_columns("inspections")):
        return
    op.add_column("inspections", Column("audit", Boolean, nullable=False, server_default=false()))
    [index] = (one for one in inspections.indexes if one.name == "ix_inspections_audit")
    index.create(op.get_bind())
