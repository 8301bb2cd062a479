"""Warnings, file names and margins of inspections, and indexes to search them."""

from alembic import op
from sqlalchemy import Column, Float, String, inspect

from app.database.codes import Codes
from app.database.tables import inspections

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The first migration makes new tables as they are declared now.
    if any(column["name"] == "warnings" for column in inspect(op.get_bind()).get_columns("inspections")):
        return
    added = Column("warnings", Codes), Column("file_name", String(256)), Column("margin", Float)
    for column in added:
        op.add_column("inspections", column)
    op.drop_index("ix_inspections_category", "inspections")
    for index in inspections.indexes:
        if index.name in ("ix_inspections_category", "ix_inspections_file_name", "ix_inspections_warnings"):
            index.create(op.get_bind())
