"""Changes of the models folder while the service runs: what serves stays until another one is good."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors.problems import Problem
from app.registry.category_settings import SETTINGS
from app.registry.residency import Residency
from app.registry.store import Changed, Store
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.bundles import again, left_in
from tests.app.stores import damage, of_half_the_size, problem, serving
from tests.conftest import picture
from tests.flows.fastflow.manifests import edit

pytestmark = pytest.mark.anyio


def steps(activated: Changed) -> tuple[str | None, str]:
    """From which version to which."""
    return activated.previous, activated.version


class TestActivate:
    async def test_activated_version_serves_on_return(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        again(store, "v2")
        assert await serving(residency) == first
        assert steps(await changes.activate("tiny", "v2")) == (first, "v2")
        assert residency.serving("tiny") == "v2"
        assert await serving(residency) == "v2"
        assert list(residency.loaded()) == [("tiny", "v2")]
        assert models_folder.active_version(store, "tiny") == "v2"

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (damage, "flow.safetensors was changed: its sha256 is not the manifest's"),
            (lambda folder: edit(folder, lambda d: d["golden"][0].update(score=9)), "golden/0.png scores"),
        ],
        ids=["flow", "golden score"],
    )
    async def test_bad_version_is_refused_and_old_one_stays(
        self,
        store: Path,
        first: str,
        change: Callable[[Path], object],
        reason: str,
        changes: Store,
        residency: Residency,
    ) -> None:
        change(again(store, "v2"))
        await residency.get("tiny")
        assert reason in await problem(changes.activate("tiny", "v2"), "rejected-bundle")
        assert await serving(residency) == first
        assert models_folder.active_version(store, "tiny") == first
        assert models_folder.previous_version(store, "tiny") is None

    async def test_activation_loads_the_version_from_disk(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        folder = again(store, "v2")
        good = (folder / bundle.FLOW).read_bytes()
        await residency.get("tiny", "v2")
        damage(folder)
        assert "was changed" in await problem(changes.activate("tiny", "v2"), "rejected-bundle")
        assert await serving(residency) == first
        (folder / bundle.FLOW).write_bytes(good)
        edit(folder, lambda d: d["metrics"].update(fit_nll=0.0))
        await changes.activate("tiny", "v2")
        assert (await residency.get("tiny")).manifest.metrics["fit_nll"] == 0

    async def test_activation_of_a_version_deleted_meanwhile(
        self, store: Path, first: str, monkeypatch: pytest.MonkeyPatch, changes: Store, residency: Residency
    ) -> None:
        again(store, "v2")
        load = Residency.load

        async def load_and_delete(residency: Residency, category: str, version: str) -> Detector:
            detector = await load(residency, category, version)
            models_folder.delete(store, category, version)
            return detector

        monkeypatch.setattr(Residency, "load", load_and_delete)
        assert "no version 'v2'" in await problem(changes.activate("tiny", "v2"), "unknown-model")
        assert await serving(residency) == first
        assert models_folder.active_version(store, "tiny") == first

    @pytest.mark.parametrize("station", [None, "line-3"])
    async def test_version_without_pixels_in_a_region_is_refused(
        self, store: Path, first: str, station: str | None, changes: Store, residency: Residency
    ) -> None:
        of_half_the_size(store, "half")
        # Two columns of pixels of 64, between two columns of 32.
        strip = [[1.2, 0], [2.8, 0], [2.8, 64], [1.2, 64]]
        region = {"revision": 1, "image": {"width": 64, "height": 64}, "polygons": [strip]}
        settings = {"region": region} if station is None else {"stations": {station: region}}
        (store / "tiny" / SETTINGS).write_text(json.dumps({"revision": 1, **settings}))
        detail = await problem(changes.activate("tiny", "half"), "rejected-bundle")
        assert "No pixel of the map, 32 x 32, lies inside the region" in detail
        assert await serving(residency) == first
        (store / "tiny" / SETTINGS).unlink()
        await changes.activate("tiny", "half")
        assert await serving(residency) == "half"


class TestRollback:
    async def test_second_rollback_returns_to_first_version(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        again(store, "v2")
        await changes.activate("tiny", "v2")
        for before, after in (("v2", first), (first, "v2")):
            assert steps(await changes.rollback("tiny")) == (before, after)
            assert await serving(residency) == after

    async def test_rollback_without_previous_version_is_refused(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        again(store, "v2")
        assert "served before the active one" in await problem(changes.rollback("tiny"), "conflict")
        await changes.activate("tiny", "v2")
        damage(store / "tiny" / first)
        detail = await problem(changes.rollback("tiny"), "rejected-bundle")
        assert "flow.safetensors was changed" in detail
        await changes.delete("tiny", first)
        assert "or it was deleted" in await problem(changes.rollback("tiny"), "conflict")
        assert await serving(residency) == "v2"


class TestDelete:
    async def test_deletion_lets_inspections_finish(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        again(store, "v2")
        detector = await residency.get("tiny", "v2")
        await changes.delete("tiny", "v2")
        assert residency.loaded() == {}
        assert detector.predict([picture(1)])[0].decision == "PASS"
        await problem(residency.get("tiny", "v2"), "unknown-model")

        before = left_in(store) - {"tiny/v2"}
        assert left_in(store) == before
        assert models_folder.versions(store, "tiny") == [first]

    async def test_active_and_serving_versions_are_not_deleted(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        damage(again(store, "v2"))
        detail = await problem(changes.delete("tiny", first), "conflict")
        assert detail == f"tiny/{first} is active; activate another version first"
        await residency.get("tiny")
        models_folder.activate(store, "tiny", "v2")  # beside the server, and refused
        assert await serving(residency) == first
        detail = await problem(changes.delete("tiny", first), "conflict")
        assert detail == f"tiny/{first} is serving; activate another version first."
        await changes.activate("tiny", first)
        await changes.delete("tiny", "v2")
        bundle.verify(store / "tiny" / first)


class TestAtOnce:
    async def test_activations_of_a_category_are_serialized(
        self, store: Path, first: str, changes: Store, residency: Residency
    ) -> None:
        versions = {"a", "b", "c"}
        for version in versions:
            again(store, version)
        done = await asyncio.gather(*(changes.activate("tiny", version) for version in versions))
        followed = {activated.previous: activated.version for activated in done}
        order = [first]
        for _ in versions:
            order.append(followed[order[-1]])
        assert set(order) == {first, *versions}
        assert order[-1] == await serving(residency) == models_folder.active_version(store, "tiny")

    async def test_lock_of_another_process_is_per_category(
        self, store: Path, first: str, monkeypatch: pytest.MonkeyPatch, changes: Store, residency: Residency
    ) -> None:
        monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.05)
        again(store, "v2")
        again(store, "v1", "nut")
        with models_folder.lock_category(store, "tiny"):
            for call in (changes.activate("tiny", "v2"), changes.delete("tiny", "v2")):
                assert "another process" in await problem(call, "conflict")
            await changes.activate("nut", "v1")
        assert await serving(residency) == first

    async def test_active_version_survives_concurrent_deletion(self, store: Path, changes: Store) -> None:
        again(store, "v2")
        calls = changes.activate("tiny", "v2"), changes.delete("tiny", "v2")
        done = await asyncio.gather(*calls, return_exceptions=True)
        [refused] = [each for each in done if isinstance(each, Problem)]
        assert refused.name in ("conflict", "unknown-model")
        bundle.verify(models_folder.resolve(store, "tiny"))


@pytest.mark.parametrize(
    ("category", "version"), [("tiny", "v9"), ("tiny", ".."), ("nut", "v1"), ("..", "x")]
)
async def test_unknown_version_is_refused(store: Path, category: str, version: str, changes: Store) -> None:
    before = left_in(store)
    for call in (changes.activate, changes.unload, changes.delete):
        await problem(call(category, version), "unknown-model")
    if category != "tiny":
        await problem(changes.rollback(category), "unknown-model")
    assert left_in(store) == before
