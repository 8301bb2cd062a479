import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.auth.permissions import ANONYMOUS
from app.database.engine import Database
from app.history import reviewed_images, reviews, training_set
from app.history.inspection_files import InspectionFiles
from app.history.reviewed_images import ReviewedInspection, find_images, find_images_of_parts
from app.http.responses import PIECE_BYTES
from app.schemas.history import Verdict
from flows.fastflow.calibration.images_per_part import number_parts
from tests.app.history.rows import add, row, store_files
from training.data import layout

AT = 1_790_000_000_000


class Kept:
    """Rows and files of a history, and its archive."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.files = InspectionFiles(folder)
        self.files.open()

    def add(self, image: bytes, *verdicts: Verdict, **columns: Any) -> str:
        one = row(AT, image, **columns)
        if one["has_pictures"]:
            store_files(self.files, one["image_sha256"], image, one["id"])
        [identifier] = add(self.database, one)
        for revision, verdict in enumerate(verdicts):
            reviews.add_review(self.database, ANONYMOUS, identifier, verdict, revision)
        return identifier

    def names(self) -> list[str]:
        return [one.inspection_id for one in find_images(self.database, "tiny")]

    def archive(self) -> zipfile.ZipFile:
        chosen = find_images(self.database, "tiny")
        return zipfile.ZipFile(io.BytesIO(b"".join(training_set.pack_archive(chosen, self.files, "tiny"))))


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path / "history")


def test_set_has_images_with_latest_review_good(kept: Kept) -> None:
    good = kept.add(b"a", "good")
    changed = kept.add(b"b", "defect", "good")
    kept.add(b"c", "good", "defect")
    kept.add(b"d")
    kept.add(b"e", "good", category="other")
    assert kept.names() == [good, changed]


def test_images_can_be_limited_to_station_and_time(kept: Kept) -> None:
    third = kept.add(b"a", "good", station="line-3")
    kept.add(b"b", "good", station="line-4")
    kept.add(b"c", "good")

    def found(**chosen: Any) -> list[str]:
        return [one.inspection_id for one in find_images(kept.database, "tiny", **chosen)]

    assert found(station="line-3") == [third]
    assert found(station="line-5") == []
    assert len(found(since_ms=AT - 1)) == 3
    assert found(since_ms=AT + 60_000) == []


def test_archive_pieces_have_limited_size(kept: Kept) -> None:
    image = bytes(range(256)) * 1000
    identifier = kept.add(image, "good")
    chosen = find_images(kept.database, "tiny")
    pieces = list(training_set.pack_archive(chosen, kept.files, "tiny"))
    assert max(map(len, pieces)) <= PIECE_BYTES < len(image)
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as file:
        assert file.read(f"tiny/train/good/{identifier}.tif") == image


def test_repeated_image_is_included_once(kept: Kept) -> None:
    first = kept.add(b"same", "good")
    kept.add(b"same", "good")
    assert kept.names() == [first]


def test_image_also_reviewed_as_defect_is_left_out(kept: Kept) -> None:
    kept.add(b"same", "good")
    kept.add(b"same", "defect")
    other_part = kept.add(b"other", "good")
    kept.add(b"other", "defect", category="other")
    assert kept.names() == [other_part]


def test_part_id_may_come_from_any_inspection_of_the_image(kept: Kept) -> None:
    kept.add(b"same", "good")
    kept.add(b"same", part_id="P1")
    kept.add(b"same", part_id="of another category", category="other")
    kept.add(b"else", "good")
    found = find_images(kept.database, "tiny")
    assert [one.part_id for one in found] == ["P1", None]


def test_images_of_parts_have_any_station_and_verdict(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewed_images, "_PAGE", 2)
    for i, part in enumerate(["a", "a", "b", "c", "d", None]):
        identifier = kept.add(b"%d" % i, part_id=part, station=f"cam-{i}")
        if i % 2:
            reviews.add_review(kept.database, ANONYMOUS, identifier, "good", 0)
    kept.add(b"0", "defect", part_id="a")
    kept.add(b"9", "good", part_id="a", category="other")
    images = [ReviewedInspection("", 0, "", part) for part in ("a", "b", "c", None)]
    found = find_images_of_parts(kept.database, "tiny", images)
    hashes = [row(AT, b"%d" % i)["image_sha256"] for i in range(4)]
    assert found == {"a": {*hashes[:2]}, "b": {hashes[2]}, "c": {hashes[3]}}


def test_all_pages_are_read(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewed_images, "_PAGE", 3)
    ids = [kept.add(b"%d" % i, "good") for i in range(9)]
    assert kept.names() == ids


def test_newest_images_may_come_first(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewed_images, "_PAGE", 3)
    ids = [kept.add(b"%d" % i, "defect") for i in range(9)]
    found = find_images(kept.database, "tiny", "defect", newest_first=True, since_ms=AT - 1)
    assert [one.inspection_id for one in found] == ids[::-1]
    assert not [*find_images(kept.database, "tiny", "defect", newest_first=True, since_ms=AT + 60_000)]


def test_training_reads_the_archive(kept: Kept, tiny_images: dict[str, list[bytes]], tmp_path: Path) -> None:
    ids = [kept.add(image, "good") for image in tiny_images["good"]]
    with kept.archive() as file:
        assert file.testzip() is None
        assert [info.date_time for info in file.infolist()] == [
            tuple(datetime.fromtimestamp(AT // 1000 // 2 * 2, UTC).timetuple()[:6])
        ] * len(ids)
        file.extractall(tmp_path / "data")
    found = layout.train_images(tmp_path / "data", "tiny")
    assert [path.stem for path in found] == ids
    assert [path.read_bytes() for path in found] == tiny_images["good"]


def test_archive_names_images_of_one_part(kept: Kept, tmp_path: Path) -> None:
    for image, part in enumerate(["../a\n", "b", "../a\n", None, "b", None]):
        kept.add(b"%d" % image, "good", part_id=part)
    with kept.archive() as file:
        file.extractall(tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").rglob("*.txt")) == ["parts.txt"]
    found = layout.train_images(tmp_path / "data", "tiny")
    own = found[0].with_name("0123456789abcdef.png")
    names = [path.name for path in sorted(found, key=Path.read_bytes)] + [own.name, "good_1.png"]
    assert number_parts(names, tmp_path / "data/tiny").tolist() == [0, 1, 0, 2, 1, 3, 4, 5]


def test_missing_file_is_logged_and_skipped(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    damaged, whole = kept.add(b"a", "good"), kept.add(b"b", "good")
    kept.files.image_path(row(AT, b"a")["image_sha256"]).unlink()
    with kept.archive() as archive:
        assert archive.namelist() == [f"tiny/train/good/{whole}.tif"]
    assert damaged in caplog.text
