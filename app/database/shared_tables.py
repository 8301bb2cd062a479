"""Tables for what servers on one PostgreSQL share. SQLite leaves them empty.

`engine` imports them, so that all migrations know them.
"""

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, Text

from app.database.tables import TEXT_ID, metadata

# Keys of requests that a server answers now, see app/history/idempotency_claims.py.
idempotency_claims = Table(
    "idempotency_claims",
    metadata,
    Column("idempotency_key", String(256), primary_key=True),
    Column("key_id", String(32), primary_key=True),  # of the sender; empty without keys
    Column("server", String(36), nullable=False),
    Column("token", TEXT_ID, nullable=False),  # of the request
    Column("claimed_ms", BigInteger, nullable=False),
)

# Small files of the models that servers share, see app/registry/shared_models.py.
model_files = Table(
    "model_files",
    metadata,
    Column("category", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),  # in the category's folder
    # Grows with each change, in the order of commits. Rows are changed and never deleted.
    Column("number", BigInteger, nullable=False, unique=True),
    Column("data", LargeBinary),  # null for a deleted file
)

# Windows of drift monitoring at their last test, see app/history/shared_drift.py.
drift_windows = Table(
    "drift_windows",
    metadata,
    Column("category", String(64), primary_key=True),
    Column("station", String(256), primary_key=True),  # with its own calibration; "" for all others
    Column("number", BigInteger, nullable=False),  # greater than those stored before
    Column("version", String(64), nullable=False),
    Column("settings", Text, nullable=False),  # of the reference
    Column("alarm_since", TEXT_ID),  # an inspection
    Column("rows", Text, nullable=False),  # id and values of each inspection, a JSON list
)

# Large deletions that wait for an administrator, or are confirmed.
held_deletions = Table(
    "held_deletions",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("held", Text),  # JSON; null once it is confirmed
    Column("confirmed", BigInteger, nullable=False),  # the amount that the next pass may delete
)
