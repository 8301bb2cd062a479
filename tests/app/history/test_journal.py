import logging
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.history.journal import Journal, JournalFull, Record

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
    return sorted(folder.iterdir())


def test_records_come_out_as_they_went_in_and_in_order(folder: Path) -> None:
    journal = Journal(folder, MANY)
    records = [record(n) for n in range(20)] + [Record(b"", b"", b"")]
    for each in records:
        journal.append(each)
    assert read_all(journal) == records
    assert journal.backlog == 0
    journal.close()


def test_an_empty_journal_has_nothing_to_read_and_no_file(folder: Path) -> None:
    journal = Journal(folder, MANY)
    assert journal.read(MANY, 10) == []
    assert files(folder) == []
    journal.close()


def test_what_is_dropped_leaves_no_file(folder: Path) -> None:
    journal = Journal(folder, MANY)
    for n in range(3):
        journal.append(record(n))
        read_all(journal)
        assert files(folder) == []
    journal.append(record(4))
    assert len(files(folder)) == 1
    journal.close()


def test_what_was_read_and_not_dropped_is_read_again(folder: Path) -> None:
    journal = Journal(folder, MANY)
    records = [record(n) for n in range(3)]
    for each in records:
        journal.append(each)
    assert journal.read(MANY, 2) == records[:2]
    assert journal.read(MANY, 2) == records[:2]
    journal.drop(records[:1])
    assert journal.read(MANY, 9) == records[1:]
    journal.close()


def test_a_batch_is_about_as_large_as_asked_for_and_never_empty(folder: Path) -> None:
    journal = Journal(folder, MANY)
    records = [record(n, size=1000) for n in range(5)]
    for each in records:
        journal.append(each)
    assert journal.read(1, 9) == records[:1]
    assert journal.read(records[0].size + 1, 9) == records[:2]
    assert journal.read(MANY, 3) == records[:3]
    journal.close()


def test_the_backlog_counts_what_waits(folder: Path) -> None:
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


def test_a_segment_is_dropped_while_the_next_is_written(folder: Path) -> None:
    """One thread appends and another reads and drops, over hundreds of segments."""
    journal = Journal(folder, MANY, segment_bytes=600)
    records = [record(n % 50) for n in range(3000)]
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
    assert files(folder) == []
    assert journal.backlog == 0
    journal.close()


@pytest.mark.parametrize("kept_bytes", [1, 3, 4, 20, 35, 36, 37, 100, -1])
def test_a_torn_last_record_is_left_out(
    folder: Path, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole, torn = [record(0), record(1)], record(2)
    [path] = filled(folder, [*whole, torn])
    size = sum(each.size for each in whole) + (kept_bytes if kept_bytes > 0 else torn.size + kept_bytes)
    os.truncate(path, size)
    journal = Journal(folder, MANY)
    later = record(3)
    journal.append(later)
    assert read_all(journal) == [*whole, later]
    assert files(folder) == []
    assert journal.backlog == 0
    assert [(line.levelno, "unfinished" in line.message) for line in caplog.records] == [
        (logging.WARNING, True)
    ]
    journal.close()


def test_a_journal_that_is_one_torn_record_is_empty(folder: Path) -> None:
    [path] = filled(folder, [record(0)])
    os.truncate(path, 10)
    journal = Journal(folder, MANY)
    assert journal.read(MANY, 1) == []
    assert journal.backlog == 0
    assert files(folder) == []
    journal.close()


def test_an_empty_file_of_an_earlier_process_is_removed(folder: Path) -> None:
    [path] = filled(folder, [record(0)])
    os.truncate(path, 0)
    journal = Journal(folder, MANY)
    later = record(1)
    journal.append(later)
    assert read_all(journal) == [later]
    assert files(folder) == []
    journal.close()


@pytest.mark.parametrize("offset", [0, 5, 10, 29, 34, 40, 100])
def test_a_damaged_record_is_an_error_and_kept_aside(
    folder: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A bit has turned on the disk; what stands before it is read, and so are other segments."""
    records = [record(n) for n in range(3)]
    [first] = filled(folder, records)
    position = records[0].size + offset
    data = bytearray(first.read_bytes())
    data[position] ^= 0x01
    first.write_bytes(data)
    journal = Journal(folder, MANY)
    later = record(9)
    journal.append(later)
    assert read_all(journal) == [records[0], later]
    assert files(folder) == [f"{first.stem}.damaged"]
    assert (folder / f"{first.stem}.damaged").read_bytes() == data
    assert any(line.levelno == logging.ERROR for line in caplog.records)
    assert journal.backlog == 0
    journal.close()
    assert read_all(Journal(folder, MANY)) == []


def test_a_picture_that_looks_like_a_record_is_never_read_as_one(folder: Path) -> None:
    """Whoever uploads it would write into the history: after damage, nothing is searched for a beginning."""
    forged = record(666).encode()
    records = [Record(b"{}", forged + bytes(100), b""), record(1)]
    [path] = filled(folder, records)
    os.truncate(path, records[0].size - 50)
    assert read_all(Journal(folder, MANY)) == []


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.journal").write_text("mine")
    (folder / "1.journal").write_text("mine")
    journal = Journal(folder, MANY)
    journal.append(record(0))
    assert len(read_all(journal)) == 1
    assert files(folder) == ["1.journal", "notes.journal"]
    journal.close()


def test_the_limit_holds_for_what_waits(folder: Path) -> None:
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


def test_a_disk_without_spare_room_is_full(folder: Path) -> None:
    journal = Journal(folder, 2**62)
    with pytest.raises(JournalFull, match="no room to spare"):
        journal.expect_room(2**60)
    journal.close()


@pytest.fixture
def limit_files() -> Iterator[None]:
    """Let no file grow beyond 2000 bytes: writes end short, and then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_that_the_disk_cuts_off_is_taken_back(folder: Path, limit_files: None) -> None:
    journal = Journal(folder, MANY)
    first, second = record(1, size=800), record(2, size=900)
    journal.append(first)
    for _ in range(3):
        with pytest.raises(JournalFull, match="the disk takes no more"):
            journal.append(record(3, size=1500))
        [path] = folder.iterdir()
        assert path.stat().st_size == first.size
    assert journal.backlog == first.size
    journal.append(second)
    assert read_all(journal) == [first, second]
    with pytest.raises(JournalFull):
        journal.append(record(4, size=3000))
    assert journal.read(MANY, 1) == []
    journal.append(first)
    assert read_all(journal) == [first]
    journal.close()


def test_where_a_cut_record_cannot_be_taken_back_the_next_goes_elsewhere(
    folder: Path, limit_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no")

    journal = Journal(folder, MANY)
    records = [record(1, size=800), record(2, size=900), record(3, size=900)]
    journal.append(records[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(JournalFull):
            journal.append(record(4, size=1500))
    journal.append(records[1])
    journal.close()
    assert len(files(folder)) == 2
    journal = Journal(folder, MANY)
    journal.append(records[2])
    assert read_all(journal) == records
    assert files(folder) == []
    journal.close()


def test_a_folder_that_has_gone_is_full(folder: Path) -> None:
    journal = Journal(folder, MANY)
    folder.rmdir()
    with pytest.raises(JournalFull):
        journal.append(record(0))
    folder.mkdir()
    journal.append(record(1))
    assert len(read_all(journal)) == 1
    journal.close()
