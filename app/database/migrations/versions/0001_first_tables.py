"""The first tables, as app/database/tables.py declares them.

The step that changes them after a release writes them out here as they were.
"""

from alembic import op

from app.database.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)
