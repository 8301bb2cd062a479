import asyncio
import json
from pathlib import Path

import pytest

from app.registry.category_settings import SETTINGS
from app.registry.loaded_models import LoadedModels
from app.registry.model_store import ModelStore, VersionChange
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.support.bundles import copy_version, list_folder
from tests.app.support.models_folders import damage_bundle, publish_half_size, raised_problem, serving_version
from tests.conftest import picture
from tests.flows.fastflow.manifests import edit

pytestmark = pytest.mark.anyio


def steps(activated: VersionChange) -> tuple[str | None, str]:
    return activated.previous, activated.version


class TestActivate:
    async def test_activated_version_serves_on_return(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        copy_version(store, "v2")
        assert await serving_version(loaded_models) == first
        assert steps(await model_store.activate("tiny", "v2")) == (first, "v2")
        assert loaded_models.serving_version("tiny") == "v2"
        assert await serving_version(loaded_models) == "v2"
        assert list(loaded_models.model_sizes()) == [("tiny", "v2")]
        assert models_folder.active_version(store, "tiny") == "v2"

    async def test_activation_loads_the_version_from_disk(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        folder = copy_version(store, "v2")
        good = (folder / bundle.FLOW).read_bytes()
        await loaded_models.get("tiny", "v2")
        damage_bundle(folder)
        assert "was changed" in await raised_problem(model_store.activate("tiny", "v2"), "rejected-bundle")
        assert await serving_version(loaded_models) == first
        assert models_folder.active_version(store, "tiny") == first
        assert models_folder.previous_version(store, "tiny") is None
        (folder / bundle.FLOW).write_bytes(good)
        edit(folder, lambda d: d["metrics"].update(fit_nll=0.0))
        await model_store.activate("tiny", "v2")
        assert (await loaded_models.get("tiny")).manifest.metrics["fit_nll"] == 0

    async def test_activation_of_a_version_deleted_meanwhile(
        self,
        store: Path,
        first: str,
        monkeypatch: pytest.MonkeyPatch,
        model_store: ModelStore,
        loaded_models: LoadedModels,
    ) -> None:
        copy_version(store, "v2")
        load = LoadedModels.load

        async def load_and_delete(loaded_models: LoadedModels, category: str, version: str) -> Detector:
            detector = await load(loaded_models, category, version)
            models_folder.delete(store, category, version)
            return detector

        monkeypatch.setattr(LoadedModels, "load", load_and_delete)
        assert "no version 'v2'" in await raised_problem(model_store.activate("tiny", "v2"), "unknown-model")
        assert await serving_version(loaded_models) == first
        assert models_folder.active_version(store, "tiny") == first

    @pytest.mark.parametrize("station", [None, "line-3"])
    async def test_version_without_pixels_in_a_region_is_refused(
        self,
        store: Path,
        first: str,
        station: str | None,
        model_store: ModelStore,
        loaded_models: LoadedModels,
    ) -> None:
        publish_half_size(store, "half")
        # Two columns of pixels of 64, between two columns of 32.
        strip = [[1.2, 0], [2.8, 0], [2.8, 64], [1.2, 64]]
        region = {"revision": 1, "image": {"width": 64, "height": 64}, "polygons": [strip]}
        settings = {"region": region} if station is None else {"stations": {station: region}}
        (store / "tiny" / SETTINGS).write_text(json.dumps({"revision": 1, **settings}))
        detail = await raised_problem(model_store.activate("tiny", "half"), "rejected-bundle")
        assert "No pixel of the map, 32 x 32, lies inside the region" in detail
        assert await serving_version(loaded_models) == first
        (store / "tiny" / SETTINGS).unlink()
        await model_store.activate("tiny", "half")
        assert await serving_version(loaded_models) == "half"


class TestRollback:
    async def test_second_rollback_returns_to_first_version(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        copy_version(store, "v2")
        await model_store.activate("tiny", "v2")
        for before, after in (("v2", first), (first, "v2")):
            assert steps(await model_store.rollback("tiny")) == (before, after)
            assert await serving_version(loaded_models) == after

    async def test_rollback_without_previous_version_is_refused(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        copy_version(store, "v2")
        assert "has no previous version" in await raised_problem(model_store.rollback("tiny"), "conflict")
        await model_store.activate("tiny", "v2")
        damage_bundle(store / "tiny" / first)
        detail = await raised_problem(model_store.rollback("tiny"), "rejected-bundle")
        assert "flow.safetensors was changed" in detail
        await model_store.delete("tiny", first)
        assert "or it was deleted" in await raised_problem(model_store.rollback("tiny"), "conflict")
        assert await serving_version(loaded_models) == "v2"


class TestDelete:
    async def test_deletion_lets_inspections_finish(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        copy_version(store, "v2")
        detector = await loaded_models.get("tiny", "v2")
        await model_store.delete("tiny", "v2")
        assert loaded_models.model_sizes() == {}
        assert detector.predict([picture(1)])[0].decision == "PASS"
        await raised_problem(loaded_models.get("tiny", "v2"), "unknown-model")

        before = list_folder(store) - {"tiny/v2"}
        assert list_folder(store) == before
        assert models_folder.versions(store, "tiny") == [first]

    async def test_active_and_serving_versions_are_not_deleted(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        damage_bundle(copy_version(store, "v2"))
        detail = await raised_problem(model_store.delete("tiny", first), "conflict")
        assert detail == f"tiny/{first} is active; activate another version first"
        await loaded_models.get("tiny")
        models_folder.activate(store, "tiny", "v2")  # beside the server, and refused
        assert await serving_version(loaded_models) == first
        detail = await raised_problem(model_store.delete("tiny", first), "conflict")
        assert detail == f"tiny/{first} is serving; activate another version first."
        await model_store.activate("tiny", first)
        await model_store.delete("tiny", "v2")
        bundle.verify(store / "tiny" / first)


class TestAtOnce:
    async def test_activations_of_a_category_are_serialized(
        self, store: Path, first: str, model_store: ModelStore, loaded_models: LoadedModels
    ) -> None:
        versions = {"a", "b", "c"}
        for version in versions:
            copy_version(store, version)
        done = await asyncio.gather(*(model_store.activate("tiny", version) for version in versions))
        followed = {activated.previous: activated.version for activated in done}
        order = [first]
        for _ in versions:
            order.append(followed[order[-1]])
        assert set(order) == {first, *versions}
        assert (
            order[-1] == await serving_version(loaded_models) == models_folder.active_version(store, "tiny")
        )

    async def test_lock_of_another_process_is_per_category(
        self,
        store: Path,
        first: str,
        monkeypatch: pytest.MonkeyPatch,
        model_store: ModelStore,
        loaded_models: LoadedModels,
    ) -> None:
        monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.05)
        copy_version(store, "v2")
        copy_version(store, "v1", "nut")
        with models_folder.lock_category(store, "tiny"):
            for call in (model_store.activate("tiny", "v2"), model_store.delete("tiny", "v2")):
                assert "another process" in await raised_problem(call, "conflict")
            await model_store.activate("nut", "v1")
        assert await serving_version(loaded_models) == first


@pytest.mark.parametrize(
    ("category", "version"), [("tiny", "v9"), ("tiny", ".."), ("nut", "v1"), ("..", "x")]
)
async def test_unknown_version_is_refused(
    store: Path, category: str, version: str, model_store: ModelStore
) -> None:
    before = list_folder(store)
    for call in (model_store.activate, model_store.delete):
        await raised_problem(call(category, version), "unknown-model")
    if category != "tiny":
        await raised_problem(model_store.rollback(category), "unknown-model")
    assert list_folder(store) == before
