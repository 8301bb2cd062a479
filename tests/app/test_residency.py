"""Which models are in memory, and which version of a category serves."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app import residency as module
from app.loader import Loader
from app.problems import Problem
from app.residency import Residency
from flows.fastflow import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.stores import damage

T = TypeVar("T")
AddVersion = Callable[[Path, str, str], Path]
Scenario = Callable[[Residency], Coroutine[Any, Any, T]]


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
def first(store: Path) -> str:
    """The version that is active from the start."""
    return models_folder.resolve(store, "tiny").name


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.01)


def run(store: Path, scenario: Scenario[T], *, model_bytes: int = 2**31) -> T:
    async def main() -> T:
        residency = Residency(store, Loader(store, "cpu"), model_bytes)
        try:
            return await scenario(residency)
        finally:
            residency.close()

    return asyncio.run(main())


async def problem(call: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


def unready(residency: Residency) -> str:
    with pytest.raises(Problem) as caught:
        residency.expect_ready()
    assert caught.value.name == "model-loading"
    return caught.value.detail


async def served(residency: Residency) -> str:
    return (await residency.get("tiny")).manifest.version


async def until_serves(residency: Residency, version: str) -> None:
    """Ask as requests do, until the active version is the one that answers."""
    async with asyncio.timeout(30):
        while await served(residency) != version:
            await asyncio.sleep(0.01)


class TestLoading:
    def test_requests_share_one_load_and_keep_its_model(
        self, store: Path, first: str, loads: list[str]
    ) -> None:
        async def scenario(residency: Residency) -> None:
            found = await asyncio.gather(*(residency.get("tiny") for _ in range(10)))
            assert {id(one) for one in (*found, await residency.get("tiny", first))} == {id(found[0])}

        run(store, scenario)
        assert loads == [first]

    def test_a_cancelled_request_does_not_cancel_the_load_of_others(
        self, store: Path, loads: list[str]
    ) -> None:
        async def scenario(residency: Residency) -> None:
            cancelled = asyncio.ensure_future(residency.get("tiny"))
            waiting = asyncio.ensure_future(residency.get("tiny"))
            while not loads:
                await asyncio.sleep(0.001)
            cancelled.cancel()
            assert (await waiting).manifest.category == "tiny"
            assert cancelled.cancelled()

        run(store, scenario)
        assert len(loads) == 1

    def test_beyond_the_budget_the_least_recently_used_one_goes(
        self, store: Path, add_version: AddVersion, loads: list[str]
    ) -> None:
        add_version(store, "other", "v1")
        models_folder.activate(store, "other", "v1")

        async def scenario(residency: Residency) -> None:
            tiny, other = await residency.get("tiny"), await residency.get("other")
            assert tiny.scorer.extractor is other.scorer.extractor
            assert list(residency.loaded()) == [("other", "v1")]
            assert residency.nbytes == other.nbytes + other.scorer.backbone_nbytes
            await residency.get("tiny")

        run(store, scenario, model_bytes=1)
        assert len(loads) == 3

    def test_a_models_folder_that_is_gone_is_no_unknown_model(self, store: Path) -> None:
        async def scenario(residency: Residency) -> None:
            shutil.move(store, store.with_name("elsewhere"))
            assert (await problem(residency.get("tiny"))).name == "model-loading"
            assert unready(residency) == "The models folder cannot be read."
            shutil.move(store.with_name("elsewhere"), store)
            await residency.get("tiny")
            residency.expect_ready()

        run(store, scenario)


class TestWhileAnotherBecomesActive:
    """The line goes on with the version it has, until there is a better one."""

    def test_the_old_one_answers_at_once_until_the_new_one_is_loaded(
        self, store: Path, add_version: AddVersion, first: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load, go_on = Detector.load, threading.Event()

        def slow(path: Path, **kwargs: Any) -> Detector:
            assert path.name != "zzz-new" or go_on.wait(30)
            return load(path, **kwargs)

        monkeypatch.setattr(Detector, "load", slow)
        add_version(store, "tiny", "zzz-new")

        async def scenario(residency: Residency) -> None:
            old = weakref.ref(await residency.get("tiny"))
            models_folder.activate(store, "tiny", "zzz-new")
            for _ in range(5):
                assert await asyncio.wait_for(residency.get("tiny"), 5) is old()
            go_on.set()
            await until_serves(residency, "zzz-new")
            assert list(residency.loaded()) == [("tiny", "zzz-new")]
            gc.collect()
            assert old() is None

        run(store, scenario)

    def test_the_old_one_stays_if_the_new_one_is_refused(
        self,
        store: Path,
        add_version: AddVersion,
        first: str,
        caplog: pytest.LogCaptureFixture,
        loads: list[str],
        quick_retries: None,
    ) -> None:
        flow = add_version(store, "tiny", "bad") / bundle.FLOW
        good = flow.read_bytes()
        damage(flow.parent)

        async def scenario(residency: Residency) -> None:
            await residency.preload()
            models_folder.activate(store, "tiny", "bad")
            async with asyncio.timeout(30):
                while len(loads) < 4:  # it is tried again and again
                    assert await served(residency) == first
                    await asyncio.sleep(0.02)
            residency.expect_ready()
            refused = await problem(residency.get("tiny", "bad"))
            assert refused.name == "rejected-bundle"
            assert residency.refusal("tiny", "bad") == refused.detail
            flow.write_bytes(good)
            await until_serves(residency, "bad")
            assert residency.refusal("tiny", "bad") is None

        run(store, scenario)
        [said] = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
        assert said.startswith(f"tiny/bad was refused; {first} goes on serving. The bundle was refused: flow")

    def test_a_version_overtaken_while_it_loads_never_serves(
        self, store: Path, add_version: AddVersion
    ) -> None:
        for version in ("b", "c"):
            add_version(store, "tiny", version)

        async def scenario(residency: Residency) -> None:
            versions = [await served(residency)]
            for version in ("b", "c"):
                models_folder.activate(store, "tiny", version)
                versions.append(await served(residency))
            assert len(set(versions)) == 1
            async with asyncio.timeout(30):
                while versions[-1] != "c":
                    await asyncio.sleep(0.01)
                    versions.append(await served(residency))
            assert "b" not in versions

        run(store, scenario)


class TestDamagedFileActive:
    def test_the_version_in_memory_goes_on_serving(
        self, store: Path, first: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario(residency: Residency) -> None:
            await residency.preload()
            (store / "tiny" / models_folder.ACTIVE).write_bytes(b"\0\0\0\0")
            assert [await served(residency) for _ in range(3)] == [first] * 3
            residency.unload("tiny", first)
            assert await served(residency) == first

        run(store, scenario)
        [record] = [record for record in caplog.records if record.levelname == "ERROR"]
        assert str(store / "tiny" / models_folder.ACTIVE) in record.getMessage()

    def test_at_a_start_the_server_is_not_ready_until_a_version_is_activated(
        self, store: Path, first: str, caplog: pytest.LogCaptureFixture, quick_retries: None
    ) -> None:
        (store / "tiny" / models_folder.ACTIVE).write_bytes(b"\0\0\0\0")

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await asyncio.sleep(0)
            told = await problem(residency.get("tiny"))
            assert (told.name, "'active' of category 'tiny' is damaged" in told.detail) == (
                "model-loading",
                True,
            )
            async with asyncio.timeout(30):
                while unready(residency) != "Active models that are not loaded: 1.":
                    await asyncio.sleep(0.01)
            assert (await residency.get("tiny", first)).manifest.version == first
            models_folder.activate(store, "tiny", first)
            await asyncio.wait_for(preloading, 30)
            residency.expect_ready()

        run(store, scenario)
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert str(store / "tiny" / models_folder.ACTIVE) in errors[0]


class TestRefused:
    def test_a_damaged_bundle_is_read_once_and_does_not_touch_others(
        self, store: Path, add_version: AddVersion, first: str, loads: list[str]
    ) -> None:
        damage(add_version(store, "tiny", "bad"))

        async def scenario(residency: Residency) -> None:
            for _ in range(5):
                refused = await problem(residency.get("tiny", "bad"))
                assert refused.name == "rejected-bundle"
                assert str(store) not in refused.detail
            assert await served(residency) == first

        run(store, scenario)
        assert loads == ["bad", first]


class TestPreload:
    def test_loads_what_is_active_and_is_ready_then(
        self, store: Path, add_version: AddVersion, first: str, loads: list[str]
    ) -> None:
        for category in ("other", "idle"):
            add_version(store, category, "v1")
        models_folder.activate(store, "other", "v1")

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await asyncio.sleep(0)
            assert unready(residency)
            await preloading
            residency.expect_ready()
            assert residency.serving("tiny") == first

        run(store, scenario)
        assert sorted(loads) == sorted(["v1", first])

    def test_waits_for_a_damaged_one_and_serves_the_others(
        self, store: Path, add_version: AddVersion, quick_retries: None
    ) -> None:
        flow = add_version(store, "bad", "v1") / bundle.FLOW
        models_folder.activate(store, "bad", "v1")
        good = flow.read_bytes()
        damage(flow.parent)

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await residency.get("tiny")
            await problem(residency.get("bad"))
            assert unready(residency) == "Active models that are not loaded: 1."
            flow.write_bytes(good)
            await asyncio.wait_for(preloading, 30)
            residency.expect_ready()

        run(store, scenario)

    @pytest.mark.parametrize("gone", ["category", "models folder"])
    def test_what_is_taken_away_is_not_waited_for_and_the_folder_is(
        self, store: Path, first: str, gone: str, quick_retries: None
    ) -> None:
        hidden = store.with_name("elsewhere")

        async def scenario(residency: Residency) -> None:
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

        run(store, scenario)
