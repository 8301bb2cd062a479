"""Tables for SQLite and PostgreSQL.

Times are milliseconds since 1970, UTC, in 64 bits, which both databases compare in the same way. An
inspection's id is a UUID of version 7 (RFC 9562), whose text sorts by time. So one index on it serves paging
and time ranges, and every other index ends in it.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeEngine

from app.database.codes import Codes

# The last migration in migrations/versions, which results in the tables below.
REVISION: Final = "0011"

# PostgreSQL must compare ids and cursors byte by byte, as SQLite does, whatever its locale is.
TEXT_ID: TypeEngine[str] = String(36).with_variant(String(36, collation="C"), "postgresql")
_LARGE = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by INTEGER alone


def _index_where(name: str, condition: str, *columns: str) -> Index:
    """Make a partial index of the few rows that meet a condition."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

inspections = Table(
    "inspections",
    metadata,
    Column("id", TEXT_ID, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("category", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("decision", String(8), nullable=False),  # PASS, REVIEW, REJECT
    Column("score", Float, nullable=False),
    Column("p_value", Float, nullable=False),
    Column("part_id", String(256)),
    Column("product_id", String(256)),
    Column("recipe_id", String(256)),
    Column("station", String(256)),
    Column("key_id", String(32)),  # of the sender; null without keys
    Column("request_id", String(128), nullable=False),
    Column("image_sha256", String(64), nullable=False),
    Column("image_bytes", BigInteger, nullable=False),
    # False once retention has removed the image and the map and kept the row.
    Column("has_pictures", Boolean, nullable=False),
    Column("map_bytes", BigInteger, nullable=False),
    # The heatmap's colours: map values at the dark end and at the middle.
    Column("map_low", Float, nullable=False),
    Column("map_middle", Float, nullable=False),
    # Statistics of the normalised features, a JSON list; null if the model has no reference for them.
    Column("features", Text),
    Column("idempotency_key", String(256)),
    Column("request_sha256", String(64)),  # of the request that first used the idempotency key
    # The answer sent, JSON.
    Column("answer", Text, nullable=False),
    # Number of reviews, and the verdict of the latest with its kind of defect.
    Column("review_revision", Integer, nullable=False),
    Column("verdict", String(8)),  # good, defect
    Column("kind", String(64)),
    # Of the engine: scores of different precisions do not compare.
    Column("precision", String(32), nullable=False),
    Column("audit", Boolean, nullable=False, server_default=false()),  # in the audit sample
    Column("warnings", Codes),
    Column("file_name", String(256)),
    # Score minus the threshold of REJECT; null in rows from before migration 0006.
    Column("margin", Float),
    # The columns after the id filter rows within the index.
    Index("ix_inspections_category", "category", "id", "decision", "verdict", "margin"),
    Index("ix_inspections_category_decision", "category", "decision", "id"),
    Index("ix_inspections_category_station", "category", "station", "id", "decision"),
    Index("ix_inspections_decision", "decision", "id"),
    Index("ix_inspections_station", "station", "id", "decision"),
    _index_where("ix_inspections_part_id", "part_id IS NOT NULL", "part_id", "id"),
    _index_where("ix_inspections_file_name", "file_name IS NOT NULL", "file_name", "id"),
    _index_where(
        "ix_inspections_warnings", "warnings IS NOT NULL", "id", "category", "decision", "verdict", "warnings"
    ),
    _index_where("ix_inspections_verdict", "verdict IS NOT NULL", "verdict", "id"),
    _index_where("ix_inspections_category_verdict", "verdict IS NOT NULL", "category", "verdict", "id"),
    _index_where(
        "ix_inspections_idempotency_key", "idempotency_key IS NOT NULL", "idempotency_key", "key_id"
    ),
    Index(
        "ix_inspections_audit",
        *("id", "category", "decision", "verdict"),
        sqlite_where=text("audit = 1"),
        postgresql_where=text("audit"),
    ),
    # For retention: other inspections with the same image, and the oldest that still have one.
    Index("ix_inspections_image_sha256", "image_sha256"),
    Index(
        "ix_inspections_pictured",
        "decision",
        "id",
        sqlite_where=text("has_pictures = 1"),
        postgresql_where=text("has_pictures"),
    ),
)

reviews = Table(
    "reviews",
    metadata,
    Column("number", _LARGE, primary_key=True, autoincrement=True),
    Column("inspection_id", TEXT_ID, ForeignKey("inspections.id"), nullable=False),
    Column("revision", Integer, nullable=False),  # 1 for the first of an inspection
    Column("created_ms", BigInteger, nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("kind", String(64)),  # of the defect
    Column("reviewer", String(256)),
    Column("note", Text),
    Column("key_id", String(32)),
    UniqueConstraint("inspection_id", "revision"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),  # not secret
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),  # line, viewer, inspector, operator, admin
    Column("secret_sha256", String(64), nullable=False),
    Column("categories", Text),  # a JSON list; null for all of them
    Column("requests_per_minute", Integer),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("key_id", String(32), ForeignKey("keys.id"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", _LARGE, primary_key=True, autoincrement=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("actor", String(256), nullable=False),  # a key's id and name, "anonymous", "command line"
    Column("role", String(16)),
    Column("action", String(64), nullable=False),  # such as model.activate
    Column("target", String(256), nullable=False),  # such as bottle/20261125T011500-3f9a2c
    Column("outcome", String(16), nullable=False),  # done, refused
    Column("detail", Text),  # JSON
    Column("request_id", String(128)),
)

# One row with the id of this history, created when a server first opens the database.
identity = Table(
    "identity",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("has_store", Boolean, nullable=False, server_default=false()),  # see app/history/identity.py
)

products = Table(
    "products",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("kinds", Text, nullable=False),  # of defects, a JSON list
    Column("takeover", String(16), nullable=False),  # automatic, manual
    Column("revision", Integer, nullable=False),  # of the settings above
    # Grows with each change of images or labels.
    Column("data_revision", Integer, nullable=False),
    Column("checked_ms", BigInteger),  # time of the last data check
)

product_images = Table(
    "product_images",
    metadata,
    Column("number", _LARGE, primary_key=True, autoincrement=True),
    Column("product", String(64), ForeignKey("products.name"), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("suffix", String(8), nullable=False),  # of its format; the file is <sha256>.<suffix>
    Column("name", String(256), nullable=False),  # of the uploaded file, for people
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("label", String(8), nullable=False),  # good, defect
    Column("kind", String(64)),  # of the defect
    Column("excluded", Boolean, nullable=False),
    Column("source", String(16), nullable=False),  # upload, camera, folder, inspection
    Column("inspection_id", TEXT_ID),  # that it was imported from; retention may have deleted it
    Column("part_id", String(256)),
    Column("findings", Text),  # of the last data check, a JSON list; null without any
    Column("added_ms", BigInteger, nullable=False),
    UniqueConstraint("product", "sha256"),
    Index("ix_product_images_product", "product", "number"),
)

retention = Table(
    "retention",
    metadata,
    Column("decision", String(8), primary_key=True),  # or "audit": the audit sample
    # The last pass by age deleted inspections from before this time.
    Column("last_before_ms", BigInteger, nullable=False),
    # Counts are complete only after this time. Null while nothing was deleted.
    Column("deleted_before_ms", BigInteger),
)

# Events in the order of their commits, see app/events/log.py. Each is complete in itself, so that it can be
# sent after retention has removed the inspection. The oldest are deleted, never the newest.
events = Table(
    "events",
    metadata,
    Column("number", _LARGE, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),  # inspection, review, model, thresholds
    Column("category", String(64), nullable=False),
    Column("station", String(256)),
    Column("decision", String(8)),
    Column("data", Text, nullable=False),  # JSON
)

# Position of each sink in `events`: all events up to `number` were delivered or given up.
deliveries = Table(
    "deliveries",
    metadata,
    Column("sink", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# Jobs, see app/jobs. The latest ended ones are kept.
jobs = Table(
    "jobs",
    metadata,
    Column("id", TEXT_ID, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),  # train, evaluate, ...
    Column("product", String(64), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("settings", Text, nullable=False),  # JSON
    Column("state", String(16), nullable=False),  # queued, running, succeeded, failed, cancelled
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("share", Float, nullable=False),  # of the job that is done
    Column("stage", String(16)),
    Column("seconds_left", Float),
    Column("threads", Integer),  # chosen at the first start: a training resumes only with as many
    # The product's data_revision and number of good images at the first start.
    Column("data_revision", Integer),
    Column("good", Integer),
    Column("resumed", Integer, nullable=False),  # times it was resumed
    Column("attempts", Integer, nullable=False),  # starts since it last got further
    Column("result", Text),  # JSON
    Column("error", Text),
    Column("outcome", Text),
    Column("done", Integer),  # steps of the stage, such as epochs
    Column("total", Integer),
    Column("owner", String(36)),  # random, of the server that runs it: another one may take over
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),  # at another server
    Index("ix_jobs_state", "state", "id"),
    Index("ix_jobs_product", "product", "id"),
)

# Events that a sink gave up, as long as `events` has them.
failed_deliveries = Table(
    "failed_deliveries",
    metadata,
    Column("sink", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # of the event
    Column("failed_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)
