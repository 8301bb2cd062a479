import errno
import json
import logging
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from app.history.journal import Journal, JournalFull
from app.history.journal_record import HistoryEntry, JournalRecord, decode_records
from app.registry.free_disk import MIN_FREE_BYTES
from tests.app.support.full_disk import limit_file_size

MANY = 2**40


def record(number: int, size: int = 100) -> JournalRecord:
    return HistoryEntry({"id": f"{number:04}"}, os.urandom(size), np.full((2, 3), number)).record()


def size_of(*records: JournalRecord) -> int:
    return sum(len(one.encode()) for one in records)


def read_all(journal: Journal) -> list[JournalRecord]:
    found = []
    while records := journal.read():
        found += records
        journal.drop()
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.stat().st_size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def filled(folder: Path, *records: JournalRecord, file_bytes: int = MANY) -> Journal:
    journal = Journal(folder, MANY, file_bytes)
    for each in records:
        journal.append(each)
    return journal


def left(folder: Path, *records: JournalRecord) -> Path:
    journal = filled(folder, *records)
    journal.close()
    return max(folder.glob("*.journal"))


def test_record_has_the_columns_of_the_database() -> None:
    scores = np.array([[1e9, -1e9, 0.5]])
    made = HistoryEntry({"id": "i", "features": [1.0, 2.0]}, b"image", scores).record()
    assert made.image == b"image"
    # Scores beyond half precision are clipped.
    assert np.frombuffer(made.score_map[-6:], np.float16).tolist() == [65504.0, -65504.0, 0.5]
    assert {name: value for name, value in made.row.items() if value is not None} == {
        "id": "i",
        "features": json.dumps([1.0, 2.0]),
        "image_bytes": 5,
        "map_bytes": len(made.score_map),
        "has_pictures": True,
        "review_revision": 0,
    }


ADDED: dict[str, object] = {"audit": False, "warnings": [], "file_name": None, "margin": None}


def test_record_of_an_earlier_version_is_completed() -> None:
    old = JournalRecord({"id": "i"}, b"image", b"map")
    assert decode_records(old.encode()).records == [old._replace(row={"id": "i", **ADDED})]


def test_empty_file_of_killed_process_is_removed(folder: Path) -> None:
    for _ in range(2):
        Journal(folder, MANY)  # killed: never closed
    Journal(folder, MANY).close()
    assert list(folder.iterdir()) == []


def test_records_are_read_in_order_and_files_deleted(folder: Path) -> None:
    journal = Journal(folder, MANY)
    assert journal.read() == []
    records = [*(record(n) for n in range(20)), JournalRecord({**ADDED}, b"", b"")]
    for each in records:
        journal.append(each)
    assert read_all(journal) == records
    assert journal.backlog == 0
    journal.close()
    assert list(folder.iterdir()) == []


def test_records_are_read_again_until_dropped(folder: Path) -> None:
    records = [record(n) for n in range(4)]
    journal = filled(folder, *records[:3])
    assert journal.read() == records[:3]
    journal.append(records[3])
    assert journal.read() == records[:3]
    assert (journal.appended, journal.dropped, journal.backlog) == (size_of(*records), 0, size_of(*records))
    journal.drop()
    assert (journal.dropped, journal.backlog) == (size_of(*records[:3]), size_of(records[3]))
    assert journal.read() == records[3:]
    journal.close()
    assert Journal(folder, MANY).backlog == size_of(records[3])


@pytest.mark.parametrize(("file_bytes", "count"), [(1, 9), (2 * size_of(record(0)), 5), (MANY, 1)])
def test_next_process_reads_left_over_records(folder: Path, file_bytes: int, count: int) -> None:
    records = [record(n) for n in range(9)]
    filled(folder, *records, file_bytes=file_bytes)  # and killed
    assert len(files(folder)) == count
    journal = Journal(folder, MANY)
    journal.append(record(10))
    assert [one.row["id"] for one in read_all(journal)] == [*(one.row["id"] for one in records), "0010"]
    journal.close()
    assert list(folder.iterdir()) == []


def test_files_are_dropped_while_the_next_is_written(folder: Path) -> None:
    journal = Journal(folder, MANY, file_bytes=1200)
    records = [record(n) for n in range(1500)]
    found: list[JournalRecord] = []

    def take() -> None:
        while len(found) < len(records):
            found.extend(read_all(journal))

    taker = threading.Thread(target=take)
    taker.start()
    for each in records:
        journal.append(each)
    taker.join(60)
    assert found == records
    assert (journal.backlog, files(folder)) == (0, [])


@pytest.mark.parametrize("kept_bytes", [0, 1, 35, 36, 100, -1])
@pytest.mark.parametrize("whole", [0, 2])
def test_truncated_last_record_is_skipped(
    folder: Path, whole: int, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    records, torn = [record(n) for n in range(whole)], record(2)
    path = left(folder, *records, torn)
    os.truncate(path, size_of(*records) + kept_bytes % size_of(torn))
    journal = Journal(folder, MANY)
    later = record(3)
    journal.append(later)
    assert read_all(journal) == [*records, later]
    assert (journal.backlog, files(folder)) == (0, [])
    logged = [(line.levelno, "unfinished" in line.message) for line in caplog.records]
    assert logged == ([(logging.WARNING, True)] if kept_bytes else [])


@pytest.mark.parametrize("offset", [0, 5, 12, 20, 30, 34, 36, 100, -1])
def test_damaged_record_and_rest_of_file_are_set_aside(
    folder: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Records before the damage and in other files are read."""
    records = [record(n) for n in range(4)]
    path = left(folder, *records)
    begin = size_of(records[0])
    data = bytearray(path.read_bytes())
    data[begin + offset % size_of(records[1])] ^= 0x01
    path.write_bytes(data)
    other = record(7)
    left(folder, other)
    journal = Journal(folder, MANY)
    assert journal.read() == journal.read() == records[:1]
    assert read_all(journal) == [records[0], other]
    assert files(folder) == [f"{path.stem}.damaged"]
    assert path.with_suffix(".damaged").read_bytes() == data[begin:]
    assert [line.levelno for line in caplog.records] == [logging.ERROR]
    assert journal.backlog == 0
    journal.close()
    assert Journal(folder, MANY).read() == []
    assert left(folder, record(0)) != path  # or the next damage would be kept under its name


def test_limit_holds_for_waiting_records(folder: Path) -> None:
    one = record(5)
    journal = Journal(folder, 2 * size_of(one))
    journal.append(one)
    assert journal.read() == [one]
    journal.append(one)
    with pytest.raises(JournalFull, match=f"the limit is {2 * size_of(one)}"):
        journal.append(one)
    with pytest.raises(JournalFull):
        journal.require_room(1)
    journal.drop()
    journal.require_room(size_of(one))
    journal.append(one)
    assert read_all(journal) == [one, one]


def test_disk_room_is_left_for_the_database(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(folder, MANY)
    free = list(os.statvfs(folder))
    free[:2], free[4] = [1, 1], MIN_FREE_BYTES + 99  # block sizes, and blocks that are free
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(free))
    journal.require_room(99)
    with pytest.raises(JournalFull, match="no room to spare"):
        journal.require_room(100)


@limit_file_size(4000)
def test_truncated_write_is_taken_back(folder: Path) -> None:
    first, second = record(1, size=300), record(2, size=400)
    journal = filled(folder, first)
    for _ in range(3):
        with pytest.raises(JournalFull, match="the disk takes no more"):
            journal.append(record(3, size=3500))
        assert max(path.stat().st_size for path in folder.iterdir()) == size_of(first)
        assert journal.refused
    assert journal.backlog == size_of(first)
    journal.append(second)
    assert not journal.refused
    assert read_all(journal) == [first, second]


def test_file_that_fails_to_close_is_still_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close

    def fail(file: int) -> None:
        close(file)
        raise OSError(errno.EIO, "a share that has lost something")

    journal = Journal(folder, MANY)
    first, second = record(1), record(2)
    journal.append(first)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        with pytest.raises(OSError, match="a share"):
            journal.read()
    journal.append(second)
    assert read_all(journal) == [first, second]
    assert journal.backlog == 0


def test_removed_folder_refuses_records(folder: Path) -> None:
    journal = Journal(folder, MANY)
    shutil.rmtree(folder)
    with pytest.raises(JournalFull):
        journal.append(record(0))
    folder.mkdir()
    with pytest.raises(JournalFull):  # into the file that nobody finds again
        journal.append(record(1))
