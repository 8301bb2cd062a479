"""Several who change a models folder at the same time, in this process and beside it."""

import asyncio
from pathlib import Path

import pytest

from app.problems import Problem
from app.residency import Residency
from app.store import Activated, Store
from flows.fastflow import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.bundles import again
from tests.app.stores import problem, run, serving


@pytest.fixture
def first(store: Path) -> str:
    """The version that is active from the start."""
    return models_folder.resolve(store, "tiny").name


def test_activations_of_a_category_come_one_after_the_other(store: Path, first: str) -> None:
    versions = {"a", "b", "c"}
    for version in versions:
        again(store, version)

    async def scenario(changes: Store, residency: Residency) -> tuple[list[Activated], str]:
        done = await asyncio.gather(*(changes.activate("tiny", version) for version in versions))
        return list(done), await serving(residency)

    done, last = run(store, scenario)
    followed = {activated.previous: activated.version for activated in done}
    order = [first]
    for _ in versions:
        order.append(followed[order[-1]])
    assert set(order) == {first, *versions}
    assert order[-1] == last == models_folder.active_version(store, "tiny")


def test_one_category_does_not_wait_for_another(store: Path) -> None:
    again(store, "v2")
    again(store, "v1", "nut")

    async def scenario(changes: Store, _: Residency) -> None:
        with models_folder.locked(store, "tiny"):
            waiting = asyncio.create_task(changes.activate("tiny", "v2"))
            await changes.activate("nut", "v1")
            assert not waiting.done()
        await waiting

    run(store, scenario)


def test_a_process_that_never_lets_go_of_the_category(
    store: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.05)
    again(store, "v2")

    async def scenario(changes: Store, residency: Residency) -> None:
        with models_folder.locked(store, "tiny"):
            for call in (changes.activate("tiny", "v2"), changes.delete("tiny", "v2")):
                assert "another process" in await problem(call, "conflict")
        assert await serving(residency) == first

    run(store, scenario)


def test_another_server_activates_another_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(store, "v2")
    again(store, "v3")
    activate = models_folder.activate

    def overtaken(models: Path, category: str, version: str) -> None:
        activate(models, category, version)
        activate(models, category, "v3")

    monkeypatch.setattr(models_folder, "activate", overtaken)

    async def scenario(changes: Store, residency: Residency) -> None:
        await residency.get("tiny")
        assert "at the same time" in await problem(changes.activate("tiny", "v2"), "conflict")

    run(store, scenario)
    assert models_folder.active_version(store, "tiny") == "v3"


def test_memory_is_so_short_that_it_is_dropped_at_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(store, "v2")
    load, dropped = Residency.load, list[bool]()

    async def load_and_drop(residency: Residency, category: str, version: str) -> Detector:
        detector = await load(residency, category, version)
        dropped.append(residency.unload(category, version))
        return detector

    monkeypatch.setattr(Residency, "load", load_and_drop)

    async def scenario(changes: Store, residency: Residency) -> None:
        await residency.get("tiny")
        await changes.activate("tiny", "v2")
        assert await serving(residency) == "v2"

    run(store, scenario)
    assert dropped
    assert all(dropped)


def test_activated_and_deleted(store: Path) -> None:
    """Whoever is first: what is active is there."""
    again(store, "v2")

    async def scenario(changes: Store, residency: Residency) -> list[object]:
        calls = changes.activate("tiny", "v2"), changes.delete("tiny", "v2")
        done = await asyncio.gather(*calls, return_exceptions=True)
        await serving(residency)
        return list(done)

    [refused] = [each for each in run(store, scenario) if isinstance(each, Problem)]
    assert refused.name in ("conflict", "unknown-model")
    bundle.verify(models_folder.resolve(store, "tiny"))
