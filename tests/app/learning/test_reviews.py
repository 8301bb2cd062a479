"""The reviewed images that a version can learn from."""

from pathlib import Path
from typing import Any

import pytest

from app.errors.problems import Problem
from app.history.history import History
from app.learning import reviews
from app.learning.reviews import LearningSet, find_learning_set
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import read_manifest
from tests.app.history.rows import add, row, store_files


class Reviewed:
    """A history with reviewed images."""

    def __init__(self, history: History, models: Path) -> None:
        self.history, self.models = history, models
        self.manifest = read_manifest(models_folder.resolve(models, "tiny"))
        history.files.open()

    def add(self, image: bytes, verdict: str = "defect", **columns: Any) -> str:
        one = row(image=image, verdict=verdict, **columns)
        store_files(self.history.files, one["image_sha256"], image, one["id"])
        [identifier] = add(self.history.database, one)
        return identifier

    def find(self, since_ms: int = 0) -> LearningSet:
        return find_learning_set(self.history, self.models, self.manifest, since_ms)

    def names(self, verdict: str = "defect") -> list[str]:
        found = self.find()
        return [image.inspection_id for image in (found.defects if verdict == "defect" else found.good)]


@pytest.fixture
def reviewed(history: History, tiny_bundle_store: Path) -> Reviewed:
    return Reviewed(history, tiny_bundle_store)


def test_repeated_and_contradicted_images_are_left_out(reviewed: Reviewed) -> None:
    reviewed.add(b"a")
    latest = reviewed.add(b"a")
    reviewed.add(b"b")
    reviewed.add(b"b", "good")
    reviewed.add(b"c", category="other")
    assert reviewed.names() == [latest]
    assert reviewed.names("good") == []
    assert reviewed.find().left_out == 2


def test_one_image_of_each_part_is_taken(reviewed: Reviewed) -> None:
    made = {reviewed.add(data, part_id="P-1") for data in (b"a", b"b", b"c")}
    other = reviewed.add(b"d", part_id="P-2")
    names = reviewed.names()
    assert len(names) == 2
    assert set(names) < {*made, other}
    assert reviewed.find().left_out == 2


def test_parts_that_the_version_knows_are_left_out(reviewed: Reviewed, tiny_data: Path) -> None:
    fitted = next((tiny_data / "tiny/train/good").glob("*.png")).read_bytes()
    reviewed.add(fitted)
    reviewed.add(b"another image of the part", part_id="P-1")
    reviewed.add(fitted, "good", part_id="P-1", category="tiny", audit=True)
    assert reviewed.names() == []


def test_good_images_of_the_audit_sample_stay_for_calibrations(reviewed: Reviewed) -> None:
    reviewed.add(b"a", "good", audit=True)
    plain = reviewed.add(b"b", "good")
    drawn = reviewed.add(b"c", audit=True)
    assert (reviewed.names("good"), reviewed.names()) == ([plain], [drawn])
    reviewed.add(b"d", "good", part_id="P-1")
    reviewed.add(b"e", "", part_id="P-1", audit=True)  # a calibration would leave it out if P-1 were learned
    assert reviewed.names("good") == [plain]


def test_deleted_images_are_counted(reviewed: Reviewed, tmp_path: Path) -> None:
    for i in range(5):
        reviewed.add(b"%d" % i, has_pictures=i > 1)
    found = reviewed.find()
    assert (len(found.defects), found.left_out) == (3, 2)
    assert found.obstacle is not None
    name, detail = found.obstacle
    assert name == "too-few-defects"
    assert "there are 3. Others that cannot be used: 2." in detail
    for image in found.defects:
        reviewed.history.files.image_path(image.sha256).unlink()
    assert reviewed.find().left_out == 5
    with pytest.raises(Problem, match=r"The image of inspection \S+ was deleted"):
        found.write(reviewed.history.files, tmp_path)


def test_latest_images_are_taken(reviewed: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "MAX_IMAGES", 6)
    made = [reviewed.add(b"%d" % i) for i in range(8)]
    found = reviewed.find()
    assert [image.inspection_id for image in found.defects] == made[:1:-1]
    assert (found.left_out, found.obstacle) == (2, None)
    assert found.since_ms is not None
    assert reviewed.find(found.since_ms + 60_000).since_ms is None


def test_versions_without_descriptions_cannot_learn(reviewed: Reviewed) -> None:
    manifest = reviewed.manifest
    files = {name: digest for name, digest in manifest.files.items() if not name.startswith("learning/")}
    reviewed.manifest = manifest.model_copy(update={"files": files})
    assert reviewed.find().obstacle == (
        "no-descriptions",
        f"tiny/{manifest.version} has no descriptions of its good images; train it again",
    )
