"""Loading for the service: what is shared, what is done once, and what leaves this machine of a refusal."""

import asyncio
import gc
import logging
import os
import shutil
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import timm
import torch

from app.calibrations import CalibrationFiles
from app.loader import Loader, Refused
from app.renewals import Slot
from flows.fastflow import bundle, detector, models_folder
from flows.fastflow.detector import Detector
from flows.fastflow.engines import Kind
from flows.fastflow.manifest import Precision
from flows.fastflow.scorer import Scorer
from tests.app.bundles import again
from tests.app.calibrating import renewal
from tests.app.stores import change, damage
from tests.flows.fastflow.manifests import edit
from training.config import BackboneConfig, RunConfig
from training.progress import Silent
from training.run import train

T = TypeVar("T")


@pytest.fixture
def folder(store: Path) -> Path:
    return models_folder.resolve(store, "tiny")


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records of which bundles the golden pictures are replayed; they really are."""
    recorded: list[str] = []
    replay = Detector._replay_golden

    def recording(self: Detector, path: Path) -> None:
        recorded.append(path.name)
        replay(self, path)

    monkeypatch.setattr(Detector, "_replay_golden", recording)
    return recorded


def run(models: Path, scenario: Callable[[Loader], Coroutine[Any, Any, T]], device: str = "cpu") -> T:
    async def main() -> T:
        loader = Loader(models, device)
        try:
            return await scenario(loader)
        finally:
            loader.close()

    return asyncio.run(main())


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(Refused) as caught:
        await call
    return str(caught.value)


def reason(models: Path, folder: Path, device: str = "cpu") -> str:
    async def scenario(loader: Loader) -> str:
        return await refused(loader.load(folder))

    return run(models, scenario, device)


class TestExtractors:
    def test_is_one_for_all_and_goes_with_the_last(self, store: Path, folder: Path) -> None:
        other = again(store, "v1", "nut")

        async def scenario(loader: Loader) -> None:
            residents = [await loader.load(folder), await loader.load(other)]
            first, second = (resident.detector.scorer.extractor for resident in residents)
            assert first is second
            assert [r.nbytes for r in residents] == [r.detector.nbytes for r in residents]
            gone = weakref.ref(first)
            del first, second, residents
            await loader.verify(folder)  # the thread lets go of what it has given when it does the next
            gc.collect()
            assert gone() is None
            await loader.load(folder)

        run(store, scenario)

    def test_what_was_made_ready_for_one_is_ready_for_all_of_its_shape(
        self, store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        warmed: list[Scorer] = []
        warm_up = Scorer.warm_up

        def recording(scorer: Scorer) -> None:
            warmed.append(scorer)
            warm_up(scorer)

        monkeypatch.setattr(Scorer, "warm_up", recording)
        others = [again(store, version, "nut") for version in ("v1", "v2")]

        async def scenario(loader: Loader) -> None:
            residents = [await loader.load(one) for one in (folder, *others)]
            assert warmed == [residents[0].detector.scorer]

        run(store, scenario)

    def test_pictures_that_fill_the_input_need_more_than_those_with_a_margin(
        self, store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their maps are made by the engine, whose graphs for that the first of them must not wait for."""
        warmed: list[Scorer] = []
        monkeypatch.setattr(Scorer, "warm_up", lambda scorer: warmed.append(scorer))
        other = again(store, "v1", "nut")
        change(other, geometry={"shrink": "area", "margin": 8})

        async def scenario(loader: Loader) -> None:
            residents = [await loader.load(one) for one in (other, folder)]
            assert warmed == [resident.detector.scorer for resident in residents]

        run(store, scenario)

    def test_where_no_graphs_of_its_own_can_be_had_a_model_goes_on(
        self, store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        specialised: list[Scorer] = []

        def failing(scorer: Scorer) -> None:
            specialised.append(scorer)
            raise RuntimeError("no memory")

        monkeypatch.setattr(Scorer, "specialise", failing)

        async def scenario(loader: Loader) -> None:
            resident = await loader.load(folder)
            await asyncio.to_thread(loader._specialising.shutdown)
            assert specialised == [resident.detector.scorer]

        run(store, scenario)
        assert f"tiny/{folder.name} goes on with the graphs that it shares" in caplog.text

    def test_nothing_is_kept_of_what_was_fitted(self, store: Path, folder: Path) -> None:
        async def scenario(loader: Loader) -> None:
            resident = await loader.load(folder)
            with pytest.raises(ValueError, match="the head was let go"):
                _ = resident.detector.scorer.head
            assert 0 < resident.nbytes == resident.detector.nbytes

        run(store, scenario)

    def test_another_of_its_stages_needs_its_own(self, store: Path, folder: Path) -> None:
        """It is refused for the manifest's other claims, which are compared with that extractor."""
        other = again(store, "v2")
        edit(other, lambda d: d["backbone"].update(out_indices=[2, 3]))

        async def scenario(loader: Loader) -> None:
            kept = await loader.load(folder)
            assert "channels of test_efficientnet" in await refused(loader.load(other))
            assert (await loader.load(folder)).detector.scorer.extractor is kept.detector.scorer.extractor

        run(store, scenario)

    def test_a_transformer_is_shared_by_those_of_one_input_size(
        self, tiny_data: Path, tiny_config: RunConfig, tmp_path: Path, silent: Silent
    ) -> None:
        """Its positions are resampled to the size, so another size is another extractor."""
        torch.manual_seed(0)
        models, weights = tmp_path / "models", tmp_path / "weights.pth"
        torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
        bundles = []
        for seed, size in ((0, (64, 64)), (1, (64, 64)), (0, (64, 96))):
            backbone = BackboneConfig(name="test_vit", out_indices=(1,), weights=weights)
            fit = tiny_config.fit.model_copy(update={"epochs": 1})
            changes = {"seed": seed, "input_size": size, "backbone": backbone, "fit": fit}
            config = tiny_config.model_copy(update=changes)
            outcome = train(
                config,
                tiny_data,
                "tiny",
                models=models,
                runs=tmp_path / "runs",
                resume=False,
                progress=silent,
            )
            bundles.append(outcome.bundle)

        async def scenario(loader: Loader) -> None:
            residents = [await loader.load(folder) for folder in bundles]
            one, two, other = (resident.detector.scorer.extractor for resident in residents)
            assert one is two
            assert other is not one
            assert (one.layers().input_size, other.layers().input_size) == ((64, 64), (64, 96))

        run(models, scenario)

    def test_the_weights_are_those_of_the_models_folder_wherever_the_bundle_lies(
        self, store: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flows.fastflow.backbones._package_file", lambda _: None)
        staged = shutil.copytree(folder, tmp_path / "staging" / "tiny" / folder.name)

        async def scenario(loader: Loader) -> None:
            assert (await loader.load(staged)).detector.manifest.category == "tiny"

        run(store, scenario)


class TestGolden:
    def test_pictures_are_replayed_once_for_each_manifest(
        self, store: Path, folder: Path, replays: list[str]
    ) -> None:
        other = again(store, "v2")

        async def scenario(loader: Loader) -> None:
            for path in (folder, other, folder, other):
                await loader.load(path)
            assert replays == [folder.name, "v2"]
            edit(other, lambda d: d["metrics"].update(fit_nll=0.0))
            await loader.load(other)
            assert replays == [folder.name, "v2", "v2"]

        run(store, scenario)

    def test_another_loader_knows_nothing_of_it(self, store: Path, folder: Path, replays: list[str]) -> None:
        async def scenario(loader: Loader) -> None:
            await loader.load(folder)

        for _ in range(2):
            run(store, scenario)
        assert replays == [folder.name] * 2

    def test_one_that_failed_is_replayed_again(self, store: Path, replays: list[str]) -> None:
        other = again(store, "v2")
        edit(other, lambda d: d["golden"][0].update(score=9.0))

        async def scenario(loader: Loader) -> None:
            for _ in range(2):
                assert "golden/0.png scores" in await refused(loader.load(other))

        run(store, scenario)
        assert replays == ["v2"] * 2

    def test_files_are_verified_every_time(self, store: Path, folder: Path, replays: list[str]) -> None:
        async def scenario(loader: Loader) -> None:
            await loader.load(folder)
            damage(folder)
            assert "flow.safetensors was changed" in await refused(loader.load(folder))

        run(store, scenario)
        assert len(replays) == 1


@pytest.fixture(scope="module")
def compiled(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What OpenVINO has converted of the tiny model, which takes seconds. Not to be changed: copy it."""
    pytest.importorskip("openvino")
    cache = tmp_path_factory.mktemp("compiled") / "engines"
    loader = Loader(tiny_bundle_store, "cpu", "float32", "openvino", cache)
    asyncio.run(loader.load(models_folder.resolve(tiny_bundle_store, "tiny")))
    loader.close()
    return cache


class Compiled:
    """What tests of OpenVINO's graphs share."""

    @pytest.fixture
    def engines(self, compiled: Path, tmp_path: Path) -> Path:
        """A folder of the test's own, with what was converted of the tiny model."""
        return shutil.copytree(compiled, tmp_path / "engines")

    @pytest.fixture
    def loader(self, store: Path, engines: Path) -> Iterator[Loader]:
        """Of an engine that has the backbone converted."""
        loader = Loader(store, "cpu", "float32", "openvino", engines)
        yield loader
        loader.close()


@pytest.mark.threads(2)
class TestSpecialising(Compiled):
    def test_one_that_is_loaded_again_gets_graphs_of_its_own_too(self, loader: Loader, folder: Path) -> None:
        async def scenario() -> None:
            # The second has no picture replayed and no batch made ready: that was done with the first.
            residents = [await loader.load(folder) for _ in range(2)]
            await asyncio.to_thread(loader._specialising.shutdown)
            for resident in residents:
                assert resident.detector.scorer._running.own_bytes > 0  # type: ignore[attr-defined]

        asyncio.run(scenario())


@pytest.mark.threads(2)
class TestBegin(Compiled):
    """A start begins to load before there is an event loop."""

    def test_what_was_begun_is_what_is_loaded(self, loader: Loader, folder: Path, replays: list[str]) -> None:
        loader.begin(folder)
        begun = loader._begun[folder].result().value
        assert begun is not None

        async def scenario() -> None:
            assert await loader.load(folder) is begun
            # From then on it is loaded as ever.
            again = await loader.load(folder)
            assert (again is begun, again.detector.sha256) == (False, begun.detector.sha256)

        asyncio.run(scenario())
        assert replays == [folder.name]

    @pytest.mark.parametrize("engine", ["torch", "auto"])
    def test_what_would_have_to_be_compiled_waits_until_it_is_asked_for(
        self, store: Path, folder: Path, tmp_path: Path, replays: list[str], engine: Kind
    ) -> None:
        (tmp_path / "engines").mkdir()
        loader = Loader(store, "cpu", "float32", engine, tmp_path / "engines")
        loader.begin(folder)
        assert loader._begun[folder].result().value is None
        assert not replays
        assert asyncio.run(loader.load(folder)).detector.manifest.category == "tiny"
        loader.close()

    def test_others_are_loaded_meanwhile_and_then_it_is_loaded_anew(
        self, loader: Loader, store: Path, folder: Path
    ) -> None:
        other = again(store, "v1", "nut")
        loader.begin(folder)
        assert asyncio.run(loader.load(other)).detector.manifest.category == "nut"
        damage(folder)
        assert "flow.safetensors was changed" in asyncio.run(refused(loader.load(folder)))

    def test_why_it_cannot_be_is_told_who_asks_for_it(
        self, loader: Loader, store: Path, folder: Path
    ) -> None:
        good = folder.with_name("good")
        shutil.copytree(folder, good)
        damage(folder)
        said = reason(store, folder)
        loader.begin(folder)

        async def scenario() -> None:
            assert await refused(loader.load(folder)) == said
            shutil.rmtree(folder)
            good.rename(folder)
            await loader.load(folder)

        asyncio.run(scenario())

    def test_one_that_nobody_asks_for_keeps_no_start_from_ending(self, loader: Loader, folder: Path) -> None:
        loader.begin(folder)
        loader.close()
        assert loader._begun[folder].done()


class TestWhatIsNoException:
    """Libraries of Rust end with one of their own, which derives from BaseException."""

    class Panic(BaseException):
        pass

    def test_is_a_refusal_of_that_model_alone(
        self, store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def panic(*_: object) -> None:
            raise self.Panic

        async def scenario(loader: Loader) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(Loader, "_read", panic)
                with pytest.raises(Refused) as caught:
                    await loader.load(folder)
                assert caught.value.unforeseen
                assert str(caught.value.__cause__) == "it ended with Panic"
            await loader.load(folder)

        run(store, scenario)


class TestRenewals:
    @pytest.mark.parametrize(
        ("precisions", "passed_over"), [((), False), (("bfloat16",), True), (("bfloat16", "float32"), False)]
    )
    def test_those_of_other_engines_alone_are_said_to_be_passed_over(
        self,
        store: Path,
        folder: Path,
        caplog: pytest.LogCaptureFixture,
        precisions: tuple[Precision, ...],
        passed_over: bool,
    ) -> None:
        """As after FLOWGAUGE_PRECISION was changed: the version's own calibration decides again."""
        manifest = bundle.read_manifest(folder)
        for precision in precisions:
            slot = Slot(manifest, bundle.manifest_sha256(folder, manifest), precision)
            made = renewal(slot, [1.0, 2.0])
            CalibrationFiles(store).change(slot, partial(lambda made, _: made, made))

        async def scenario(loader: Loader) -> None:
            for _ in range(2):
                await loader.load(folder)

        with caplog.at_level(logging.WARNING, "flowgauge.loader"):
            run(store, scenario)
        said = f"tiny/{folder.name} was calibrated with pictures of the line for bfloat16 and not for float32"
        assert caplog.text.count(said) == passed_over

    def test_one_of_a_station_is_none_of_the_line(
        self, store: Path, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All other stations are judged by the version's own calibration."""
        manifest = bundle.read_manifest(folder)
        slot = Slot(manifest, bundle.manifest_sha256(folder, manifest), "bfloat16")
        for one in (slot, replace(slot, precision="float32", station="line-3")):
            made = renewal(one, [1.0, 2.0])
            CalibrationFiles(store).change(one, partial(lambda made, _: made, made))

        async def scenario(loader: Loader) -> None:
            await loader.load(folder)

        with caplog.at_level(logging.WARNING, "flowgauge.loader"):
            run(store, scenario)
        assert "with pictures of the line for bfloat16 and not for float32" in caplog.text


class TestVerify:
    def test_gives_the_sha256_and_loads_nothing(
        self, store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(Detector, "load")

        async def scenario(loader: Loader) -> str:
            return await loader.verify(folder)

        assert run(store, scenario) == bundle.manifest_sha256(folder, bundle.read_manifest(folder))

    @pytest.mark.parametrize("change", [damage, shutil.rmtree])
    def test_what_was_changed_or_is_gone(
        self, store: Path, folder: Path, change: Callable[[Path], object]
    ) -> None:
        change(folder)

        async def scenario(loader: Loader) -> str:
            return await refused(loader.verify(folder))

        assert str(store) not in run(store, scenario)


def put_behind_a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (damage, "The bundle was refused: flow.safetensors was changed: its sha256 is not the"),
    "gone": (shutil.rmtree, "The bundle was refused: the bundle has no readable manifest.json."),
    "no JSON": (lambda b: (b / bundle.MANIFEST).write_text("{"), "manifest.json is not valid"),
    "renamed": (lambda b: edit(b, lambda d: d.update(version="v9")), "the bundle says that it is tiny/v9"),
    "link": (
        lambda b: (b / "report" / "link").symlink_to("/etc/passwd"),
        "the bundle holds a link, report/link; a bundle has only plain files",
    ),
    "folder of links": (put_behind_a_link, "the bundle is a link, not a directory"),
    "pipe": (lambda b: os.mkfifo(b / "pipe"), "the bundle holds something that is no file, pipe"),
    "weights": (
        lambda b: edit(b, lambda d: d["backbone"].update(weights_sha256="0" * 64)),
        "no weights with digest 000000000000 found",
    ),
    "backbone": (
        lambda b: edit(b, lambda d: d["backbone"].update(name="/etc/passwd")),
        "knows no model",
    ),
    "picture": (lambda b: edit(b, lambda d: d["golden"][0].update(score=9.0)), "the bundle: golden picture"),
}


class TestReasons:
    @pytest.mark.parametrize("name", FAULTS)
    @pytest.mark.parametrize("form", ["absolute", "relative", "linked"])
    def test_say_what_is_wrong_and_never_where(
        self, store: Path, folder: Path, name: str, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change, said = FAULTS[name]
        change(folder)
        models = store
        match form:
            case "relative":
                monkeypatch.chdir(store.parent)
                models = Path(store.name)
            case "linked":
                models = store.with_name("link")
                models.symlink_to(store)
        found = reason(models, models / "tiny" / folder.name)
        assert said in found
        for path in (store, store.parent, Path.home(), models / "tiny"):
            assert str(path) not in found
        assert len(found.splitlines()) == 1

    def test_of_a_bundle_that_lies_elsewhere(self, store: Path, folder: Path, tmp_path: Path) -> None:
        staged = shutil.copytree(folder, tmp_path / ".staging.part" / "tiny" / folder.name)
        damage(staged)
        found = reason(store, staged)
        assert found.startswith("The bundle was refused: flow.safetensors was changed")
        assert ".part" not in found

    def test_a_backbone_that_is_damaged(self, store: Path, folder: Path) -> None:
        [weights] = (store / models_folder.BACKBONES).iterdir()
        weights.write_bytes(b"nonsense")
        found = reason(store, folder)
        assert weights.name in found
        assert str(store) not in found

    def test_a_device_that_is_not_there(self, store: Path, folder: Path) -> None:
        assert "'cuda:99' was asked for" in reason(store, folder, device="cuda:99")

    @pytest.mark.parametrize("error", [MemoryError("/secret"), OSError(5, "Input/output error", "/secret")])
    def test_of_what_nobody_expected_only_the_kind(
        self, store: Path, folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def verify(_: Path) -> None:
            raise error

        monkeypatch.setattr(detector, "verify", verify)
        kind = type(error).__name__
        expected = f"Loading the bundle ended with {kind}; the server's log has more."
        assert reason(store, folder) == expected


def test_a_refusal_does_not_touch_the_next_load(store: Path, folder: Path) -> None:
    damage(again(store, "v2"))

    async def scenario(loader: Loader) -> None:
        calls = loader.load(store / "tiny" / "v2"), loader.load(folder)
        failed, good = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(failed, Refused)
        assert not isinstance(good, BaseException)

    run(store, scenario)
