"""Uploads of versions without HTTP: limits of the disk, and several at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.registry import free_disk
from app.registry.free_disk import UPLOADS_LEAVE
from app.registry.residency import Residency
from app.registry.store import MAX_UPLOADS, Store
from tests.app.bundles import archive, left_in, repacked
from tests.app.full_disk import files_of_at_most
from tests.app.stores import problem
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def whole(data: bytes, size: int = 2**20) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def endless(data: bytes) -> AsyncIterator[bytes]:
    yield data
    await asyncio.Event().wait()


class TestFullDisk:
    async def test_full_disk_during_upload_or_unpacking(self, store: Path, changes: Store) -> None:
        data = repacked(archive(store, "v2"), files={"report/x": bytes(3_000_000)})
        before = left_in(store)
        for limit in (50_000, len(data) + 1):
            with files_of_at_most(limit):
                assert "has no room" in await problem(changes.upload("tiny", whole(data)), "too-large")
            assert left_in(store) == before
        await changes.upload("tiny", whole(data))

    @pytest.mark.parametrize("length", [2, 5 * 2**20 + 1])
    async def test_full_disk_at_the_last_bytes(self, store: Path, length: int, changes: Store) -> None:
        """Few bytes reach the disk only when the file is closed."""
        before = left_in(store)
        with files_of_at_most(length - 1):
            detail = await problem(changes.upload("tiny", whole(bytes(length))), "too-large")
            assert "has no room" in detail
        assert left_in(store) == before

    @pytest.mark.parametrize("room", [0, 5])
    async def test_upload_leaves_room_for_inspections(
        self, store: Path, room: int, monkeypatch: pytest.MonkeyPatch, changes: Store
    ) -> None:
        most = 0

        def free(folder: Path) -> int:
            nonlocal most
            written = sum(path.stat().st_size for path in folder.iterdir())
            most = max(most, written)
            return UPLOADS_LEAVE + room * 2**20 - written

        monkeypatch.setattr(free_disk, "free_bytes", free)
        before = left_in(store)
        assert "has no room" in await problem(changes.upload("tiny", whole(bytes(10**7))), "too-large")
        assert most <= room * 2**20
        assert left_in(store) == before


class TestAtOnce:
    async def test_number_of_uploads_is_limited(self, store: Path, changes: Store) -> None:
        data = archive(store, "v2")
        before = left_in(store)
        running = [asyncio.create_task(changes.upload("tiny", endless(data))) for _i in range(MAX_UPLOADS)]
        await until(lambda: len(list(store.glob("*.part"))) == MAX_UPLOADS)
        detail = await problem(changes.upload("tiny", whole(data)), "queue-full")
        assert f"{MAX_UPLOADS} uploads are under way" in detail
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert left_in(store) == before
        await changes.upload("tiny", whole(data))

    @pytest.mark.parametrize("good", [True, False])
    async def test_complete_upload_is_processed_after_disconnect(
        self, store: Path, good: bool, monkeypatch: pytest.MonkeyPatch, changes: Store
    ) -> None:
        honest = archive(store, "v2")
        data = honest if good else repacked(honest, lambda d: d["golden"][0].update(score=9.0))
        before = left_in(store)
        check, checking = Residency.check, asyncio.Event()
        go_on = asyncio.Event()

        async def held(self: Residency, folder: Path) -> Any:
            checking.set()
            await go_on.wait()
            return await check(self, folder)

        monkeypatch.setattr(Residency, "check", held)
        waiting = asyncio.create_task(changes.upload("tiny", whole(data)))
        await checking.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await until(lambda: not list(store.glob("*.part")))
        assert left_in(store) == (before | {"tiny/v2"} if good else before)
