"""A published model for tests."""

from pathlib import Path

import pytest

from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.detector import Detector


@pytest.fixture(scope="module")
def bundle(tiny_bundle_store: Path) -> Path:
    return resolve(tiny_bundle_store, "tiny")


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return Detector.load(bundle, device="cpu")
