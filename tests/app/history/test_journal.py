import logging
import os
import threading
from pathlib import Path

import pytest

from app.free_disk import SPARE_BYTES
from app.history.journal import Journal, JournalFull
from app.history.record import Record
from tests.app.full_disk import files_of_at_most

MANY = 2**40


def record(number: int, size: int = 100) -> Record:
    return Record(b'{"n": %d}' % number, os.urandom(size), b"map" * number)


def read_all(journal: Journal) -> list[Record]:
    found = []
    while records := journal.read(MANY, 7):
        found += records
        journal.drop(records)
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def filled(folder: Path, records: list[Record], segment_bytes: int = MANY) -> list[Path]:
    """The files of a process that has appended records and was killed."""
    journal = Journal(folder, MANY, segment_bytes)
    for each in records:
        journal.append(each)
    journal.close()
    return sorted(folder.glob("*.journal"))


def test_records_come_out_in_order_and_leave_no_file(folder: Path) -> None:
    journal = Journal(folder, MANY)
    assert journal.read(MANY, 10) == []
    records = [record(n) for n in range(20)] + [Record(b"", b"", b"")]
    for each in records:
        journal.append(each)
    assert len(files(folder)) == 1
    assert read_all(journal) == records
    assert (journal.backlog, files(folder)) == (0, [])
    journal.close()


def test_batch_is_about_as_large_as_asked_for_and_read_again_until_dropped(folder: Path) -> None:
    journal = Journal(folder, MANY)
    records = [record(n, size=1000) for n in range(5)]
    for each in records:
        journal.append(each)
    assert journal.read(1, 9) == records[:1]
    assert journal.read(records[0].size + 1, 9) == records[:2]
    assert journal.read(MANY, 3) == records[:3]
    journal.drop(records[:1])
    assert journal.read(MANY, 9) == records[1:]
    journal.close()


def test_backlog_counts_what_waits(folder: Path) -> None:
    journal = Journal(folder, MANY)
    records = [record(n) for n in range(3)]
    ends = [journal.append(each) for each in records]
    assert journal.backlog == sum(each.size for each in records) == ends[-1]
    journal.drop(journal.read(MANY, 1))
    assert journal.dropped == ends[0]
    assert journal.backlog == ends[-1] - ends[0]
    journal.close()
    assert Journal(folder, MANY).backlog == ends[-1]


@pytest.mark.parametrize("segment_bytes", [1, 500, MANY])
def test_another_process_reads_what_was_left(folder: Path, segment_bytes: int) -> None:
    records = [record(n) for n in range(9)]
    filled(folder, records, segment_bytes)
    journal = Journal(folder, MANY, segment_bytes)
    later = record(10)
    journal.append(later)
    assert read_all(journal) == [*records, later]
    assert files(folder) == []
    journal.close()


def test_segments_are_dropped_while_the_next_is_written(folder: Path) -> None:
    """One thread appends and another reads and drops, over hundreds of segments."""
    journal = Journal(folder, MANY, segment_bytes=600)
    records = [record(n % 50) for n in range(1500)]
    found: list[Record] = []

    def take() -> None:
        while len(found) < len(records):
            some = journal.read(2000, 10)
            found.extend(some)
            if some:
                journal.drop(some)

    taker = threading.Thread(target=take)
    taker.start()
    for each in records:
        journal.append(each)
    taker.join(60)
    assert found == records
    assert (journal.backlog, files(folder)) == (0, [])
    journal.close()


@pytest.mark.parametrize("kept_bytes", [0, 1, 4, 20, 35, 36, 100, -1])
@pytest.mark.parametrize("whole", [0, 2])
def test_torn_last_record_is_left_out(
    folder: Path, whole: int, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    records, torn = [record(n) for n in range(whole)], record(2)
    [path] = filled(folder, [*records, torn])
    size = sum(each.size for each in records) + (kept_bytes if kept_bytes >= 0 else torn.size + kept_bytes)
    os.truncate(path, size)
    journal = Journal(folder, MANY)
    later = record(3)
    journal.append(later)
    assert read_all(journal) == [*records, later]
    assert (journal.backlog, files(folder)) == (0, [])
    told = [(line.levelno, "unfinished" in line.message) for line in caplog.records]
    assert told == ([(logging.WARNING, True)] if kept_bytes else [])
    journal.close()


@pytest.mark.parametrize("offset", [0, 5, 30, 34, 36, 40, 48, 100])
def test_damaged_record_and_what_follows_in_its_file_are_kept_aside(
    folder: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before it and in other files is read, wherever it is damaged."""
    records = [record(n) for n in range(4)]
    [path] = filled(folder, records)
    begin = records[0].size
    data = bytearray(path.read_bytes())
    data[begin + offset] ^= 0x01
    path.write_bytes(data)
    other = record(7)
    filled(folder, [other])
    journal = Journal(folder, MANY)
    assert read_all(journal) == [records[0], other]
    [kept] = files(folder)
    assert kept == f"{path.stem}-{begin:012}.damaged"
    assert (folder / kept).read_bytes() == data[begin:]
    assert [line.levelno for line in caplog.records] == [logging.ERROR]
    assert journal.backlog == 0
    assert filled(folder, [record(0)]) != [path]  # or the next damage would be kept under its name
    journal.close()


def test_damage_in_the_file_being_written_loses_nothing_that_is_appended_then(folder: Path) -> None:
    journal = Journal(folder, MANY)
    journal.append(record(1))
    [path] = folder.iterdir()
    with path.open("r+b") as file:
        file.seek(60)
        file.write(b"damage")
    assert journal.read(MANY, 1) == []
    second = record(2)
    journal.append(second)
    assert read_all(journal) == [second]
    journal.close()


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    for name in ("notes.journal", "1.journal"):
        (folder / name).write_text("mine")
    journal = Journal(folder, MANY)
    journal.append(record(0))
    assert len(read_all(journal)) == 1
    assert files(folder) == ["1.journal", "notes.journal"]
    journal.close()


def test_limit_holds_for_what_waits(folder: Path) -> None:
    one = record(5)
    journal = Journal(folder, 2 * one.size)
    journal.append(one)
    journal.append(one)
    with pytest.raises(JournalFull, match=f"the limit is {2 * one.size}"):
        journal.append(one)
    with pytest.raises(JournalFull):
        journal.expect_room(1)
    journal.drop(journal.read(MANY, 1))
    journal.expect_room(one.size)
    journal.append(one)
    assert read_all(journal) == [one, one]
    journal.close()


def test_room_is_left_on_the_disk_for_filing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(folder, MANY)
    left = list(os.statvfs(folder))
    left[:2], left[4] = [1, 1], SPARE_BYTES + 99  # block sizes, and blocks that are free
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(left))
    journal.expect_room(99)
    with pytest.raises(JournalFull, match="no room to spare"):
        journal.expect_room(100)
    journal.close()


def test_record_that_can_never_be_filed_is_kept_whole(folder: Path) -> None:
    journal = Journal(folder, MANY)
    records = [record(number) for number in range(3)]
    for each in records:
        journal.append(each)
    journal.drop(journal.read(MANY, 1))
    kept = journal.set_aside(journal.read(MANY, 2)[0])
    assert kept.read_bytes() == records[1].encode()
    assert read_all(journal) == records[2:]
    assert files(folder) == [kept.name]
    journal.close()


@files_of_at_most(2000)
def test_record_that_the_disk_cuts_off_is_taken_back(folder: Path) -> None:
    journal = Journal(folder, MANY)
    first, second = record(1, size=800), record(2, size=900)
    journal.append(first)
    for _ in range(3):
        with pytest.raises(JournalFull, match="the disk takes no more"):
            journal.append(record(3, size=1500))
        [path] = folder.iterdir()
        assert path.stat().st_size == first.size
        assert journal.refused
    assert journal.backlog == first.size
    journal.append(second)
    assert not journal.refused
    assert read_all(journal) == [first, second]
    journal.close()


def test_folder_that_has_gone_is_full(folder: Path) -> None:
    journal = Journal(folder, MANY)
    folder.rmdir()
    with pytest.raises(JournalFull):
        journal.append(record(0))
    folder.mkdir()
    journal.append(record(1))
    assert len(read_all(journal)) == 1
    journal.close()
