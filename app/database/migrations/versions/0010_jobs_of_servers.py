"""Columns of jobs that another server shows, takes over or cancels."""

from alembic import op
from sqlalchemy import Boolean, Column, Integer, String, false, inspect

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first migration makes new tables as they are declared now.
    if any(column["name"] == "owner" for column in inspect(op.get_bind()).get_columns("jobs")):
        return
    for column in (
        Column("done", Integer),
        Column("total", Integer),
        Column("owner", String(36)),
        Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    ):
        op.add_column("jobs", column)
