import sqlite3
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, insert, inspect, make_url, select, text

from app.database.engine import Database, DatabaseDamaged, DatabaseError, DatabaseUnavailable, redact_url
from app.database.tables import REVISION, audit, inspections
from app.history.identity import ensure_identity
from tests.app.history.rows import add, row
from tests.support.postgres import Postgres
from tests.support.rights import without_roots_rights

ACT = {"created_ms": 1, "actor": "a", "action": "b", "target": "c", "outcome": "done"}


def test_tables_of_unknown_version_are_refused(each_database: Database) -> None:
    with each_database.write() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(insert(audit), [ACT])
    for use in (each_database.upgrade, each_database.prepare):
        with pytest.raises(DatabaseError, match=r"has tables \(audit, .*restore a backup"):
            use()
    with each_database.read() as connection:
        assert len(connection.execute(select(audit)).all()) == 1
    assert each_database.revision is None


def test_two_servers_can_upgrade_at_once(each_database_url: str) -> None:
    databases = [Database(each_database_url) for _ in range(4)]
    errors, identities = [], set()

    def upgrade(database: Database) -> None:
        try:
            database.upgrade()
            identities.add(ensure_identity(database))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=upgrade, args=[database]) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {database.revision for database in databases} == {REVISION}
    assert len(identities) == 1
    for database in databases:
        database.close()


def test_new_file_locked_by_a_writer_is_waited_for(tmp_path: Path) -> None:
    """SQLite does not wait: it refuses to change the journal mode."""
    with closing(sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        database = Database(f"sqlite:///{tmp_path / 'new.sqlite'}")
        upgrading = threading.Thread(target=database.upgrade)
        upgrading.start()
        upgrading.join(0.2)
        assert upgrading.is_alive()
        other.execute("COMMIT")
        upgrading.join()
        assert database.revision == REVISION
        database.close()


def test_database_of_a_later_version_is_refused(each_database: Database) -> None:
    with each_database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="later version of FlowGauge"):
        each_database.upgrade()
    assert each_database.revision == "9999"


def test_tables_without_the_audit_sample_are_migrated(each_database: Database) -> None:
    add(each_database, row())
    with each_database.write() as connection:
        connection.execute(text("DROP INDEX ix_inspections_audit"))
        connection.execute(text("ALTER TABLE inspections DROP COLUMN audit"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    each_database.upgrade()
    add(each_database, row(audit=True))
    with each_database.read() as connection:
        audited = connection.scalars(select(inspections.c.audit).order_by(inspections.c.id)).all()
        assert audited == [False, True]
        assert "ix_inspections_audit" in {
            one["name"] for one in inspect(connection).get_indexes("inspections")
        }


def test_tables_without_warnings_are_migrated(each_database: Database) -> None:
    add(each_database, row(part_id="old"))
    with each_database.write() as connection:
        for index in ("file_name", "warnings", "category"):
            connection.execute(text(f"DROP INDEX ix_inspections_{index}"))
        for column in ("warnings", "file_name", "margin"):
            connection.execute(text(f"ALTER TABLE inspections DROP COLUMN {column}"))
        connection.execute(text("CREATE INDEX ix_inspections_category ON inspections (category, id)"))
        connection.execute(text("DROP TABLE idempotency_claims"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    each_database.upgrade()
    add(each_database, row(warnings=["near-threshold", "unlike-training"], margin=-0.5))
    with each_database.read() as connection:
        columns = inspections.c.warnings, inspections.c.margin
        found = connection.execute(select(*columns).order_by(inspections.c.id)).all()
        assert found == [([], None), (["near-threshold", "unlike-training"], -0.5)]
        indexes = {one["name"]: one["column_names"] for one in inspect(connection).get_indexes("inspections")}
        assert inspect(connection).has_table("idempotency_claims")
    assert indexes["ix_inspections_category"][-1] == "margin"
    assert {"ix_inspections_file_name", "ix_inspections_warnings"} < indexes.keys()


def test_reader_sees_one_snapshot(each_database: Database) -> None:
    count = select(func.count()).select_from(audit)
    with each_database.read() as reader:
        assert reader.scalar(count) == 0
        with each_database.write() as writer:
            writer.execute(insert(audit), [ACT])
        assert reader.scalar(count) == 0
    with each_database.read() as reader:
        assert reader.scalar(count) == 1


def test_writers_wait_for_each_other(each_database: Database) -> None:
    """Each reads and then writes, which SQLite refuses after another write."""
    with each_database.write() as connection:
        connection.execute(insert(audit), [{**ACT, "created_ms": 0}])

    def count_up() -> None:
        for _ in range(20):
            with each_database.write() as connection:
                connection.execute(select(func.max(audit.c.number))).scalar_one()
                connection.execute(audit.update().values(created_ms=audit.c.created_ms + 1))

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with each_database.read() as connection:
        assert connection.scalar(select(audit.c.created_ms)) == 80


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("oracle://me:secret@host/name", "got 'oracle'$"),
        ("mysql://host/name", "got 'mysql'"),
        ("nonsense", "cannot be read"),
        ("postgresql+asyncpg://host/name", "got 'postgresql.asyncpg'"),
    ],
)
def test_other_database_is_refused(url: str, reason: str) -> None:
    with pytest.raises(DatabaseError, match=reason):
        Database(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hun@ter2@host/name",  # the host would be ter2@host
        "postgresql://me:hun@ter:2@host/name",  # the port would be 2@host
        "postgresql://me:hun@ter/2@host/name",  # the name would be 2@host/name
        "postgres//me:hunter2@host/name",
    ],
)
def test_unencoded_password_is_not_shown(url: str) -> None:
    with pytest.raises(DatabaseError, match="percent-encoded") as caught:
        Database(url)
    told = "".join(traceback.format_exception(caught.value))
    assert not [
        part for part in ("hun", "ter", "2@", "hunter2") if part in told.partition("DatabaseError")[2]
    ]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////var/history.sqlite", "sqlite:////var/history.sqlite"),
        ("postgresql://me@host/name?sslmode=require", "postgresql://me@host/name?sslmode=require"),
        ("postgresql://me:hush@host/name", "postgresql://me:***@host/name"),
        ("postgresql://host/name?user=me&password=hush", "postgresql://host/name?user=me"),
        ("postgresql://me@host/name?sslpassword=hush&password=hush", "postgresql://me@host/name"),
        ("postgresql://me@host/name?oauth_client_secret=hush", "postgresql://me@host/name"),
    ],
)
def test_url_is_shown_without_secrets(url: str, said: str) -> None:
    assert redact_url(make_url(url)) == said


def test_stopped_server_is_unavailable_until_it_returns(postgres: Postgres) -> None:
    with postgres.database() as url:
        database = Database(url)
        database.upgrade()
        with database.write() as connection:
            connection.execute(insert(audit), [ACT])
        postgres.stop()
        try:
            with pytest.raises(DatabaseUnavailable, match=r"does not answer.*FLOWGAUGE_DATABASE.* failed"):
                database.upgrade()
            with pytest.raises(DatabaseUnavailable), database.read() as connection:
                connection.execute(select(audit))
        finally:
            postgres.start()
        with database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(audit)) == 1
        database.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_database_with_another_encoding_is_refused(postgres: Postgres, encoding: str) -> None:
    with postgres.database(encoding) as url:
        database = Database(url)
        for begin in (database.upgrade, database.prepare):
            with pytest.raises(DatabaseError, match=rf"encoding is {encoding}, .*createdb --encoding UTF8"):
                begin()
        assert database.revision is None
        database.close()


def test_long_lock_is_reported(postgres: Postgres) -> None:
    with postgres.database() as url:
        first = Database(url)
        first.upgrade()
        second = Database(f"{url}&options=-c%20lock_timeout%3D1s")
        for database, seconds in ((first, "30s"), (second, "1s")):
            with database.read() as connection:
                assert connection.scalar(text("SHOW lock_timeout")) == seconds
        with first.write() as connection:
            connection.execute(text("LOCK TABLE audit"))
            with pytest.raises(DatabaseUnavailable), second.write() as waiting:
                waiting.execute(insert(audit), [ACT])
        with second.write() as connection:
            connection.execute(insert(audit), [ACT])
        first.close()
        second.close()


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_unwritable_file_is_reported(mode: int) -> None:
    """No server is involved."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's lies in one that is closed to others than root
        Path(folder).chmod(0o755)
        path = Path(folder) / "history.sqlite"
        database = Database(f"sqlite:///{path}")
        database.upgrade()
        database.close()
        path.chmod(mode)
        with without_roots_rights(), pytest.raises(DatabaseUnavailable) as caught:
            Database(f"sqlite:///{path}").upgrade()
    said = str(caught.value)
    fault = "attempt to write a readonly database" if mode else "unable to open database file"
    assert f"{path} cannot be used ({fault}): " in said
    assert "FLOWGAUGE_DATABASE" not in said


def test_connection_in_use_at_close_is_closed_later(database: Database) -> None:
    with database.read() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        database.close()
        assert connection.scalar(text("SELECT 1")) == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        driver.execute("SELECT 1")


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def zeros_within(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)


def name_that_is_no_text(path: Path) -> None:
    """SQLite's error quotes the damaged name, which Python cannot decode."""
    content = path.read_bytes()
    assert b"tablesessionssessions" in content
    path.write_bytes(content.replace(b"tablesessionssessions", b"table\xffessionssessions"))


@pytest.mark.parametrize("damage", [no_database, zeros_within, name_that_is_no_text])
def test_damaged_file_is_reported_with_the_remedy(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "history.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    damage(path)
    damaged = Database(f"sqlite:///{path}")

    def read_all() -> None:
        damaged.upgrade()
        with damaged.read() as connection:
            connection.execute(select(inspections)).all()

    with pytest.raises(DatabaseDamaged, match=r"history\.sqlite is damaged") as caught:
        read_all()
    damaged.close()
    assert "flowgauge backup restore" in str(caught.value)
    assert "only in the old folder's journal" in str(caught.value)


@pytest.mark.parametrize("replaced", [False, True])
def test_removed_or_replaced_file_is_unavailable(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "history.sqlite"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    away = path.rename(tmp_path / "away")
    if replaced:
        path.write_bytes(away.read_bytes())
    for use in (database.read, database.write):
        with pytest.raises(DatabaseUnavailable, match="removed or replaced"), use():
            pass
    assert path.exists() == replaced
    away.replace(path)
    with database.read() as connection:
        assert connection.scalars(select(audit)).all() == []

    def lose_what_was_committed() -> None:
        with database.write() as connection:
            connection.execute(insert(audit), [ACT])
            path.rename(away)

    with pytest.raises(DatabaseUnavailable):
        lose_what_was_committed()
    database.close()
