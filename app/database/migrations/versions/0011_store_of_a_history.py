"""A mark on the identity of a history whose files are in a store."""

from alembic import op
from sqlalchemy import Boolean, Column, false, inspect

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first migration makes new tables as they are declared now.
    if not any(column["name"] == "has_store" for column in inspect(op.get_bind()).get_columns("identity")):
        op.add_column("identity", Column("has_store", Boolean, nullable=False, server_default=false()))
