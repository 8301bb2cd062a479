from pathlib import Path

import pytest

from app.registry.model_cache import ModelCache
from flows.fastflow.bundle import models_folder
from flows.fastflow.detector import Detector


def names(memory: ModelCache) -> set[str]:
    return {category for category, _ in memory.nbytes_by_model()}


def room_for(heads: int, detector: Detector) -> int:
    return detector.scorer.backbone_nbytes + heads * detector.nbytes


def used(memory: ModelCache, names: str, detector: Detector) -> None:
    for name in names:
        memory.put((name, "1"), detector)


def test_shared_backbone_counts_once(tiny_bundle_store: Path, detector: Detector) -> None:
    memory = ModelCache(2**31)
    used(memory, "ab", detector)
    assert memory.nbytes == room_for(2, detector)
    assert set(memory.nbytes_by_model().values()) == {detector.nbytes}
    other = Detector.load(models_folder.resolve(tiny_bundle_store, "tiny"), device="cpu")
    used(memory, "c", other)
    assert memory.nbytes == room_for(2, detector) + room_for(1, other)
    for name in "abc":
        memory.drop((name, "1"))
    memory.drop(("a", "1"))
    assert memory.nbytes == 0


def test_least_recently_used_models_are_dropped(detector: Detector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    budget = room_for(2, detector)
    memory = ModelCache(budget)
    used(memory, "ab", detector)
    memory.get(("a", "1"))
    used(memory, "c", detector)
    assert names(memory) == {"a", "c"}
    assert [r.getMessage() for r in caplog.records if r.name == "flowgauge.memory"] == [
        f"unloaded b/1 because of FLOWGAUGE_MODEL_BYTES={budget}"
    ]


def test_single_model_may_exceed_the_budget(detector: Detector) -> None:
    memory = ModelCache(1)
    used(memory, "a", detector)
    assert names(memory) == {"a"}
