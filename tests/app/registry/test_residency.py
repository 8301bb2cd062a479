"""Which models are in memory, and which version of a category serves."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors.problems import Problem
from app.registry import residency as module
from app.registry.loader import Loader
from app.registry.residency import Residency
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.stores import damage, serving

AddVersion = Callable[[Path, str, str], Path]

pytestmark = pytest.mark.anyio


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the versions that are loaded; the loading is the real one."""
    recorded: list[str] = []
    load = Detector.load

    def recording(path: Path, **kwargs: Any) -> Detector:
        recorded.append(path.name)
        return load(path, **kwargs)

    monkeypatch.setattr(Detector, "load", recording)
    return recorded


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.01)


async def problem(call: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


def unready(residency: Residency) -> str:
    with pytest.raises(Problem) as caught:
        residency.expect_ready()
    assert caught.value.name == "model-loading"
    return caught.value.detail


async def until_serves(residency: Residency, version: str) -> None:
    """Ask as requests do, until the active version is the one that answers."""
    async with asyncio.timeout(30):
        while await serving(residency) != version:
            await asyncio.sleep(0.01)


class TestLoading:
    async def test_requests_share_one_load(
        self, store: Path, first: str, loads: list[str], residency: Residency
    ) -> None:
        found = await asyncio.gather(*(residency.get("tiny") for _ in range(10)))
        assert {id(one) for one in (*found, await residency.get("tiny", first))} == {id(found[0])}
        assert loads == [first]

    async def test_cancelled_request_does_not_cancel_the_load(
        self, store: Path, loads: list[str], residency: Residency
    ) -> None:
        cancelled = asyncio.ensure_future(residency.get("tiny"))
        waiting = asyncio.ensure_future(residency.get("tiny"))
        while not loads:
            await asyncio.sleep(0.001)
        cancelled.cancel()
        assert (await waiting).manifest.category == "tiny"
        assert cancelled.cancelled()
        assert len(loads) == 1

    async def test_budget_drops_least_recently_used_model(
        self, store: Path, add_version: AddVersion, loads: list[str]
    ) -> None:
        add_version(store, "other", "v1")
        models_folder.activate(store, "other", "v1")

        residency = Residency(store, Loader(store, "cpu"), 1)
        tiny, other = await residency.get("tiny"), await residency.get("other")
        assert tiny.scorer.extractor is other.scorer.extractor
        assert list(residency.loaded()) == [("other", "v1")]
        assert residency.nbytes == other.nbytes + other.scorer.backbone_nbytes
        await residency.get("tiny")
        assert len(loads) == 3
        residency.close()

    async def test_version_requested_by_name_does_not_serve(
        self, store: Path, add_version: AddVersion, first: str, residency: Residency
    ) -> None:
        add_version(store, "tiny", "other")
        assert (await residency.get("tiny", "other")).manifest.version == "other"
        assert await serving(residency) == first

    async def test_missing_models_folder_is_not_an_unknown_model(
        self, store: Path, residency: Residency
    ) -> None:
        shutil.move(store, store.with_name("elsewhere"))
        assert (await problem(residency.get("tiny"))).name == "model-loading"
        assert unready(residency) == "The models folder cannot be read."
        shutil.move(store.with_name("elsewhere"), store)
        await residency.get("tiny")
        residency.expect_ready()


class TestWhileAnotherBecomesActive:
    """The line goes on with the version it has, until there is a better one."""

    async def test_old_version_serves_until_new_one_is_loaded(
        self,
        store: Path,
        add_version: AddVersion,
        first: str,
        monkeypatch: pytest.MonkeyPatch,
        residency: Residency,
    ) -> None:
        load, go_on = Detector.load, threading.Event()

        def slow(path: Path, **kwargs: Any) -> Detector:
            assert path.name != "zzz-new" or go_on.wait(30)
            return load(path, **kwargs)

        monkeypatch.setattr(Detector, "load", slow)
        add_version(store, "tiny", "zzz-new")
        old = weakref.ref(await residency.get("tiny"))
        models_folder.activate(store, "tiny", "zzz-new")
        for _ in range(5):
            assert await asyncio.wait_for(residency.get("tiny"), 5) is old()
        go_on.set()
        await until_serves(residency, "zzz-new")
        assert list(residency.loaded()) == [("tiny", "zzz-new")]
        gc.collect()
        assert old() is None

    async def test_old_version_stays_if_new_one_is_refused(
        self,
        store: Path,
        add_version: AddVersion,
        first: str,
        caplog: pytest.LogCaptureFixture,
        loads: list[str],
        quick_retries: None,
        residency: Residency,
    ) -> None:
        flow = add_version(store, "tiny", "bad") / bundle.FLOW
        good = flow.read_bytes()
        damage(flow.parent)
        await residency.preload()
        models_folder.activate(store, "tiny", "bad")
        async with asyncio.timeout(30):
            while len(loads) < 4:  # it is tried again and again
                assert await serving(residency) == first
                await asyncio.sleep(0.02)
        residency.expect_ready()
        refused = await problem(residency.get("tiny", "bad"))
        assert refused.name == "rejected-bundle"
        assert residency.refusal("tiny", "bad") == refused.detail
        flow.write_bytes(good)
        await until_serves(residency, "bad")
        assert residency.refusal("tiny", "bad") is None
        [said] = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
        assert said.startswith(f"tiny/bad was refused; {first} goes on serving. The bundle was refused: flow")

    async def test_superseded_version_never_serves(
        self, store: Path, add_version: AddVersion, residency: Residency
    ) -> None:
        for version in ("b", "c"):
            add_version(store, "tiny", version)
        versions = [await serving(residency)]
        for version in ("b", "c"):
            models_folder.activate(store, "tiny", version)
            versions.append(await serving(residency))
        assert len(set(versions)) == 1
        async with asyncio.timeout(30):
            while versions[-1] != "c":
                await asyncio.sleep(0.01)
                versions.append(await serving(residency))
        assert "b" not in versions


class TestDamagedFileActive:
    async def test_loaded_version_continues_to_serve(
        self, store: Path, first: str, caplog: pytest.LogCaptureFixture, residency: Residency
    ) -> None:
        await residency.preload()
        (store / "tiny" / models_folder.ACTIVE).write_bytes(b"\0\0\0\0")
        assert [await serving(residency) for _ in range(3)] == [first] * 3
        residency.unload("tiny", first)
        assert await serving(residency) == first
        [record] = [record for record in caplog.records if record.levelname == "ERROR"]
        assert str(store / "tiny" / models_folder.ACTIVE) in record.getMessage()

    async def test_server_is_not_ready_before_activation(
        self,
        store: Path,
        first: str,
        caplog: pytest.LogCaptureFixture,
        quick_retries: None,
        residency: Residency,
    ) -> None:
        (store / "tiny" / models_folder.ACTIVE).write_bytes(b"\0\0\0\0")
        preloading = asyncio.create_task(residency.preload())
        await asyncio.sleep(0)
        told = await problem(residency.get("tiny"))
        assert (told.name, "'active' of category 'tiny' is damaged" in told.detail) == ("model-loading", True)
        async with asyncio.timeout(30):
            while unready(residency) != "Active models that are not loaded: 1.":
                await asyncio.sleep(0.01)
        assert (await residency.get("tiny", first)).manifest.version == first
        models_folder.activate(store, "tiny", first)
        await asyncio.wait_for(preloading, 30)
        residency.expect_ready()
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert str(store / "tiny" / models_folder.ACTIVE) in errors[0]


class TestRefused:
    async def test_damaged_bundle_is_read_once(
        self, store: Path, add_version: AddVersion, first: str, loads: list[str], residency: Residency
    ) -> None:
        damage(add_version(store, "tiny", "bad"))
        for _ in range(5):
            refused = await problem(residency.get("tiny", "bad"))
            assert refused.name == "rejected-bundle"
            assert str(store) not in refused.detail
        assert await serving(residency) == first
        assert loads == ["bad", first]


class TestPreload:
    async def test_preload_loads_active_versions(
        self, store: Path, add_version: AddVersion, first: str, loads: list[str], residency: Residency
    ) -> None:
        for category in ("other", "idle"):
            add_version(store, category, "v1")
        models_folder.activate(store, "other", "v1")
        preloading = asyncio.create_task(residency.preload())
        await asyncio.sleep(0)
        assert unready(residency)
        await preloading
        residency.expect_ready()
        assert residency.serving("tiny") == first
        assert sorted(loads) == sorted(["v1", first])

    async def test_preload_retries_damaged_version(
        self, store: Path, add_version: AddVersion, quick_retries: None, residency: Residency
    ) -> None:
        flow = add_version(store, "bad", "v1") / bundle.FLOW
        models_folder.activate(store, "bad", "v1")
        good = flow.read_bytes()
        damage(flow.parent)
        preloading = asyncio.create_task(residency.preload())
        await residency.get("tiny")
        await problem(residency.get("bad"))
        assert unready(residency) == "Active models that are not loaded: 1."
        flow.write_bytes(good)
        await asyncio.wait_for(preloading, 30)
        residency.expect_ready()

    @pytest.mark.parametrize("gone", ["category", "models folder"])
    async def test_preload_skips_deleted_categories(
        self, store: Path, first: str, gone: str, quick_retries: None, residency: Residency
    ) -> None:
        hidden = store.with_name("elsewhere")
        if gone == "category":
            damage(store / "tiny" / first)
        else:
            shutil.move(store, hidden)
        preloading = asyncio.create_task(residency.preload())
        await asyncio.sleep(0)
        await problem(residency.get("tiny"))
        assert unready(residency)
        if gone == "category":
            shutil.rmtree(store / "tiny")
        else:
            shutil.move(hidden, store)
        await asyncio.wait_for(preloading, 30)
        residency.expect_ready()
