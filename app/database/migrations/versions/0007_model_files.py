"""The table of the models that servers share."""

from alembic import op
from sqlalchemy import inspect

from app.database.shared_tables import model_files

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first migration makes new tables as they are declared now.
    if not inspect(op.get_bind()).has_table("model_files"):
        model_files.create(op.get_bind())
