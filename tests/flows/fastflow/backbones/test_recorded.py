"""A backbone that is known by its record, and built when its layers are asked for."""

from pathlib import Path

import pytest
import torch

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.recorded import (
    RecordedBackbone,
    describe_difference,
    matches_manifest,
    record_backbone,
)
from flows.fastflow.backbones.weights import save_weights
from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.bundle.models_folder import BACKBONES, resolve
from tests.flows.fastflow.untrained import NAME, weights

CPU = torch.device("cpu")
SIZE = (64, 64)


@pytest.fixture
def extractor() -> FeatureExtractor:
    return FeatureExtractor(weights(), (1, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(weights(), tmp_path)
    return tmp_path


@pytest.fixture
def recorded(extractor: FeatureExtractor, folder: Path) -> RecordedBackbone:
    return RecordedBackbone(record_backbone(extractor), SIZE, folder, CPU)


class TestLayers:
    def test_they_are_those_of_its_weights(
        self, extractor: FeatureExtractor, recorded: RecordedBackbone
    ) -> None:
        images = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8)
        for found, expected in zip(recorded.layers()(images), extractor(images), strict=True):
            assert torch.equal(found, expected)

    @pytest.mark.parametrize(
        "values",
        [{"channels": [24, 32]}, {"strides": [8, 32]}, {"mean": [0.4] * 3}, {"std": [0.4] * 3}],
        ids=lambda values: next(iter(values)),
    )
    def test_others_than_were_recorded_are_rejected(
        self, extractor: FeatureExtractor, folder: Path, values: dict[str, list[float]]
    ) -> None:
        record = record_backbone(extractor).model_copy(update=values)
        recorded = RecordedBackbone(record, SIZE, folder, CPU)
        [what] = values
        for _ in range(2):
            with pytest.raises(BundleError, match=f"{what} of {NAME} were .* another version of timm"):
                recorded.layers()
        assert describe_difference(recorded, record) is None
        assert str(describe_difference(extractor, record)).startswith(what)


def test_it_fits_bundles_with_its_weights_stages_and_size(tiny_bundle_store: Path) -> None:
    manifest = read_manifest(resolve(tiny_bundle_store, "tiny"))
    weights = tiny_bundle_store / BACKBONES
    recorded = RecordedBackbone(manifest.backbone, manifest.input_size, weights, CPU)
    assert matches_manifest(recorded, manifest)
    other = manifest.backbone.model_copy(update={"out_indices": [0, 1]})
    assert not matches_manifest(recorded, manifest.model_copy(update={"backbone": other}))
    assert not matches_manifest(recorded, manifest.model_copy(update={"input_size": (96, 96)}))
