"""Uploads of versions without HTTP: real limits of the disk, and what happens at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app import free_disk, packing
from app.bundle_uploads import MAX_UPLOADS, BundleUploads
from app.free_disk import UPLOADS_LEAVE
from app.loader import Loader
from app.problems import Problem
from app.residency import Residency
from flows.fastflow import bundle
from tests.app.bundles import again, archive, left_in, repacked
from tests.app.full_disk import files_of_at_most
from tests.waiting import until

T = TypeVar("T")
Scenario = Callable[[BundleUploads, Residency], Coroutine[Any, Any, T]]


def run(models: Path, scenario: Scenario[T]) -> T:
    async def main() -> T:
        residency = Residency(models, Loader(models, "cpu"), 2**31)
        try:
            return await scenario(BundleUploads(models, residency, 2**30), residency)
        finally:
            residency.close()

    return asyncio.run(main())


async def whole(data: bytes, size: int = 2**20) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def endless(data: bytes) -> AsyncIterator[bytes]:
    yield data
    await asyncio.Event().wait()


async def problem(call: Awaitable[object], name: str) -> str:
    with pytest.raises(Problem) as caught:
        await call
    assert caught.value.name == name, caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_comes_in_in_pieces_of_any_size_and_is_not_kept_in_memory(store: Path, size: int) -> None:
    data = archive(store, "v2")

    async def scenario(uploads: BundleUploads, residency: Residency) -> None:
        await uploads.receive("tiny", whole(data, size))
        assert residency.loaded() == []

    run(store, scenario)
    bundle.verify(store / "tiny" / "v2")


class TestFull:
    @pytest.mark.parametrize("limit", [1, 50_000])
    def test_while_it_is_received(self, store: Path, limit: int) -> None:
        data = archive(store, "v2")
        before = left_in(store)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            with files_of_at_most(limit):
                assert "has no room" in await problem(uploads.receive("tiny", whole(data)), "too-large")
            assert left_in(store) == before
            await uploads.receive("tiny", whole(data))

        run(store, scenario)

    @pytest.mark.parametrize("length", [2, 8000, 5 * 2**20 + 1])
    def test_by_the_last_bytes(self, store: Path, length: int) -> None:
        """Few bytes reach the disk only when the file is closed."""
        before = left_in(store)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            with files_of_at_most(length - 1):
                detail = await problem(uploads.receive("tiny", whole(bytes(length))), "too-large")
                assert "has no room" in detail
            assert "no ZIP" in await problem(uploads.receive("tiny", whole(bytes(length))), "rejected-bundle")

        run(store, scenario)
        assert left_in(store) == before

    def test_while_it_is_unpacked(self, store: Path) -> None:
        data = repacked(archive(store, "v2"), files={"report/x": bytes(3_000_000)})
        before = left_in(store)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            with files_of_at_most(1_000_000):
                assert "has no room" in await problem(uploads.receive("tiny", whole(data)), "too-large")
            assert left_in(store) == before
            await uploads.receive("tiny", whole(data))

        run(store, scenario)

    def test_before_anything_of_it_comes(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = left_in(store)
        monkeypatch.setattr(free_disk, "free_bytes", lambda _: UPLOADS_LEAVE + 1000)

        async def never() -> AsyncIterator[bytes]:
            raise AssertionError("it is read")
            yield b""

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            detail = await problem(uploads.receive("tiny", never(), declared=1001), "too-large")
            assert "what inspections need stays free" in detail

        run(store, scenario)
        assert left_in(store) == before

    @pytest.mark.parametrize("room", [0, 5, 9])
    def test_while_it_is_received_before_the_disk_is(
        self, store: Path, room: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Inspections go on: a line must not stop because a model is uploaded."""
        before = left_in(store)
        most = 0

        def free(folder: Path) -> int:
            nonlocal most
            written = sum(path.stat().st_size for path in folder.iterdir())
            most = max(most, written)
            return UPLOADS_LEAVE + room * 2**20 - written

        monkeypatch.setattr(free_disk, "free_bytes", free)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            assert "has no room" in await problem(uploads.receive("tiny", whole(bytes(10**7))), "too-large")

        run(store, scenario)
        assert most <= room * 2**20
        assert left_in(store) == before

    @pytest.mark.parametrize("fails_at", ["the sum", "a piece"])
    def test_by_what_is_unpacked_before_the_disk_is(
        self, store: Path, fails_at: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = repacked(archive(store, "v2"), files={"report/x": bytes(3_000_000)})
        before = left_in(store)
        pieces = 0

        def free(folder: Path) -> int:
            nonlocal pieces
            pieces += "tiny" in folder.parts[len(store.parts) :]
            enough = 2_900_000 if fails_at == "the sum" else 10**9 if pieces < 5 else 10
            return UPLOADS_LEAVE + enough

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(free_disk, "free_bytes", free)
                assert "has no room" in await problem(uploads.receive("tiny", whole(data)), "too-large")
            assert pieces == (1 if fails_at == "the sum" else 5)
            assert left_in(store) == before
            await uploads.receive("tiny", whole(data))

        run(store, scenario)

    def test_a_disk_that_fails_is_not_called_full(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = archive(store, "v2")
        before = left_in(store)

        def broken(*_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(packing.Archive, "extract", broken)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            with pytest.raises(OSError, match="Input/output error"):
                await uploads.receive("tiny", whole(data))

        run(store, scenario)
        assert left_in(store) == before


class TestAtOnce:
    def test_more_than_are_allowed_wait_outside_and_nothing_holds_a_place_for_ever(self, store: Path) -> None:
        data = archive(store, "v2")
        before = left_in(store)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            for _i in range(2):
                running = [
                    asyncio.create_task(uploads.receive("tiny", endless(data))) for _j in range(MAX_UPLOADS)
                ]
                await until(lambda: len(list(store.glob("*.part"))) == MAX_UPLOADS)
                detail = await problem(uploads.receive("tiny", whole(data)), "queue-full")
                assert f"{MAX_UPLOADS} uploads are under way" in detail
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
                assert left_in(store) == before
            await uploads.receive("tiny", whole(data))

        run(store, scenario)

    def test_an_upload_that_breaks_off_gives_its_place_back(self, store: Path) -> None:
        data = archive(store, "v2")
        before = left_in(store)

        async def broken() -> AsyncIterator[bytes]:
            yield data[:1000]
            raise Problem("invalid-request", "It stalled.")

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            for _i in range(MAX_UPLOADS + 1):
                assert await problem(uploads.receive("tiny", broken()), "invalid-request") == "It stalled."
            assert left_in(store) == before

        run(store, scenario)

    @pytest.mark.parametrize("good", [True, False])
    def test_what_is_complete_is_let_in_or_refused_although_nobody_waits(
        self, store: Path, good: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = archive(store, "v2")
        data = honest if good else repacked(honest, lambda d: d["golden"][0].update(score=9.0))
        before = left_in(store)
        check, checking = Residency.check, asyncio.Event()

        async def scenario(uploads: BundleUploads, residency: Residency) -> None:
            go_on = asyncio.Event()

            async def held(self: Residency, folder: Path) -> Any:
                checking.set()
                await go_on.wait()
                return await check(self, folder)

            monkeypatch.setattr(Residency, "check", held)
            waiting = asyncio.create_task(uploads.receive("tiny", whole(data)))
            await checking.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            go_on.set()
            await until(lambda: not list(store.glob("*.part")))

        run(store, scenario)
        assert left_in(store) == (before | {"tiny/v2"} if good else before)

    def test_a_version_that_is_published_while_it_is_tried_out(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = archive(store, "v2")
        check = Residency.check

        async def overtaken(residency: Residency, folder: Path) -> Any:
            checked = await check(residency, folder)
            again(store, "v2")
            return checked

        monkeypatch.setattr(Residency, "check", overtaken)

        async def scenario(uploads: BundleUploads, _: Residency) -> None:
            detail = await problem(uploads.receive("tiny", whole(data)), "conflict")
            assert detail == "Version 'v2' of 'tiny' exists; versions are never overwritten."

        before = left_in(store)
        run(store, scenario)
        assert left_in(store) == before | {"tiny/v2"}
        bundle.verify(store / "tiny" / "v2")
