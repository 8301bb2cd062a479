"""Tables of what several servers share: windows of drift monitoring, and held deletions."""

from alembic import op
from sqlalchemy import inspect

from app.database.shared_tables import drift_windows, held_deletions

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    # The first migration makes new tables as they are declared now.
    if not inspect(connection).has_table("drift_windows"):
        drift_windows.create(connection)
        held_deletions.create(connection)
