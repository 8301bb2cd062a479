"""A backbone that is known by its record, and built when its layers are asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flows.fastflow.bundle import BACKBONES, BundleError, read_manifest, resolve
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.manifest import Backbone
from flows.fastflow.recorded_backbone import RecordedBackbone, difference, fits
from flows.fastflow.weights import WeightsError, save_weights
from tests.flows.fastflow.untrained import NAME, weights

CPU = torch.device("cpu")
SIZE = (64, 64)


def record_of(extractor: FeatureExtractor) -> Backbone:
    return Backbone(
        name=extractor.name,
        weights_sha256=extractor.weights_sha256,
        out_indices=list(extractor.out_indices),
        channels=list(extractor.channels),
        strides=list(extractor.strides),
        mean=list(extractor.mean),
        std=list(extractor.std),
    )


@pytest.fixture
def extractor() -> FeatureExtractor:
    return FeatureExtractor(weights(), (1, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(weights(), tmp_path)
    return tmp_path


class TestLayers:
    def test_they_are_those_of_its_weights(self, extractor: FeatureExtractor, folder: Path) -> None:
        recorded = RecordedBackbone(record_of(extractor), folder, CPU)
        images = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8)
        for found, expected in zip(recorded.layers(SIZE)(images), extractor(images), strict=True):
            assert torch.equal(found, expected)

    def test_they_are_built_once_for_all_sizes_that_they_take(
        self, extractor: FeatureExtractor, folder: Path
    ) -> None:
        recorded = RecordedBackbone(record_of(extractor), folder, CPU)
        assert recorded.layers(SIZE) is recorded.layers((96, 64))

    def test_an_extractor_is_its_own(self, extractor: FeatureExtractor) -> None:
        assert extractor.layers(SIZE) is extractor
        assert extractor.device == CPU

    @pytest.mark.parametrize(
        "values",
        [{"channels": [24, 32]}, {"strides": [8, 32]}, {"mean": [0.4] * 3}, {"std": [0.4] * 3}],
        ids=lambda values: next(iter(values)),
    )
    def test_others_than_were_recorded_are_refused(
        self, extractor: FeatureExtractor, folder: Path, values: dict[str, list[float]]
    ) -> None:
        record = record_of(extractor).model_copy(update=values)
        recorded = RecordedBackbone(record, folder, CPU)
        [what] = values
        with pytest.raises(BundleError, match=f"{what} of {NAME} were .* another version of timm"):
            recorded.layers(SIZE)
        assert difference(recorded, record) is None
        assert str(difference(extractor, record)).startswith(what)

    def test_weights_that_went_are_missed(self, extractor: FeatureExtractor, folder: Path) -> None:
        recorded = RecordedBackbone(record_of(extractor), folder, CPU)
        shutil.rmtree(folder)
        with pytest.raises(WeightsError, match="no weights with digest"):
            recorded.layers(SIZE)


def test_it_is_what_was_recorded(extractor: FeatureExtractor, folder: Path) -> None:
    record = record_of(extractor)
    recorded = RecordedBackbone(record, folder, CPU)
    assert difference(recorded, record) is None
    for name in ("name", "weights_sha256", "out_indices", "channels", "strides", "mean", "std"):
        assert getattr(recorded, name) == getattr(extractor, name)
    assert recorded.nbytes == sum(tensor.nbytes for tensor in weights().state.values())


def test_it_fits_bundles_with_its_weights_and_stages(tiny_bundle_store: Path) -> None:
    manifest = read_manifest(resolve(tiny_bundle_store, "tiny"))
    recorded = RecordedBackbone(manifest.backbone, tiny_bundle_store / BACKBONES, CPU)
    assert fits(recorded, manifest)
    other = manifest.backbone.model_copy(update={"out_indices": [0, 1]})
    assert not fits(recorded, manifest.model_copy(update={"backbone": other}))


def test_weights_that_are_nowhere_are_missed_at_once(extractor: FeatureExtractor, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights with digest"):
        RecordedBackbone(record_of(extractor), tmp_path, CPU)


_LOAD = """
import sys
from pathlib import Path
import torch
import app.main
from flows.fastflow.detector import Detector
from flows.fastflow.engines import pick_engine
from flows.fastflow.images import read

bundle, cache, picture = map(Path, sys.argv[1:])
engine = pick_engine("float32", torch.device("cpu"), "openvino", cache)
detector = Detector.load(bundle, device="cpu", engine=engine)
score = detector.predict([read(picture)])[0].score
print(score, *(name for name in ("timm", "torch._dynamo") if name in sys.modules))
"""


def test_a_server_that_kept_it_compiled_does_without_timm(tiny: Path, tmp_path: Path) -> None:
    """Nor does it import torch's compiler: each takes a second and more, of every start."""

    def start() -> list[str]:
        paths = map(str, (tiny, tmp_path / "cache", tiny / "golden/0.png"))
        command = [sys.executable, "-c", _LOAD, *paths]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    first, second = start(), start()
    assert first[1:] == ["timm", "torch._dynamo"]
    assert second == first[:1]
