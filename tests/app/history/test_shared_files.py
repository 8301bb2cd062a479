"""Images and maps of several servers in one store, with histories on one PostgreSQL."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from app.database import clock, locks
from app.database.engine import DatabaseUnavailable
from app.history import queries
from app.history.deletions import DeletionGuard
from app.history.history import History, HistoryError
from app.history.inspection_files import InspectionFiles, image_name, map_name
from app.history.retention import Retention
from app.settings import Settings
from app.storage.store import StoreUnavailable
from app.storage.urls import open_store
from tests.app.history.conftest import MakeEntry
from tests.app.history.rows import row
from tests.support.postgres import Postgres, is_waiting
from tests.support.s3 import S3Server
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.anyio

_END_LOCKS = """
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = :number AND granted
"""


@pytest.fixture
def make_settings(postgres: Postgres, s3_url: str, tmp_path: Path) -> Iterator[Callable[[str], Settings]]:
    """Make the settings of a server by its name."""
    with postgres.database() as url:
        yield lambda name: Settings(history=tmp_path / name, database=url, store=s3_url)


@asynccontextmanager
async def opened(*settings: Settings) -> AsyncIterator[list[History]]:
    async with AsyncExitStack() as stack:
        histories = [History(one) for one in settings]
        for history in histories:
            await history.open()
            stack.push_async_callback(history.close)
        yield histories


async def test_recorded_inspection_is_found_by_another_server(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry
) -> None:
    entry = make_entry()
    sha256, identifier = entry.row["image_sha256"], entry.row["id"]
    async with opened(make_settings("a"), make_settings("b")) as [mine, other]:
        await mine.record(entry)
        with other.database.read() as connection:
            assert queries.find_inspection(connection, identifier) is not None
        assert other.files.read_image(sha256) == entry.image
        scores = other.files.read_score_map(identifier)
        assert scores is not None
        np.testing.assert_array_equal(scores, entry.score_map)
        assert [name for names in other.files.names() for name in names] == [
            image_name(sha256),
            map_name(identifier),
        ]
        assert other.files.read_image("0" * 64) is None
        assert not list(mine.folder.glob("pictures/*"))


async def test_inspections_wait_while_the_store_is_away(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry, s3_server: S3Server, s3_url: str
) -> None:
    entries = [make_entry() for _ in range(3)]
    sha256 = entries[0].row["image_sha256"]
    async with opened(make_settings("a")) as [history]:
        s3_server.kill()
        try:
            for entry in entries:
                await history.record(entry)
            await until(lambda: history.failure is not None)
            assert "StoreUnavailable" in (history.failure or "")
            assert history.backlog > 0
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(history.files.read_image, sha256)
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(history.files.read_map_file, entries[0].row["id"])
        finally:
            s3_server.start()
        s3_server.make_bucket(s3_url.split("/")[2])
        await until(lambda: history.backlog == 0)
        assert history.failure is None
        assert [history.files.read_image(one.row["image_sha256"]) for one in entries] == [
            one.image for one in entries
        ]


async def test_start_without_the_store_is_refused(
    make_settings: Callable[[str], Settings], s3_server: S3Server
) -> None:
    s3_server.kill()
    try:
        with pytest.raises(
            HistoryError, match=r"FLOWGAUGE_STORE cannot be used: the store .* does not answer"
        ):
            await History(make_settings("a")).open()
    finally:
        s3_server.start()


async def test_server_with_another_store_is_refused(
    make_settings: Callable[[str], Settings], s3_server: S3Server, postgres: Postgres
) -> None:
    ours = make_settings("a")
    another = f"s3://{s3_server.make_bucket()}/plant"
    async with opened(ours):
        for store, reason in ((another, "the database has another store"), (None, "it is not set")):
            with pytest.raises(HistoryError, match=f"FLOWGAUGE_STORE cannot be used: {reason}"):
                await History(make_settings("b").model_copy(update={"store": store})).open()
    with postgres.database() as url, pytest.raises(HistoryError, match="it belongs to another database"):
        await History(make_settings("c").model_copy(update={"database": url})).open()
    async with opened(ours, make_settings("b")):
        pass


async def test_image_about_to_be_reused_is_not_deleted(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server has written its files and not yet its rows while retention of another deletes the image."""
    old = make_entry(image=b"the same", **_days_old(5))
    new = make_entry(image=b"the same")
    written, go_on = threading.Event(), threading.Event()
    store_all = InspectionFiles.store_all

    def store_slowly(files: InspectionFiles, some: Mapping[str, bytes]) -> None:
        store_all(files, some)
        if map_name(new.row["id"]) in some:
            written.set()
            assert go_on.wait(60)

    async with opened(make_settings("a"), make_settings("b")) as [mine, other]:
        await other.record(old)
        await other.wait_until_filed()
        monkeypatch.setattr(InspectionFiles, "store_all", store_slowly)
        await mine.record(new)
        await asyncio.to_thread(written.wait, 60)
        retention = Retention(Settings(retention_pass_days=1), other, DeletionGuard())
        deleting = asyncio.create_task(retention.once())

        await until(lambda: deleting.done() or is_waiting(other.database))
        go_on.set()
        await deleting
        await mine.wait_until_filed()
        names = [name for names in mine.files.names() for name in names]
        assert names == [image_name(new.row["image_sha256"]), map_name(new.row["id"])]


async def test_lost_lock_of_the_files_files_nothing(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are written, PostgreSQL ends the connection with their lock, and retention deletes the image."""
    old = make_entry(image=b"the same", **_days_old(5))
    new = make_entry(image=b"the same")
    store_all = InspectionFiles.store_all
    async with opened(make_settings("a"), make_settings("b")) as [mine, other]:
        await other.record(old)
        await other.wait_until_filed()
        retention = Retention(Settings(retention_pass_days=1), other, DeletionGuard())
        loop = asyncio.get_running_loop()
        attempts = 0

        def lose_lock(files: InspectionFiles, some: Mapping[str, bytes]) -> None:
            nonlocal attempts
            store_all(files, some)
            attempts += 1
            if attempts == 1:
                with other.database.write() as connection:
                    connection.execute(text(_END_LOCKS), {"number": locks.FILES})
                asyncio.run_coroutine_threadsafe(retention.once(), loop).result()

        monkeypatch.setattr(InspectionFiles, "store_all", lose_lock)
        await mine.record(new)
        await until(lambda: mine.backlog == 0)
        assert mine.files.read_image(new.row["image_sha256"]) == b"the same"


async def test_orphans_in_the_store_are_deleted(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry, s3_url: str
) -> None:
    kept, orphan = make_entry(), row()
    store = open_store(s3_url)
    names = [image_name(orphan["image_sha256"]), map_name(orphan["id"]), "maps/README", "maps/ab/README"]
    for name in names:
        store.write(name, b"x")
    async with opened(make_settings("a")) as [history]:
        await history.record(kept)
        await history.wait_until_filed()
        await Retention(Settings(), history, DeletionGuard()).once()
    left = {"history", image_name(kept.row["image_sha256"]), map_name(kept.row["id"]), *names[2:]}
    assert set(store.list("")) == left


async def test_inspections_are_stored_between_orphans(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server deletes many orphans while another has an inspection to store."""
    new, loop = make_entry(), asyncio.get_running_loop()
    remove, stored = InspectionFiles.remove, list[bool]()

    def remove_slowly(files: InspectionFiles, names: Sequence[str]) -> None:
        remove(files, names)
        with other.database.read() as connection:
            stored.append(queries.find_inspection(connection, new.row["id"]) is not None)
        if len(stored) == 1:
            asyncio.run_coroutine_threadsafe(mine.record(new), loop)
            eventually(lambda: is_waiting(other.database))

    async with opened(make_settings("a"), make_settings("b")) as [mine, other]:
        orphans = [make_entry(), make_entry()]
        other.files.store_all({image_name(one.row["image_sha256"]): one.image for one in orphans})
        monkeypatch.setattr(InspectionFiles, "remove", remove_slowly)
        monkeypatch.setattr("app.history.retention.CHUNK", 1)
        await Retention(Settings(), other, DeletionGuard()).once()
        assert stored == [False, True]


async def test_deletion_gives_way_to_inspections(
    make_settings: Callable[[str], Settings], make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stores slowly keeps a deletion waiting, which would keep all others waiting."""
    monkeypatch.setattr("app.history.retention._LOCK_MS", 100)
    settings = make_settings("a")
    settings = settings.model_copy(update={"database": f"{settings.database}&options=-c%20lock_timeout%3D0"})
    async with opened(settings) as [history]:
        retention = Retention(Settings(retention_pass_days=1), history, DeletionGuard())
        with history.database.locked(locks.FILES, shared=True):
            async with asyncio.timeout(60):
                with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                    await retention.once()


def _days_old(days: int) -> dict[str, object]:
    made = row(clock.now_ms() - days * 24 * 3_600_000)
    return {"id": made["id"], "created_ms": made["created_ms"]}


def test_damaged_copy_is_read_again(tmp_path: Path, s3_url: str) -> None:
    store = open_store(s3_url)
    files, one = InspectionFiles(tmp_path, store), row(image=b"an image")
    for data, found in ((b"damaged", None), (b"an image", b"an image")):
        store.write(image_name(one["image_sha256"]), data)
        assert files.read_image(one["image_sha256"]) == found
    store.delete(image_name(one["image_sha256"]))
    assert files.read_image(one["image_sha256"]) == b"an image"  # from memory
    target = tmp_path / "copy"
    with pytest.raises(FileNotFoundError):
        files.provide_image(one["image_sha256"], target)
    assert files.may_have_image(one["image_sha256"])
