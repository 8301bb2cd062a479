from app.database.engine import Database
from app.history.inspection_files import image_name, map_name
from app.history.orphans import find_orphans, find_unused_images
from tests.app.history.rows import add, row


def test_orphaned_files_are_found_among_many(database: Database) -> None:
    kept, gone = [row() for _ in range(1200)], row()
    add(database, *kept, row(has_pictures=False, image=b"deleted before"))
    files = [image_name(one["image_sha256"]) for one in (*kept, gone)]
    maps = [map_name(one["id"]) for one in (*kept, gone)]
    assert find_orphans(database, [*files, *maps]) == [files[-1], maps[-1]]
    deleted = row(image=b"deleted before")["image_sha256"]
    with database.read() as connection:
        assert find_unused_images(connection, {deleted, kept[0]["image_sha256"]}) == [deleted]
