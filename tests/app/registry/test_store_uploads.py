import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.registry import free_disk
from app.registry.free_disk import MIN_FREE_AFTER_UPLOAD
from app.registry.loaded_models import LoadedModels
from app.registry.model_store import MAX_UPLOADS, ModelStore
from tests.app.support.bundles import list_folder, make_archive, repack
from tests.app.support.full_disk import limit_file_size
from tests.app.support.models_folders import raised_problem
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def whole(data: bytes, size: int = 2**20) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def endless(data: bytes) -> AsyncIterator[bytes]:
    yield data
    await asyncio.Event().wait()


class TestFullDisk:
    async def test_full_disk_during_upload_or_unpacking(self, store: Path, model_store: ModelStore) -> None:
        data = repack(make_archive(store, "v2"), files={"report/x": bytes(3_000_000)})
        before = list_folder(store)
        for limit in (50_000, len(data) + 1):
            with limit_file_size(limit):
                assert "has no room" in await raised_problem(
                    model_store.upload("tiny", whole(data)), "too-large"
                )
            assert list_folder(store) == before
        await model_store.upload("tiny", whole(data))

    @pytest.mark.parametrize("room", [0, 5])
    async def test_upload_leaves_room_for_inspections(
        self, store: Path, room: int, monkeypatch: pytest.MonkeyPatch, model_store: ModelStore
    ) -> None:
        most = 0

        def free(folder: Path) -> int:
            nonlocal most
            written = sum(path.stat().st_size for path in folder.iterdir())
            most = max(most, written)
            return MIN_FREE_AFTER_UPLOAD + room * 2**20 - written

        monkeypatch.setattr(free_disk, "free_bytes", free)
        before = list_folder(store)
        assert "has no room" in await raised_problem(
            model_store.upload("tiny", whole(bytes(10**7))), "too-large"
        )
        assert most <= room * 2**20
        assert list_folder(store) == before


class TestAtOnce:
    async def test_number_of_uploads_is_limited(self, store: Path, model_store: ModelStore) -> None:
        data = make_archive(store, "v2")
        before = list_folder(store)
        running = [
            asyncio.create_task(model_store.upload("tiny", endless(data))) for _i in range(MAX_UPLOADS)
        ]
        await until(lambda: len(list(store.glob("*.part"))) == MAX_UPLOADS)
        detail = await raised_problem(model_store.upload("tiny", whole(data)), "queue-full")
        assert f"{MAX_UPLOADS} uploads are under way" in detail
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert list_folder(store) == before
        await model_store.upload("tiny", whole(data))

    @pytest.mark.parametrize("good", [True, False])
    async def test_complete_upload_is_processed_after_disconnect(
        self, store: Path, good: bool, monkeypatch: pytest.MonkeyPatch, model_store: ModelStore
    ) -> None:
        honest = make_archive(store, "v2")
        data = honest if good else repack(honest, lambda d: d["golden"][0].update(score=9.0))
        before = list_folder(store)
        check, checking = LoadedModels.try_load, asyncio.Event()
        go_on = asyncio.Event()

        async def held(self: LoadedModels, folder: Path) -> Any:
            checking.set()
            await go_on.wait()
            return await check(self, folder)

        monkeypatch.setattr(LoadedModels, "try_load", held)
        waiting = asyncio.create_task(model_store.upload("tiny", whole(data)))
        await checking.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await until(lambda: not list(store.glob("*.part")))
        assert list_folder(store) == (before | {"tiny/v2"} if good else before)
