"""The table of jobs."""

from alembic import op
from sqlalchemy import inspect

from app.database.tables import jobs

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first migration makes new tables as they are declared now.
    if not inspect(op.get_bind()).has_table("jobs"):
        jobs.create(op.get_bind())
