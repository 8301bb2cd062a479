"""The table of claims of idempotency keys."""

from alembic import op
from sqlalchemy import inspect

from app.database.shared_tables import idempotency_claims

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    # The first migration makes new tables as they are declared now.
    if not inspect(connection).has_table("idempotency_claims"):
        idempotency_claims.create(connection)
    if connection.dialect.name == "postgresql":
        # A claim lives for seconds. Without a log, it costs no flush to disk.
        op.execute("ALTER TABLE idempotency_claims SET UNLOGGED")
