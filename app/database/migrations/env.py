"""Run the migrations on the connection of `Database.upgrade`."""

from alembic import context

from app.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a column: Alembic then copies the table.
    render_as_batch=True,
)
# The transaction is the caller's.
context.run_migrations()
