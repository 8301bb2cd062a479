"""Files that no inspection has, among more than one query asks about."""

from pathlib import Path

from app.database.engine import Database
from app.history.inspection_files import InspectionFiles
from app.history.orphans import find_orphans, find_unused_images
from tests.app.history.rows import add, row


def test_of_many_files_those_without_an_inspection_are_found(database: Database, tmp_path: Path) -> None:
    pictures = InspectionFiles(tmp_path)
    kept, gone = [row() for _ in range(1200)], row()
    add(database, *kept, row(has_pictures=False, picture=b"deleted before"))
    files = [pictures.picture_path(one["image_sha256"]) for one in (*kept, gone)]
    maps = [pictures.map_path(one["id"]) for one in (*kept, gone)]
    assert find_orphans(database, pictures, [*files, *maps]) == [files[-1], maps[-1]]
    deleted = row(picture=b"deleted before")["image_sha256"]
    with database.read() as connection:
        assert find_unused_images(connection, {deleted, kept[0]["image_sha256"]}) == [deleted]
