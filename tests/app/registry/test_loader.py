import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.registry.loader import Loader
from flows.fastflow import detector
from flows.fastflow.bundle import models_folder
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.inference.tile_outputs import NotNumbersError
from tests.app.support.bundles import copy_version
from tests.app.support.models_folders import damage_bundle, raised_problem
from tests.flows.fastflow.manifests import edit
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(store: Path) -> Path:
    return models_folder.resolve(store, "tiny")


@pytest.fixture
def loader(store: Path) -> Iterator[Loader]:
    loader = Loader(store, "cpu")
    yield loader
    loader.close()


class TestShared:
    async def test_backbone_is_shared_and_freed_with_last_model(
        self, store: Path, folder: Path, loader: Loader
    ) -> None:
        other = copy_version(store, "v1", "nut")
        loaded = [await loader.load(folder), await loader.load(other)]
        first, second = (one.scorer.extractor for one in loaded)
        assert first is second
        with pytest.raises(ValueError, match="the training form of the head was freed"):
            _ = loaded[0].scorer.head
        gone = weakref.ref(first)
        del first, second, loaded
        # The thread frees its last result with the next call.
        await raised_problem(loader.load(store / "tiny" / "none"), "rejected-bundle")
        gc.collect()
        assert gone() is None

    async def test_model_with_nan_at_warm_up_is_refused(
        self, folder: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def warm_up(_: Scorer) -> None:
            raise NotNumbersError("energies are not numbers")

        monkeypatch.setattr(Scorer, "warm_up", warm_up)
        assert "energies are not numbers; it will not be served" in await raised_problem(
            loader.load(folder), "rejected-bundle"
        )

    async def test_failed_specialisation_keeps_shared_graphs(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loader: Loader
    ) -> None:
        specialised: list[Scorer] = []

        def failing(scorer: Scorer) -> None:
            specialised.append(scorer)
            raise RuntimeError("no memory")

        monkeypatch.setattr(Scorer, "specialise", failing)
        loaded = [await loader.load(folder) for _ in range(2)]
        message = f"tiny/{folder.name} keeps its shared graphs"
        await until(lambda: caplog.text.count(message) == 2)
        assert specialised == [one.scorer for one in loaded]

    async def test_backbone_weights_come_from_the_models_folder(
        self, folder: Path, tmp_path: Path, loader: Loader
    ) -> None:
        staged = shutil.copytree(folder, tmp_path / "staging" / "tiny" / folder.name)
        assert (await loader.load(staged)).manifest.category == "tiny"


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (damage_bundle, "The bundle was refused: flow.safetensors was changed: its sha256 is not the"),
    "gone": (shutil.rmtree, "The bundle was refused: the bundle has no readable manifest.json."),
    "link": (
        lambda b: (b / "report" / "link").symlink_to("/etc/passwd"),
        "the bundle holds a link: report/link; a bundle has only regular files",
    ),
    "weights": (
        lambda b: edit(b, lambda d: d["backbone"].update(weights_sha256="0" * 64)),
        "no weights with digest 000000000000 found",
    ),
    "golden": (lambda b: edit(b, lambda d: d["golden"][0].update(score=9.0)), "the bundle: golden image"),
}


class TestReasons:
    @pytest.mark.parametrize("name", FAULTS)
    async def test_refusals_name_no_path(
        self, store: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        apply, message = FAULTS[name]
        apply(folder)
        monkeypatch.chdir(store.parent)
        for models in (store, Path(store.name)):
            found = await raised_problem(
                Loader(models, "cpu").load(models / "tiny" / folder.name), "rejected-bundle"
            )
            assert message in found
            for path in (store, store.parent, models / "tiny"):
                assert str(path) not in found
            assert len(found.splitlines()) == 1

    async def test_damaged_backbone_is_refused(self, store: Path, folder: Path, loader: Loader) -> None:
        [weights] = (store / models_folder.BACKBONES).iterdir()
        weights.write_bytes(b"nonsense")
        found = await raised_problem(loader.load(folder), "rejected-bundle")
        assert weights.name in found
        assert str(store) not in found

    async def test_unexpected_error_shows_only_its_type(
        self, folder: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def verify(_: Path) -> None:
            raise MemoryError("/secret")

        monkeypatch.setattr(detector, "verify", verify)
        assert await raised_problem(loader.load(folder), "rejected-bundle") == (
            "Loading the bundle ended with MemoryError; the server's log has more."
        )
        assert "/secret" in caplog.text


async def test_bundle_without_calibration_can_be_checked(store: Path, folder: Path) -> None:
    loader = Loader(store, "cpu", "bfloat16")
    assert "is not calibrated for bfloat16" in await raised_problem(loader.load(folder), "rejected-bundle")
    assert (await loader.load(folder, uncalibrated=True)).engine == "torch-cpu-bfloat16"
    loader.close()
