"""A folder and a database that are not of one history are refused before anything could be deleted."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from app.access import COMMAND_LINE, Role
from app.database.engine import Database
from app.database.tables import identity, inspections
from app.history.history import History, HistoryError
from app.history.identity import IDENTITY, forget
from app.history.record import new_mark
from app.keys import Keys
from app.settings import Settings
from tests.app.history.conftest import MakeEntry
from tests.app.history.rows import add, row
from tests.postgres import Postgres


def start(settings: Settings, *entries: object) -> None:
    """A server that keeps something and is stopped."""

    async def work() -> None:
        history = History(settings)
        await history.open()
        for entry in entries:
            await history.record(entry)  # type: ignore[arg-type]
        await history.close()

    asyncio.run(work())


def identities(settings: Settings) -> tuple[str | None, list[str]]:
    """What the folder and the database hold."""
    path = settings.history / IDENTITY
    database = Database(settings.database_url)
    database.upgrade()
    with database.read() as connection:
        there = list(connection.scalars(select(identity.c.id)))
    database.close()
    return path.read_text() if path.exists() else None, there


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("pictures", "maps", "journal")
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def expect_refused(settings: Settings, *words: str) -> None:
    """A start that changes nothing."""
    before = files(settings.history), identities(settings)
    with pytest.raises(HistoryError, match="belongs to another database") as caught:
        start(settings)
    for word in words:
        assert word in str(caught.value)
    assert (files(settings.history), identities(settings)) == before


@pytest.fixture
def other(history_settings: Settings, tmp_path: Path) -> Settings:
    """The same folder with another database, a new one."""
    return history_settings.model_copy(update={"database": f"sqlite:///{tmp_path / 'other.sqlite'}"})


def test_a_new_history_has_one_identity_and_keeps_it(
    history_settings: Settings, make_entry: MakeEntry
) -> None:
    start(history_settings, make_entry())
    here, [there] = identities(history_settings)
    assert here == there
    start(history_settings, make_entry())
    assert identities(history_settings) == (here, [there])


def test_each_history_has_another(history_settings: Settings, other: Settings, tmp_path: Path) -> None:
    start(history_settings)
    elsewhere = other.model_copy(update={"history": tmp_path / "elsewhere"})
    start(elsewhere)
    assert identities(history_settings)[0] != identities(elsewhere)[0]


def test_a_database_that_has_keys_alone_is_a_new_one(history_settings: Settings) -> None:
    database = Database(history_settings.database_url)
    database.upgrade()
    Keys(database).create(COMMAND_LINE, Role.ADMIN, "made before the first start")
    database.close()
    start(history_settings)
    here, there = identities(history_settings)
    assert [here] == there


def test_a_new_database_for_a_folder_with_pictures(
    history_settings: Settings, other: Settings, make_entry: MakeEntry
) -> None:
    """FLOWGAUGE_DATABASE was lost, or has a typo."""
    start(history_settings, make_entry())
    assert len(files(history_settings.history)) == 2
    expect_refused(other, str(history_settings.history), "other.sqlite", "FLOWGAUGE_DATABASE")
    start(history_settings)  # with the right one all is there


def test_a_new_database_with_keys_for_a_folder_with_pictures(
    history_settings: Settings, other: Settings, make_entry: MakeEntry
) -> None:
    start(history_settings, make_entry())
    database = Database(other.database_url)
    database.upgrade()
    Keys(database).create(COMMAND_LINE, Role.ADMIN, "by the same wrong setting")
    database.close()
    expect_refused(other)


def test_a_folder_whose_identity_is_gone_keeps_its_pictures(
    history_settings: Settings, other: Settings, make_entry: MakeEntry
) -> None:
    start(history_settings, make_entry())
    (history_settings.history / IDENTITY).unlink()
    expect_refused(other)
    [known] = identities(history_settings)[1]
    # The message says how to bring together what does belong together.
    expect_refused(history_settings, f"write {known} into {history_settings.history / IDENTITY}")
    (history_settings.history / IDENTITY).write_text(f"{known}\n")
    start(history_settings)


@pytest.mark.parametrize("found", [b"", b"\n", b"\xff\xfe", b"x" * 100_000])
def test_a_damaged_identity(history_settings: Settings, found: bytes) -> None:
    start(history_settings)
    [known] = identities(history_settings)[1]
    (history_settings.history / IDENTITY).write_bytes(found)
    with pytest.raises(HistoryError, match=f"write {known} into"):
        start(history_settings)


def test_the_database_of_another_history(
    history_settings: Settings, other: Settings, make_entry: MakeEntry, tmp_path: Path
) -> None:
    start(history_settings, make_entry())
    start(other.model_copy(update={"history": tmp_path / "elsewhere"}), make_entry())
    expect_refused(other)


@pytest.mark.parametrize("inspected", [False, True])
def test_two_servers_with_folders_of_their_own_and_one_database(
    history_settings: Settings, make_entry: MakeEntry, tmp_path: Path, inspected: bool
) -> None:
    start(history_settings, *([make_entry()] if inspected else []))
    second = history_settings.model_copy(update={"history": tmp_path / "second"})
    expect_refused(second)
    start(history_settings)


def test_two_servers_that_start_at_once_on_a_new_database(history_settings: Settings, tmp_path: Path) -> None:
    both = [history_settings.model_copy(update={"history": tmp_path / name}) for name in "ab"]
    ready = threading.Barrier(2)
    outcomes: list[str] = []

    def serve(settings: Settings) -> None:
        ready.wait()
        try:
            start(settings)
        except HistoryError:
            outcomes.append("refused")
        else:
            outcomes.append("served")

    threads = [threading.Thread(target=serve, args=[settings]) for settings in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "served"]
    assert len(identities(history_settings)[1]) == 1


def test_a_trial_before_the_database_was_set_cannot_be_taken_up_again(
    history_settings: Settings, other: Settings, make_entry: MakeEntry
) -> None:
    """First without FLOWGAUGE_DATABASE, and nothing was inspected; then with it; then it was lost."""
    start(other)
    start(history_settings, make_entry())
    expect_refused(other)
    start(history_settings)


def test_what_waits_to_be_filed_belongs_to_the_database_too(
    history_settings: Settings, other: Settings, make_entry: MakeEntry
) -> None:
    start(history_settings)
    path = history_settings.history / "journal" / "000000000001.journal"
    path.write_bytes(make_entry().record().encode(new_mark()))
    expect_refused(other)
    start(history_settings)
    assert len(files(history_settings.history)) == 2


class TestRestored:
    """What a restore leaves: files and rows without an identity, or files alone if it was killed."""

    @pytest.fixture
    def half(self, history_settings: Settings, make_entry: MakeEntry, tmp_path: Path) -> Settings:
        start(history_settings, make_entry())
        half = history_settings.model_copy(
            update={"history": tmp_path / "restored", "database": f"sqlite:///{tmp_path / 'new.sqlite'}"}
        )
        for name in ("pictures", "maps"):
            shutil.copytree(history_settings.history / name, half.history / name)
        return half

    def test_files_alone(self, half: Settings) -> None:
        expect_refused(half, "flowgauge backup restore")

    def test_files_and_rows(self, half: Settings, history_settings: Settings) -> None:
        database = Database(half.database_url)
        database.upgrade()
        add(database, row())
        start(half)
        here, there = identities(half)
        assert [here] == there != identities(history_settings)[1]
        with database.write() as connection:  # from now on they belong together, whatever is deleted
            connection.execute(delete(inspections))
        database.close()
        start(half)

    def test_rows_whose_pictures_are_all_gone(self, half: Settings) -> None:
        shutil.rmtree(half.history)
        database = Database(half.database_url)
        database.upgrade()
        add(database, row(has_pictures=False))
        database.close()
        start(half)

    def test_rows_for_a_folder_that_is_another_historys(
        self, half: Settings, history_settings: Settings
    ) -> None:
        database = Database(half.database_url)
        database.upgrade()
        add(database, row())
        database.close()
        expect_refused(history_settings.model_copy(update={"database": half.database}))

    def test_a_place_that_was_started_on_trial_and_is_being_restored_into(self, half: Settings) -> None:
        pictures = half.history.rename(half.history.with_name("being copied"))
        start(half)
        database = Database(half.database_url)
        forget(half.history, database)
        database.close()
        start(half)  # nothing has come yet: it is a new history still
        database = Database(half.database_url)
        forget(half.history, database)
        database.close()
        shutil.copytree(pictures, half.history, dirs_exist_ok=True)
        expect_refused(half)


def test_the_password_is_in_no_message(postgres: Postgres, tmp_path: Path, make_entry: MakeEntry) -> None:
    settings = Settings(history=tmp_path / "history")
    start(settings, make_entry())
    with postgres.database() as url:
        secret = f"{url.replace('postgres@', 'postgres:secret@')}&password=secret"
        other = settings.model_copy(update={"database": secret})
        with pytest.raises(HistoryError, match=r"that of postgresql\+psycopg://postgres:\*\*\*@") as caught:
            start(other)
        assert "secret" not in str(caught.value)
