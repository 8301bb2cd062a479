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
from flows.fastflow import bundle, detector, models_folder
from flows.fastflow.detector import Detector

T = TypeVar("T")
AddVersion = Callable[[Path, str, str], Path]
Scenario = Callable[[Residency], Coroutine[Any, Any, T]]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Records what is loaded; the loading is the real one."""
    recorded: list[Path] = []
    load = Detector.load

    def recording(path: Path, **kwargs: Any) -> Detector:
        recorded.append(path)
        return load(path, **kwargs)

    monkeypatch.setattr(Detector, "load", recording)
    return recorded


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


def damage(folder: Path) -> None:
    flow = folder / bundle.FLOW
    content = bytearray(flow.read_bytes())
    content[-1] ^= 1
    flow.write_bytes(content)


async def until_serves(residency: Residency, version: str) -> Detector:
    """Ask as requests do, until the active version is the one that answers."""
    async with asyncio.timeout(30):
        while (found := await residency.get("tiny")).manifest.version != version:
            await asyncio.sleep(0.01)
    return found


def test_loads_once_and_keeps(store: Path, loads: list[Path]) -> None:
    async def scenario(residency: Residency) -> None:
        first = await residency.get("tiny")
        assert await residency.get("tiny") is first
        assert await residency.get("tiny", first.manifest.version) is first

    run(store, scenario)
    assert len(loads) == 1


def test_requests_that_come_together_share_one_load(store: Path, loads: list[Path]) -> None:
    async def scenario(residency: Residency) -> set[int]:
        return {id(d) for d in await asyncio.gather(*(residency.get("tiny") for _ in range(10)))}

    assert len(run(store, scenario)) == 1
    assert len(loads) == 1


def test_a_request_that_is_cancelled_does_not_cancel_the_load_of_others(
    store: Path, loads: list[Path]
) -> None:
    async def scenario(residency: Residency) -> None:
        impatient = asyncio.ensure_future(residency.get("tiny"))
        patient = asyncio.ensure_future(residency.get("tiny"))
        while not loads:
            await asyncio.sleep(0.001)
        impatient.cancel()
        assert (await patient).manifest.category == "tiny"
        assert impatient.cancelled()

    run(store, scenario)
    assert len(loads) == 1


def test_categories_share_one_extractor(store: Path, add_version: AddVersion) -> None:
    add_version(store, "other", "v1")
    models_folder.activate(store, "other", "v1")

    async def scenario(residency: Residency) -> None:
        tiny, other = await asyncio.gather(residency.get("tiny"), residency.get("other"))
        assert tiny is not other
        assert tiny.scorer.extractor is other.scorer.extractor

    run(store, scenario)


def test_a_newly_active_version_is_served_and_the_old_one_dropped(
    store: Path, add_version: AddVersion
) -> None:
    async def scenario(residency: Residency) -> None:
        old = weakref.ref(await residency.get("tiny"))
        add_version(store, "tiny", "zzz-new")
        assert await residency.get("tiny") is old()
        models_folder.activate(store, "tiny", "zzz-new")
        await until_serves(residency, "zzz-new")
        gc.collect()
        assert old() is None

    run(store, scenario)


def test_a_request_keeps_the_version_it_has_been_given(store: Path, add_version: AddVersion) -> None:
    async def scenario(residency: Residency) -> None:
        old = await residency.get("tiny")
        add_version(store, "tiny", "zzz-new")
        models_folder.activate(store, "tiny", "zzz-new")
        new = await until_serves(residency, "zzz-new")
        assert old.manifest.version != "zzz-new"
        assert old.calibrator.threshold == new.calibrator.threshold

    run(store, scenario)


class TestVersionsAskedForByName:
    """Whoever may inspect can name any version: that is nobody else's burden."""

    def test_a_few_are_kept_and_never_in_place_of_the_active_one(
        self, store: Path, add_version: AddVersion
    ) -> None:
        names = [f"v{number}" for number in range(6)]
        for name in names:
            add_version(store, "tiny", name)

        async def scenario(residency: Residency) -> None:
            active = (await residency.get("tiny")).manifest.version
            for name in names[:4]:
                await residency.get("tiny", name)
            await residency.get("tiny", "v0")
            for name in names[4:]:
                await residency.get("tiny", name)
            assert {one.version for one in residency.loaded()} == {active, "v0", "v3", "v4", "v5"}

        run(store, scenario)

    def test_one_that_is_refused_displaces_none(self, store: Path, add_version: AddVersion) -> None:
        names = [f"v{number}" for number in range(4)]
        for name in names:
            add_version(store, "tiny", name)
        damage(add_version(store, "tiny", "v-damaged"))

        async def scenario(residency: Residency) -> None:
            for name in names:
                await residency.get("tiny", name)
            await problem(residency.get("tiny", "v-damaged"))
            assert {one.version for one in residency.loaded()} == set(names)

        run(store, scenario)

    def test_one_that_became_active_is_none_of_them(self, store: Path, add_version: AddVersion) -> None:
        names = [f"v{number}" for number in range(6)]
        for name in names:
            add_version(store, "tiny", name)

        async def scenario(residency: Residency) -> None:
            await residency.load("tiny", "v0")
            models_folder.activate(store, "tiny", "v0")
            await residency.get("tiny")
            for name in names[1:]:
                await residency.get("tiny", name)
            assert {one.version for one in residency.loaded()} == {"v0", "v2", "v3", "v4", "v5"}

        run(store, scenario)

    def test_they_wait_for_each_other_and_nobody_for_them(
        self, store: Path, add_version: AddVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("v0", "v1", "v2"):
            add_version(store, "tiny", name)
        add_version(store, "nut", "n0")
        models_folder.activate(store, "nut", "n0")
        begun: list[str] = []
        first, go_on = threading.Event(), threading.Event()
        load = Detector.load

        def slow(path: Path, **kwargs: Any) -> Detector:
            begun.append(path.name)
            first.set()
            assert go_on.wait(60)
            return load(path, **kwargs)

        monkeypatch.setattr(Detector, "load", slow)

        async def scenario(residency: Residency) -> None:
            named = [asyncio.create_task(residency.get("tiny", name)) for name in ("v0", "v1")]
            assert await asyncio.to_thread(first.wait, 60)
            beyond = await problem(residency.get("tiny", "v2"))
            assert beyond.name == "model-loading"
            assert beyond.detail.startswith("2 versions of 'tiny' are being loaded")
            active = asyncio.create_task(residency.get("nut"))
            await asyncio.sleep(0)  # after which it waits, too
            again = asyncio.create_task(residency.get("tiny", "v1"))
            go_on.set()
            await asyncio.gather(active, again, *named)
            await residency.get("tiny", "v2")

        run(store, scenario)
        assert begun == ["v0", "n0", "v1", "v2"]


class TestWhileAnotherBecomesActive:
    """The line goes on with the version it has, until there is a better one."""

    def test_the_old_one_answers_at_once_until_the_new_one_is_loaded(
        self, store: Path, add_version: AddVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load, go_on, seen = Detector.load, threading.Event(), list[str]()

        def slow(path: Path, **kwargs: Any) -> Detector:
            seen.append(path.name)
            assert path.name != "zzz-new" or go_on.wait(30)
            return load(path, **kwargs)

        monkeypatch.setattr(Detector, "load", slow)
        add_version(store, "tiny", "zzz-new")

        async def scenario(residency: Residency) -> None:
            old = await residency.get("tiny")
            models_folder.activate(store, "tiny", "zzz-new")
            for _ in range(5):
                assert await asyncio.wait_for(residency.get("tiny"), 5) is old
            go_on.set()
            await until_serves(residency, "zzz-new")

        run(store, scenario)
        assert len(seen) == 2

    def test_the_old_one_stays_if_the_new_one_is_refused(
        self,
        store: Path,
        add_version: AddVersion,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        loads: list[Path],
    ) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)
        flow = add_version(store, "tiny", "bad") / bundle.FLOW
        good = flow.read_bytes()
        damage(flow.parent)

        async def scenario(residency: Residency) -> None:
            await residency.preload()
            old = await residency.get("tiny")
            models_folder.activate(store, "tiny", "bad")
            async with asyncio.timeout(30):
                while len(loads) < 4:  # it is tried again and again
                    assert await residency.get("tiny") is old
                    await asyncio.sleep(0.02)
            residency.expect_ready()
            assert (await problem(residency.get("tiny", "bad"))).name == "rejected-bundle"
            assert caplog.text.count("tiny/bad was refused") == 1
            # What nobody foresaw comes with where it was; what is told in a sentence does not.
            assert ("Traceback" in caplog.text) == ("ended with" in caplog.text)
            assert f"{old.manifest.version} goes on serving" in caplog.text
            flow.write_bytes(good)
            await until_serves(residency, "bad")

        run(store, scenario)

    def test_back_from_a_refused_one_nothing_is_loaded_again(
        self, store: Path, add_version: AddVersion, loads: list[Path]
    ) -> None:
        damage(add_version(store, "tiny", "bad"))

        async def scenario(residency: Residency) -> None:
            old = await residency.get("tiny")
            models_folder.activate(store, "tiny", "bad")
            await residency.get("tiny")
            await problem(residency.get("tiny", "bad"))
            models_folder.activate(store, "tiny", old.manifest.version)
            assert await residency.get("tiny") is old

        run(store, scenario)
        assert len(loads) == 2

    def test_the_new_one_is_waited_for_where_the_old_one_cannot_be_loaded_again(
        self, store: Path, add_version: AddVersion
    ) -> None:
        add_version(store, "tiny", "zzz-new")

        async def scenario(residency: Residency) -> None:
            old = (await residency.get("tiny")).manifest.version
            residency.unload("tiny", old)
            damage(store / "tiny" / old)
            models_folder.activate(store, "tiny", "zzz-new")
            assert (await residency.get("tiny")).manifest.version == "zzz-new"

        run(store, scenario)

    def test_a_version_overtaken_while_it_loads_never_serves(
        self, store: Path, add_version: AddVersion
    ) -> None:
        for version in ("b", "c"):
            add_version(store, "tiny", version)

        async def scenario(residency: Residency) -> None:
            served = [(await residency.get("tiny")).manifest.version]
            for version in ("b", "c"):
                models_folder.activate(store, "tiny", version)
                served.append((await residency.get("tiny")).manifest.version)
            assert len(set(served)) == 1
            async with asyncio.timeout(30):
                while served[-1] != "c":
                    await asyncio.sleep(0.01)
                    served.append((await residency.get("tiny")).manifest.version)
            assert "b" not in served

        run(store, scenario)


def test_a_version_in_memory_that_becomes_active_is_not_loaded_again(
    store: Path, add_version: AddVersion, loads: list[Path]
) -> None:
    add_version(store, "tiny", "next")

    async def scenario(residency: Residency) -> None:
        by_name = await residency.get("tiny", "next")
        models_folder.activate(store, "tiny", "next")
        assert await residency.get("tiny") is by_name

    run(store, scenario)
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("category", "version", "detail"),
    [
        ("bottel", None, "There is no model of category 'bottel'; GET /v1/models lists them."),
        ("backbones", None, "There is no model of category 'backbones'"),
        ("..", None, "There is no model of category '..'"),
        ("../tiny", None, "There is no model of category"),
        ("tiny/..", None, "There is no model of category"),
        ("", None, "There is no model of category"),
        ("x" * 5000, None, "There is no model of category"),
        ("a\0b", None, "There is no model of category"),
        ("tiny", "v0", "Category 'tiny' has no version 'v0'; there are: "),
        ("tiny", "..", "Category 'tiny' has no version '..'"),
        ("tiny", "active", "Category 'tiny' has no version 'active'"),
        ("tiny", "a\0b", "Category 'tiny' has no version"),
    ],
)
def test_unknown_models(store: Path, category: str, version: str | None, detail: str) -> None:
    async def scenario(residency: Residency) -> Problem:
        return await problem(residency.get(category, version))

    unknown = run(store, scenario)
    assert unknown.name == "unknown-model"
    assert unknown.detail.startswith(detail)
    assert str(store) not in unknown.detail
    assert len(unknown.detail) < 300


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"../tiny", b"a\0b"])
def test_an_active_file_that_names_no_version(store: Path, content: bytes | None) -> None:
    active = store / "tiny" / models_folder.ACTIVE
    active.unlink()
    if content is not None:
        active.write_bytes(content)

    async def scenario(residency: Residency) -> Problem:
        return await problem(residency.get("tiny"))

    unknown = run(store, scenario)
    assert unknown.name == "unknown-model"
    assert "no active version" in unknown.detail


def test_a_models_folder_that_is_gone_is_no_unknown_model(store: Path) -> None:
    async def scenario(residency: Residency) -> None:
        await residency.get("tiny")
        shutil.move(store, store.with_name("elsewhere"))
        assert (await problem(residency.get("tiny"))).name == "model-loading"
        assert unready(residency) == "The models folder cannot be read."
        shutil.move(store.with_name("elsewhere"), store)
        await residency.get("tiny")
        residency.expect_ready()

    run(store, scenario)


class TestDamaged:
    def test_is_refused_without_its_secrets_and_said_in_the_log(
        self, store: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        damage(models_folder.resolve(store, "tiny"))

        async def scenario(residency: Residency) -> Problem:
            return await problem(residency.get("tiny"))

        refused = run(store, scenario)
        assert refused.name == "rejected-bundle"
        assert str(store) not in refused.detail
        assert "sha256" in caplog.text

    @pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"category": "tiny"}'])
    def test_manifest(self, store: Path, content: bytes) -> None:
        (models_folder.resolve(store, "tiny") / bundle.MANIFEST).write_bytes(content)

        async def scenario(residency: Residency) -> Problem:
            return await problem(residency.get("tiny"))

        assert run(store, scenario).name == "rejected-bundle"

    def test_does_not_touch_the_others(self, store: Path, add_version: AddVersion) -> None:
        damage(add_version(store, "tiny", "bad"))

        async def scenario(residency: Residency) -> None:
            assert (await problem(residency.get("tiny", "bad"))).name == "rejected-bundle"
            assert (await residency.get("tiny")).manifest.category == "tiny"

        run(store, scenario)

    def test_is_not_read_for_every_request(self, store: Path, loads: list[Path]) -> None:
        damage(models_folder.resolve(store, "tiny"))

        async def scenario(residency: Residency) -> None:
            for _ in range(5):
                await problem(residency.get("tiny"))

        run(store, scenario)
        assert len(loads) == 1

    def test_once_repaired_it_is_served(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)
        flow = models_folder.resolve(store, "tiny") / bundle.FLOW
        good = flow.read_bytes()
        damage(flow.parent)

        async def scenario(residency: Residency) -> None:
            await problem(residency.get("tiny"))
            flow.write_bytes(good)
            await asyncio.sleep(0.1)
            await residency.get("tiny")

        run(store, scenario)

    def test_once_repaired_and_loaded_it_is_not_dropped_with_its_refusal(
        self, store: Path, loads: list[Path]
    ) -> None:
        flow = models_folder.resolve(store, "tiny") / bundle.FLOW
        good = flow.read_bytes()
        damage(flow.parent)

        async def scenario(residency: Residency) -> None:
            key = "tiny", flow.parent.name
            await problem(residency.get("tiny"))
            refused = residency._memory.get(key)
            flow.write_bytes(good)
            await residency.load(*key)
            residency._forget(key, refused)  # as ten seconds after the refusal
            await residency.get("tiny")

        run(store, scenario)
        assert len(loads) == 2

    def test_a_failure_of_any_kind_is_a_refusal(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def verify(path: Path) -> None:
            raise MemoryError(path)

        monkeypatch.setattr(detector, "verify", verify)

        async def scenario(residency: Residency) -> Problem:
            return await problem(residency.get("tiny"))

        assert run(store, scenario).name == "rejected-bundle"


class TestWhereTheActiveOneIsRefusedAtTheStart:
    """What served before it serves, as if the server had gone on."""

    @pytest.fixture
    def first(self, store: Path, add_version: AddVersion) -> str:
        """The version before the active one, "bad", which is damaged."""
        first = models_folder.resolve(store, "tiny").name
        damage(add_version(store, "tiny", "bad"))
        models_folder.activate(store, "tiny", "bad")
        return first

    def test_the_one_before_serves_and_that_is_said(
        self, store: Path, first: str, caplog: pytest.LogCaptureFixture, loads: list[Path]
    ) -> None:
        served: list[tuple[str, str, str | None]] = []

        async def scenario() -> None:
            residency = Residency(
                store,
                Loader(store, "cpu"),
                2**31,
                lambda category, version, _, before: served.append((category, version, before)),
            )
            try:
                await asyncio.wait_for(residency.preload(), 30)
                residency.expect_ready()
                assert residency.serving("tiny") == first
                found = await asyncio.gather(*(residency.get("tiny") for _ in range(3)))
                assert {one.manifest.version for one in found} == {first}
                assert [one.version for one in residency.loaded()] == [first]
                assert (await problem(residency.get("tiny", "bad"))).name == "rejected-bundle"
            finally:
                residency.close()

        asyncio.run(scenario())
        assert served == [("tiny", first, None)]
        assert len(loads) == 2
        said = [record for record in caplog.records if "in its place" in record.message]
        assert [(line.levelname, line.message) for line in said] == [
            ("ERROR", f"tiny/bad was refused; {first}, which was active before it, serves in its place")
        ]
        assert "FLOWGAUGE_MODEL_BYTES" not in caplog.text

    def test_requests_at_once_share_the_loads(self, store: Path, first: str, loads: list[Path]) -> None:
        async def scenario(residency: Residency) -> None:
            found = await asyncio.gather(*(residency.get("tiny") for _ in range(10)))
            assert {one.manifest.version for one in found} == {first}

        run(store, scenario)
        assert len(loads) == 2

    def test_once_repaired_the_active_one_serves(
        self, store: Path, first: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)

        async def scenario(residency: Residency) -> None:
            assert (await residency.get("tiny")).manifest.version == first
            shutil.copy(store / "tiny" / first / bundle.FLOW, store / "tiny" / "bad" / bundle.FLOW)
            await until_serves(residency, "bad")
            assert [one.version for one in residency.loaded()] == ["bad"]

        run(store, scenario)

    def test_if_that_is_damaged_too_nothing_serves(self, store: Path, first: str) -> None:
        damage(store / "tiny" / first)

        async def scenario(residency: Residency) -> None:
            assert (await problem(residency.get("tiny"))).detail.startswith("Version 'bad' of 'tiny' cannot")
            assert residency.serving("tiny") is None

        run(store, scenario)


class TestWhereTheActiveOneIsNotThere:
    """As where it is damaged: a line of `active` that is mistyped, or a folder that was moved away."""

    def test_the_one_that_is_loaded_goes_on_serving(
        self, store: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = models_folder.resolve(store, "tiny").name

        async def scenario(residency: Residency) -> None:
            await residency.get("tiny")
            (store / "tiny" / models_folder.ACTIVE).write_text(f"gone\n{first}")
            for _ in range(3):
                assert (await residency.get("tiny")).manifest.version == first

        run(store, scenario)
        said = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert said == [f"tiny/gone was refused; {first} goes on serving. It is not in the models folder."]
        assert "Traceback" not in caplog.text

    def test_after_a_restart_the_one_before_serves(
        self, store: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = models_folder.resolve(store, "tiny").name
        (store / "tiny" / models_folder.ACTIVE).write_text(f"gone\n{first}")

        async def scenario(residency: Residency) -> None:
            await asyncio.wait_for(residency.preload(), 30)
            residency.expect_ready()
            assert (await residency.get("tiny")).manifest.version == first

        run(store, scenario)
        said = [record.message for record in caplog.records if "in its place" in record.message]
        assert said == [f"tiny/gone was refused; {first}, which was active before it, serves in its place"]

    def test_what_was_moved_away_serves_from_memory_and_that_is_said_once(
        self, store: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        folder = models_folder.resolve(store, "tiny")

        async def scenario(residency: Residency) -> None:
            await residency.get("tiny")
            for times in (1, 2):
                folder.rename(tmp_path / "elsewhere")
                for _ in range(2):
                    assert (await residency.get("tiny")).manifest.version == folder.name
                assert caplog.text.count("not in the models folder any more") == times
                (tmp_path / "elsewhere").rename(folder)
                await residency.get("tiny")

        run(store, scenario)

    def test_once_it_has_left_memory_the_one_before_serves(
        self, store: Path, add_version: AddVersion, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        first = models_folder.resolve(store, "tiny").name
        folder = add_version(store, "tiny", "moved")
        add_version(store, "other", "v1")
        for category, version in (("tiny", "moved"), ("other", "v1")):
            models_folder.activate(store, category, version)

        async def scenario(residency: Residency) -> None:
            await residency.get("tiny")
            folder.rename(tmp_path / "elsewhere")
            assert (await residency.get("tiny")).manifest.version == "moved"
            await residency.get("other")  # there is room for one
            for _ in range(2):
                assert (await residency.get("tiny")).manifest.version == first
            assert residency.serving("tiny") == first

        run(store, scenario, model_bytes=1)
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
            "tiny/moved is active, and not in the models folder any more; it serves until it leaves memory, "
            "at the latest with a restart",
            "tiny/moved was refused. It is not in the models folder.",
            f"tiny/moved was refused; {first}, which was active before it, serves in its place",
        ]

    @pytest.mark.parametrize("before", ["", "\nalso-gone"])
    def test_where_none_can_that_is_told_until_it_comes(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, before: str
    ) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)
        first = models_folder.resolve(store, "tiny")
        (store / "tiny" / models_folder.ACTIVE).write_text("gone" + before)

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            told = await problem(residency.get("tiny"))
            assert told.name == "rejected-bundle"
            assert "its active version 'gone' is not in the models folder" in told.detail
            assert str(store) not in told.detail
            assert unready(residency)
            assert (await residency.get("tiny", first.name)).manifest.version == first.name
            assert (await problem(residency.get("tiny", "gone"))).name == "unknown-model"
            models_folder.activate(store, "tiny", first.name)
            await residency.get("tiny")
            residency.expect_ready()
            preloading.cancel()

        run(store, scenario)


class TestPreload:
    def test_loads_what_is_active(self, store: Path, add_version: AddVersion, loads: list[Path]) -> None:
        for category in ("other", "idle", "odd"):
            add_version(store, category, "v1")
        models_folder.activate(store, "other", "v1")
        (store / "odd" / models_folder.ACTIVE).write_bytes(b"\xff\xfe")

        async def scenario(residency: Residency) -> None:
            await residency.preload()
            residency.expect_ready()

        run(store, scenario)
        assert sorted(path.parent.name for path in loads) == ["other", "tiny"]

    def test_is_not_ready_before(self, store: Path) -> None:
        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await asyncio.sleep(0)
            assert unready(residency)
            await preloading
            residency.expect_ready()

        run(store, scenario)

    def test_waits_for_a_damaged_one_and_serves_the_others(
        self, store: Path, add_version: AddVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)
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

    def test_a_good_version_in_place_of_a_damaged_one_makes_it_ready(
        self, store: Path, add_version: AddVersion
    ) -> None:
        add_version(store, "tiny", "good")
        damage(models_folder.resolve(store, "tiny"))

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await problem(residency.get("tiny"))
            assert unready(residency)
            models_folder.activate(store, "tiny", "good")
            await residency.get("tiny")
            residency.expect_ready()
            preloading.cancel()

        run(store, scenario)

    def test_does_not_wait_for_what_was_taken_away(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)
        damage(models_folder.resolve(store, "tiny"))

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await problem(residency.get("tiny"))
            shutil.rmtree(store / "tiny")
            await asyncio.wait_for(preloading, 30)
            residency.expect_ready()

        run(store, scenario)

    def test_waits_for_the_models_folder(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.05)
        hidden = store.with_name("elsewhere")
        shutil.move(store, hidden)

        async def scenario(residency: Residency) -> None:
            preloading = asyncio.create_task(residency.preload())
            await asyncio.sleep(0.1)
            assert unready(residency) == "The models folder cannot be read."
            shutil.move(hidden, store)
            await asyncio.wait_for(preloading, 30)
            residency.expect_ready()

        run(store, scenario)
