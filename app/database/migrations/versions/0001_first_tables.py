"""The first tables, as app/database declares them.

A migration that changes them after a release must first copy their old declarations to this file.
"""

from alembic import op

from app.database.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)
