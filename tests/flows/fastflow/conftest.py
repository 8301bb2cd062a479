"""What the tests of the detector share."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.backbones import hub
from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import BACKBONES, resolve
from flows.fastflow.imaging.decoder import decode_image


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes to a hub, nor to what it left in a cache; test_backbones_hub.py has its own."""

    def offline() -> None:
        raise ConnectionError("tests have no hub")

    monkeypatch.setattr(hub, "get_session", offline)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)


@pytest.fixture
def tiny(tiny_bundle_store: Path, tmp_path: Path) -> Path:
    """The bundle of the model "tiny", in a models folder of the test's own."""
    return resolve(shutil.copytree(tiny_bundle_store, tmp_path / "models"), "tiny")


@pytest.fixture(scope="session")
def tiny_extractor(tiny_bundle_store: Path) -> FeatureExtractor:
    """The backbone that the model "tiny" was trained on."""
    recorded = read_manifest(resolve(tiny_bundle_store, "tiny")).backbone
    weights = backbones.find_weights(recorded.name, folder=tiny_bundle_store / BACKBONES)
    return FeatureExtractor(weights, recorded.out_indices)


@pytest.fixture(scope="session")
def tiny_pictures(tiny_images: dict[str, list[bytes]]) -> dict[str, list[NDArray[np.uint8]]]:
    """Images of good and of defective parts that no model has seen, decoded."""
    return {kind: [decode_image(data) for data in files] for kind, files in tiny_images.items()}
