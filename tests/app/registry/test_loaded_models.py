import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from app.errors.problems import Problem
from app.registry import loaded_models as module
from app.registry.loaded_models import LoadedModels
from app.registry.loader import Loader
from app.registry.model_files import ModelFiles
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.support.bundles import copy_version
from tests.app.support.models_folders import damage_bundle, serving_version
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records loaded versions; loads them for real."""
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


def unready(loaded_models: LoadedModels) -> str:
    with pytest.raises(Problem) as caught:
        loaded_models.require_ready()
    assert caught.value.name == "model-loading"
    return caught.value.detail


async def until_serves(loaded_models: LoadedModels, version: str) -> None:
    """Request the model until the active version answers."""
    async with asyncio.timeout(30):
        while await serving_version(loaded_models) != version:
            await asyncio.sleep(0.01)


class TestLoading:
    async def test_requests_share_one_load(
        self, first: str, loads: list[str], loaded_models: LoadedModels
    ) -> None:
        found = await asyncio.gather(*(loaded_models.get("tiny") for _ in range(10)))
        assert {id(one) for one in (*found, await loaded_models.get("tiny", first))} == {id(found[0])}
        assert loads == [first]

    async def test_cancelled_request_does_not_cancel_the_load(
        self, loads: list[str], loaded_models: LoadedModels
    ) -> None:
        cancelled = asyncio.ensure_future(loaded_models.get("tiny"))
        waiting = asyncio.ensure_future(loaded_models.get("tiny"))
        await until(lambda: loads != [])
        cancelled.cancel()
        assert (await waiting).manifest.category == "tiny"
        assert cancelled.cancelled()
        assert len(loads) == 1

    async def test_budget_drops_least_recently_used_model(self, store: Path, loads: list[str]) -> None:
        copy_version(store, "v1", "other")
        models_folder.activate(store, "other", "v1")

        loaded_models = LoadedModels(ModelFiles(store), Loader(store, "cpu"), 1)
        tiny, other = await loaded_models.get("tiny"), await loaded_models.get("other")
        assert tiny.scorer.extractor is other.scorer.extractor
        assert list(loaded_models.model_sizes()) == [("other", "v1")]
        assert loaded_models.nbytes == other.nbytes + other.scorer.backbone_nbytes
        await loaded_models.get("tiny")
        assert len(loads) == 3
        loaded_models.close()


class TestWhileAnotherBecomesActive:
    async def test_old_version_serves_until_new_one_is_loaded(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, loaded_models: LoadedModels
    ) -> None:
        load, go_on = Detector.load, threading.Event()

        def slow(path: Path, **kwargs: Any) -> Detector:
            assert path.name != "zzz-new" or go_on.wait(30)
            return load(path, **kwargs)

        monkeypatch.setattr(Detector, "load", slow)
        copy_version(store, "zzz-new")
        old = weakref.ref(await loaded_models.get("tiny"))
        models_folder.activate(store, "tiny", "zzz-new")
        for _ in range(5):
            assert await asyncio.wait_for(loaded_models.get("tiny"), 5) is old()
        go_on.set()
        await until_serves(loaded_models, "zzz-new")
        assert list(loaded_models.model_sizes()) == [("tiny", "zzz-new")]
        gc.collect()
        assert old() is None

    async def test_old_version_stays_if_new_one_is_refused(
        self,
        store: Path,
        first: str,
        caplog: pytest.LogCaptureFixture,
        loads: list[str],
        quick_retries: None,
        loaded_models: LoadedModels,
    ) -> None:
        flow = copy_version(store, "bad") / bundle.FLOW
        good = flow.read_bytes()
        damage_bundle(flow.parent)
        await loaded_models.preload()
        models_folder.activate(store, "tiny", "bad")
        async with asyncio.timeout(30):
            while len(loads) < 4:  # it is tried again and again
                assert await serving_version(loaded_models) == first
                await asyncio.sleep(0.02)
        loaded_models.require_ready()
        refused = await problem(loaded_models.get("tiny", "bad"))
        assert refused.name == "rejected-bundle"
        assert loaded_models.refusal("tiny", "bad") == refused.detail
        flow.write_bytes(good)
        await until_serves(loaded_models, "bad")
        assert loaded_models.refusal("tiny", "bad") is None
        [message] = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
        assert message.startswith(
            f"tiny/bad was refused; {first} continues to serve. The bundle was refused: flow"
        )

    async def test_superseded_version_never_serves(self, store: Path, loaded_models: LoadedModels) -> None:
        for version in ("b", "c"):
            copy_version(store, version)
        versions = [await serving_version(loaded_models)]
        for version in ("b", "c"):
            models_folder.activate(store, "tiny", version)
            versions.append(await serving_version(loaded_models))
        assert len(set(versions)) == 1
        async with asyncio.timeout(30):
            while versions[-1] != "c":
                await asyncio.sleep(0.01)
                versions.append(await serving_version(loaded_models))
        assert "b" not in versions


class TestDamagedFileActive:
    async def test_server_is_not_ready_before_activation(
        self,
        store: Path,
        first: str,
        caplog: pytest.LogCaptureFixture,
        quick_retries: None,
        loaded_models: LoadedModels,
    ) -> None:
        (store / "tiny" / models_folder.ACTIVE).write_bytes(b"\0\0\0\0")
        preloading = asyncio.create_task(loaded_models.preload())
        await asyncio.sleep(0)
        raised = await problem(loaded_models.get("tiny"))
        assert raised.name == "model-loading"
        assert "'active' of category 'tiny' is damaged" in raised.detail
        await until(lambda: unready(loaded_models) == "Active models that are not loaded: 1.")
        assert (await loaded_models.get("tiny", first)).manifest.version == first
        models_folder.activate(store, "tiny", first)
        await asyncio.wait_for(preloading, 30)
        loaded_models.require_ready()
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert str(store / "tiny" / models_folder.ACTIVE) in errors[0]


class TestRefused:
    async def test_damaged_bundle_is_read_once(
        self, store: Path, first: str, loads: list[str], loaded_models: LoadedModels
    ) -> None:
        damage_bundle(copy_version(store, "bad"))
        for _ in range(5):
            refused = await problem(loaded_models.get("tiny", "bad"))
            assert refused.name == "rejected-bundle"
            assert str(store) not in refused.detail
        assert await serving_version(loaded_models) == first
        assert loads == ["bad", first]


class TestPreload:
    async def test_preload_loads_active_versions(
        self, store: Path, first: str, loads: list[str], loaded_models: LoadedModels
    ) -> None:
        for category in ("other", "idle"):
            copy_version(store, "v1", category)
        models_folder.activate(store, "other", "v1")
        preloading = asyncio.create_task(loaded_models.preload())
        await asyncio.sleep(0)
        assert unready(loaded_models)
        await preloading
        loaded_models.require_ready()
        assert loaded_models.serving_version("tiny") == first
        assert sorted(loads) == sorted(["v1", first])

    async def test_preload_retries_damaged_version(
        self, store: Path, quick_retries: None, loaded_models: LoadedModels
    ) -> None:
        flow = copy_version(store, "v1", "bad") / bundle.FLOW
        models_folder.activate(store, "bad", "v1")
        good = flow.read_bytes()
        damage_bundle(flow.parent)
        preloading = asyncio.create_task(loaded_models.preload())
        await loaded_models.get("tiny")
        await problem(loaded_models.get("bad"))
        assert unready(loaded_models) == "Active models that are not loaded: 1."
        flow.write_bytes(good)
        await asyncio.wait_for(preloading, 30)
        loaded_models.require_ready()

    @pytest.mark.parametrize("gone", ["category", "models folder"])
    async def test_preload_skips_deleted_categories(
        self, store: Path, first: str, gone: str, quick_retries: None, loaded_models: LoadedModels
    ) -> None:
        hidden = store.with_name("elsewhere")
        if gone == "category":
            damage_bundle(store / "tiny" / first)
        else:
            shutil.move(store, hidden)
        preloading = asyncio.create_task(loaded_models.preload())
        await asyncio.sleep(0)
        await problem(loaded_models.get("tiny"))
        assert unready(loaded_models)
        if gone == "category":
            shutil.rmtree(store / "tiny")
        else:
            shutil.move(hidden, store)
        await asyncio.wait_for(preloading, 30)
        loaded_models.require_ready()
