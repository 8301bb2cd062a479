"""The kind of defect: a column of reviews, and of inspections for the latest review."""

from alembic import op
from sqlalchemy import Column, String, inspect

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("reviews", "inspections"):
        # The first migration makes new tables as they are declared now.
        if all(column["name"] != "kind" for column in inspect(op.get_bind()).get_columns(table)):
            op.add_column(table, Column("kind", String(64)))
