"""Changes of the models folder while the service runs: what serves stays until another one is good."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.category_settings import SETTINGS
from app.residency import Residency
from app.store import Activated, Store
from flows.fastflow import bundle, models_folder
from flows.fastflow.detector import Detector
from tests.app.bundles import again, left_in
from tests.app.stores import damage, of_half_the_size, problem, run, serving
from tests.conftest import picture
from tests.flows.fastflow.manifests import edit


@pytest.fixture
def first(store: Path) -> str:
    """The version that is active from the start."""
    return models_folder.resolve(store, "tiny").name


def steps(activated: Activated) -> tuple[str | None, str]:
    """From which version to which."""
    return activated.previous, activated.version


class TestActivate:
    def test_it_serves_when_this_returns(self, store: Path, first: str) -> None:
        again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            assert await serving(residency) == first
            assert steps(await changes.activate("tiny", "v2")) == (first, "v2")
            assert await serving(residency) == "v2"
            assert {model.version for model in residency.loaded()} == {"v2"}

        run(store, scenario)
        assert models_folder.active_version(store, "tiny") == "v2"

    def test_the_first_one_of_a_category(self, store: Path) -> None:
        again(store, "v1", "nut")

        async def scenario(changes: Store, residency: Residency) -> None:
            await problem(residency.get("nut"), "unknown-model")
            assert steps(await changes.activate("nut", "v1")) == (None, "v1")
            assert (await residency.get("nut")).manifest.version == "v1"

        run(store, scenario)

    def test_the_active_one_once_more_forgets_nothing(self, store: Path, first: str) -> None:
        again(store, "v2")

        async def scenario(changes: Store, _: Residency) -> None:
            for _i in range(2):
                assert (await changes.activate("tiny", "v2")).version == "v2"
            assert (await changes.rollback("tiny")).version == first

        run(store, scenario)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (damage, "flow.safetensors was changed: its sha256 is not the manifest's"),
            (lambda folder: (folder / bundle.FLOW).unlink(), "does not hold the files"),
            (lambda folder: (folder / bundle.MANIFEST).write_text("{"), "manifest.json is not valid"),
            (lambda folder: edit(folder, lambda d: d["golden"][0].update(score=9)), "golden/0.png scores"),
            (
                lambda folder: edit(folder, lambda d: d["thresholds"]["float32"].update(reject=99.0)),
                "is not what its calibration scores give",
            ),
        ],
        ids=["flow", "flow gone", "manifest", "golden score", "threshold"],
    )
    def test_one_that_is_not_good_is_refused_and_the_old_one_stays(
        self, store: Path, first: str, change: Callable[[Path], object], reason: str
    ) -> None:
        change(again(store, "v2"))

        async def scenario(changes: Store, residency: Residency) -> None:
            await residency.get("tiny")
            assert reason in await problem(changes.activate("tiny", "v2"), "rejected-bundle")
            assert await serving(residency) == first

        run(store, scenario)
        assert models_folder.active_version(store, "tiny") == first
        assert models_folder.previous_version(store, "tiny") is None

    def test_one_that_was_damaged_since_it_was_loaded(self, store: Path, first: str) -> None:
        folder = again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            await residency.get("tiny", "v2")
            damage(folder)
            assert "was changed" in await problem(changes.activate("tiny", "v2"), "rejected-bundle")
            assert await serving(residency) == first

        run(store, scenario)

    def test_one_that_was_replaced_since_it_was_loaded(self, store: Path) -> None:
        folder = again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            await residency.get("tiny", "v2")
            edit(folder, lambda d: d["metrics"].update(fit_nll=0.0))
            detail = await problem(changes.activate("tiny", "v2"), "rejected-bundle")
            assert detail == "It is not the bundle that is loaded; unload that one."
            await changes.unload("tiny", "v2")
            await changes.activate("tiny", "v2")
            assert (await residency.get("tiny")).manifest.metrics["fit_nll"] == 0

        run(store, scenario)

    def test_once_repaired_it_need_not_wait(self, store: Path) -> None:
        folder = again(store, "v2")
        good = (folder / bundle.FLOW).read_bytes()
        damage(folder)

        async def scenario(changes: Store, residency: Residency) -> None:
            await problem(changes.activate("tiny", "v2"), "rejected-bundle")
            (folder / bundle.FLOW).write_bytes(good)
            await changes.activate("tiny", "v2")
            assert await serving(residency) == "v2"

        run(store, scenario)

    def test_one_that_is_deleted_meanwhile(
        self, store: Path, first: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        again(store, "v2")
        load = Residency.load

        async def load_and_delete(residency: Residency, category: str, version: str) -> Detector:
            detector = await load(residency, category, version)
            models_folder.delete(store, category, version)
            return detector

        monkeypatch.setattr(Residency, "load", load_and_delete)

        async def scenario(changes: Store, residency: Residency) -> None:
            assert "no version 'v2'" in await problem(changes.activate("tiny", "v2"), "unknown-model")
            assert await serving(residency) == first

        run(store, scenario)
        assert models_folder.active_version(store, "tiny") == first

    def test_settings_that_cannot_be_read_refuse_every_version(self, store: Path, first: str) -> None:
        again(store, "v2")
        (store / "tiny" / SETTINGS).write_text("{")

        async def scenario(changes: Store, _: Residency) -> None:
            await problem(changes.activate("tiny", "v2"), "model-loading")

        run(store, scenario)
        assert models_folder.active_version(store, "tiny") == first

    @pytest.mark.parametrize("station", [None, "line-3"])
    def test_one_whose_input_has_no_pixel_in_a_region_would_pass_every_part(
        self, store: Path, first: str, station: str | None
    ) -> None:
        of_half_the_size(store, "half")
        # Two columns of pixels of 64, between two columns of 32.
        strip = [[1.2, 0], [2.8, 0], [2.8, 64], [1.2, 64]]
        region = {"revision": 1, "image": {"width": 64, "height": 64}, "polygons": [strip]}
        settings = {"region": region} if station is None else {"stations": {station: region}}
        (store / "tiny" / SETTINGS).write_text(json.dumps({"revision": 1, **settings}))

        async def scenario(changes: Store, residency: Residency) -> None:
            detail = await problem(changes.activate("tiny", "half"), "rejected-bundle")
            assert "No pixel of the map, 32 x 32, lies inside the region" in detail
            assert await serving(residency) == first
            (store / "tiny" / SETTINGS).unlink()
            await changes.activate("tiny", "half")
            assert await serving(residency) == "half"

        run(store, scenario)


class TestRollback:
    def test_twice_returns(self, store: Path, first: str) -> None:
        again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            await changes.activate("tiny", "v2")
            assert steps(await changes.rollback("tiny")) == ("v2", first)
            assert await serving(residency) == first
            assert steps(await changes.rollback("tiny")) == (first, "v2")
            assert await serving(residency) == "v2"

        run(store, scenario)

    def test_from_an_active_one_that_is_not_there(self, store: Path, first: str) -> None:
        (store / "tiny" / models_folder.ACTIVE).write_text(f"gone\n{first}")

        async def scenario(changes: Store, residency: Residency) -> None:
            assert (await changes.rollback("tiny")).version == first
            assert await serving(residency) == first

        run(store, scenario)

    def test_there_is_none_before(self, store: Path, first: str) -> None:
        async def scenario(changes: Store, residency: Residency) -> None:
            assert "served before the active one" in await problem(changes.rollback("tiny"), "conflict")
            assert await serving(residency) == first

        run(store, scenario)

    def test_the_one_before_was_deleted(self, store: Path, first: str) -> None:
        again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            await changes.activate("tiny", "v2")
            await changes.delete("tiny", first)
            assert "or it was deleted" in await problem(changes.rollback("tiny"), "conflict")
            assert await serving(residency) == "v2"

        run(store, scenario)

    def test_the_one_before_was_damaged(self, store: Path, first: str) -> None:
        again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            await changes.activate("tiny", "v2")
            damage(store / "tiny" / first)
            assert "flow.safetensors was changed" in await problem(
                changes.rollback("tiny"), "rejected-bundle"
            )
            assert await serving(residency) == "v2"

        run(store, scenario)
        assert models_folder.previous_version(store, "tiny") == first


class TestUnload:
    def test_it_is_loaded_again_when_it_is_asked_for(self, store: Path, first: str) -> None:
        async def scenario(changes: Store, residency: Residency) -> None:
            assert await changes.unload("tiny", first) is False
            await residency.get("tiny")
            assert await changes.unload("tiny", first) is True
            assert residency.loaded() == []
            assert await serving(residency) == first
            assert residency.loads == 2

        run(store, scenario)

    def test_one_that_was_refused_was_not_there(self, store: Path) -> None:
        damage(again(store, "v2"))

        async def scenario(changes: Store, residency: Residency) -> None:
            await problem(residency.get("tiny", "v2"), "rejected-bundle")
            assert await changes.unload("tiny", "v2") is False

        run(store, scenario)


class TestDelete:
    def test_what_is_being_inspected_with_it_is_finished(self, store: Path, first: str) -> None:
        again(store, "v2")

        async def scenario(changes: Store, residency: Residency) -> None:
            detector = await residency.get("tiny", "v2")
            await changes.delete("tiny", "v2")
            assert residency.loaded() == []
            assert detector.predict([picture(1)])[0].decision == "PASS"
            await problem(residency.get("tiny", "v2"), "unknown-model")

        before = left_in(store) - {"tiny/v2"}
        run(store, scenario)
        assert left_in(store) == before
        assert models_folder.versions(store, "tiny") == [first]

    def test_the_active_one_is_refused(self, store: Path, first: str) -> None:
        async def scenario(changes: Store, residency: Residency) -> None:
            detail = await problem(changes.delete("tiny", first), "conflict")
            assert detail == f"tiny/{first} is active; activate another version first"
            assert await serving(residency) == first

        run(store, scenario)
        bundle.verify(store / "tiny" / first)

    @pytest.mark.parametrize("fault", ["flow", "golden score"])
    def test_nor_the_one_that_serves_in_place_of_the_active_one(
        self, store: Path, first: str, fault: str
    ) -> None:
        """What is wrong with the active one need not be its files."""
        folder = again(store, "v2")
        if fault == "flow":
            damage(folder)
        else:
            edit(folder, lambda d: d["golden"][0].update(score=9))

        async def scenario(changes: Store, residency: Residency) -> None:
            await residency.get("tiny")
            models_folder.activate(store, "tiny", "v2")
            detail = await problem(changes.delete("tiny", first), "conflict")
            assert detail.startswith(f"tiny/{first} serves in place of v2, the active one; activate another")
            assert await serving(residency) == first
            await changes.activate("tiny", first)
            await changes.delete("tiny", "v2")

        run(store, scenario)
        bundle.verify(store / "tiny" / first)


@pytest.mark.parametrize(
    ("category", "version"),
    [("tiny", "v9"), ("tiny", ".."), ("nut", "v1"), ("..", "tiny"), ("backbones", "x"), ("a\0b", "x" * 5000)],
)
def test_what_is_not_there(store: Path, category: str, version: str) -> None:
    before = left_in(store)

    async def scenario(changes: Store, _: Residency) -> None:
        for call in (changes.activate, changes.unload, changes.delete):
            assert len(await problem(call(category, version), "unknown-model")) < 300
        if category != "tiny":
            assert "no active version" in await problem(changes.rollback(category), "unknown-model")

    run(store, scenario)
    assert left_in(store) == before


def test_a_models_folder_that_is_gone_is_no_unknown_model(store: Path, first: str) -> None:
    shutil.move(store, store.with_name("elsewhere"))

    async def scenario(changes: Store, _: Residency) -> None:
        for call in (changes.activate, changes.unload, changes.delete):
            await problem(call("tiny", first), "model-loading")
        await problem(changes.rollback("tiny"), "model-loading")

    run(store, scenario)


class TestSweep:
    def test_takes_what_was_left_a_day_ago_from_everywhere(self, store: Path) -> None:
        for folder in (store, store / "tiny", store / "backbones"):
            for name in (".old.part", ".young.part", ".old", "old.part"):
                (folder / name).write_bytes(b"x")
                if "old" in name:
                    os.utime(folder / name, (time.time() - 90_000,) * 2)

        async def scenario(changes: Store, _: Residency) -> None:
            changes.sweep()

        run(store, scenario)
        for folder in (store, store / "tiny", store / "backbones"):
            left = {p.name for p in folder.iterdir() if "old" in p.name or "young" in p.name}
            assert left == {".young.part", ".old", "old.part"}

    def test_a_models_folder_that_is_not_there_is_no_reason_not_to_start(self, tmp_path: Path) -> None:
        async def scenario(changes: Store, _: Residency) -> None:
            changes.sweep()

        run(tmp_path / "nowhere", scenario)
