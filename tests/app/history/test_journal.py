import errno
import io
import itertools
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.free_disk import SPARE_BYTES
from app.history.journal import Journal, JournalFull
from app.history.record import MARK_BYTES, Record, new_mark
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


@pytest.mark.parametrize("kept_bytes", [1, 3, 4, 11, 12, 20, 35, 43, 44, 45, 100, -1])
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


@pytest.mark.parametrize("kept_bytes", [1, 4, 10, 12, 30, 60])
def test_a_journal_that_is_one_torn_record_is_empty(folder: Path, kept_bytes: int) -> None:
    [path] = filled(folder, [record(0)])
    os.truncate(path, kept_bytes)
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


def damage(path: Path, position: int) -> bytes:
    """Turn a bit on the disk; what the file holds then."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x01
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("offset", [0, 5, 10, 15, 29, 37, 40, 48, 100])
def test_a_damaged_record_is_an_error_and_kept_aside(
    folder: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before it and after it is read, wherever it is damaged."""
    records = [record(n) for n in range(4)]
    [path] = filled(folder, records)
    begin = records[0].size
    data = damage(path, begin + offset)
    journal = Journal(folder, MANY)
    later = record(9)
    journal.append(later)
    assert read_all(journal) == [records[0], records[2], records[3], later]
    [kept] = files(folder)
    assert kept == f"{path.stem}-{begin:012}.damaged"
    assert (folder / kept).read_bytes() == data[begin : begin + records[1].size]
    assert [line.levelno for line in caplog.records] == [logging.ERROR]
    assert journal.backlog == 0
    journal.close()
    assert read_all(Journal(folder, MANY)) == []


def test_several_damaged_records_are_each_kept_aside(folder: Path) -> None:
    records = [record(n) for n in range(6)]
    [path] = filled(folder, records)
    ends = list(itertools.accumulate(each.size for each in records))
    for position in (ends[0], ends[3] + 50, ends[4] + 20):  # the last two stand next to each other
        damage(path, position)
    journal = Journal(folder, MANY)
    assert read_all(journal) == [records[0], records[2], records[3]]
    assert files(folder) == [f"{path.stem}-{end:012}.damaged" for end in (ends[0], ends[3], ends[4])]
    assert journal.backlog == 0


@pytest.mark.parametrize(("position", "written"), [(60, b"damage"), (0, b"X")])  # (0: of the first mark)
def test_damage_in_a_file_that_is_still_written_loses_nothing_that_is_appended_then(
    folder: Path, position: int, written: bytes
) -> None:
    journal = Journal(folder, MANY)
    first, second = record(1), record(2)
    journal.append(first)
    [path] = folder.iterdir()
    with path.open("r+b") as file:
        file.seek(position)
        file.write(written)
    assert journal.read(MANY, 1) == []
    journal.append(second)
    assert read_all(journal) == [second]
    journal.close()


@pytest.mark.parametrize("position", [0, 3, 4, MARK_BYTES - 1])
def test_damage_of_the_first_mark_loses_one_record(folder: Path, position: int) -> None:
    """The file's beginning tells the mark of all; those that follow tell what it was."""
    records = [record(n) for n in range(5)]
    [path] = filled(folder, records)
    data = damage(path, position)
    damage(path, sum(each.size for each in records[:2]) + 50)
    assert read_all(Journal(folder, MANY)) == [records[1], records[3], records[4]]
    kept, _ = files(folder)
    assert kept == f"{path.stem}-{0:012}.damaged"
    assert (folder / kept).read_bytes() == data[: records[0].size]


def test_damage_of_more_of_the_first_mark_gives_up_one_file(folder: Path) -> None:
    """The records after it cannot be told from what somebody has put into a picture."""
    first, *_ = filled(folder, [record(n) for n in range(3)])
    damage(first, 5)
    data = damage(first, 9)
    other = record(7)
    filled(folder, [other])
    assert read_all(Journal(folder, MANY)) == [other]
    assert files(folder) == [f"{first.stem}-{0:012}.damaged"]
    assert (folder / files(folder)[0]).read_bytes() == data


@pytest.mark.parametrize("position", [0, 7])
def test_a_picture_that_looks_like_a_record_does_not_tell_the_mark(folder: Path, position: int) -> None:
    forged = record(666).encode(new_mark())
    following = record(2)
    [path] = filled(folder, [Record(b"{}", forged + bytes(100), b""), following])
    damage(path, position)
    assert read_all(Journal(folder, MANY)) == [following]


def test_a_file_of_zeros_is_damaged(folder: Path) -> None:
    first, *_ = filled(folder, [record(n) for n in range(3)])
    first.write_bytes(bytes(100_000))
    journal = Journal(folder, MANY)
    assert read_all(journal) == []
    assert files(folder) == [f"{first.stem}-{0:012}.damaged"]
    assert journal.backlog == 0


def test_a_file_that_was_cut_off_meanwhile_is_unfinished(folder: Path) -> None:
    [path] = filled(folder, [record(0), record(1)])
    journal = Journal(folder, MANY)
    os.truncate(path, 20)
    assert read_all(journal) == []
    assert journal.backlog == 0


def test_damage_is_never_kept_over_earlier_damage(folder: Path) -> None:
    """The first journal was emptied, and another process has begun a new one."""
    kept = {}
    for _ in range(3):
        *_, path = [path for path in filled(folder, [record(0), record(1)]) if path.suffix == ".journal"]
        damage(path, 50)
        journal = Journal(folder, MANY)
        assert len(read_all(journal)) == 1
        new = [path for path in folder.iterdir() if path not in kept]
        assert len(new) == 1
        kept[new[0]] = new[0].read_bytes()
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.parametrize("kept_bytes", [-50, -200, None])
def test_a_picture_that_looks_like_a_record_is_never_read_as_one(
    folder: Path, kept_bytes: int | None
) -> None:
    """Whoever uploads it would write into the history; but the mark of the file is not known to anybody."""
    forged = record(666).encode(new_mark())
    records = [record(1), Record(b"{}", forged + bytes(100), b""), record(2)]
    [path] = filled(folder, records)
    begin = records[0].size
    damage(path, begin + 20)
    end = sum(each.size for each in records[:2])
    if kept_bytes is not None:
        os.truncate(path, end + kept_bytes)
        del records[2]
    assert read_all(Journal(folder, MANY)) == [records[0], *records[2:]]


class Rotten(io.FileIO):
    """A file of which a disk does not read some bytes."""

    unreadable: range

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._expect(self.tell() - len(data), len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._expect(self.tell() - count, count)
        return count

    def _expect(self, begin: int, count: int) -> None:
        if begin < self.unreadable.stop and self.unreadable.start < begin + count:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def rot_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk read nothing of any file."""
    as_it_was = Path.open

    def open_file(self: Path, mode: str = "r", buffering: int = -1) -> Any:
        if "r" not in mode:
            return as_it_was(self, mode, buffering)
        file = Rotten(self)
        file.unreadable = range(MANY)
        return file if buffering == 0 else io.BufferedReader(file)

    monkeypatch.setattr(Path, "open", open_file)


@pytest.fixture
def rot(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, range], None]:
    """Let the disk not read some bytes of a file, whatever it is called."""

    def begin(path: Path, unreadable: range) -> None:
        rotten, as_it_was = path.stat().st_ino, Path.open

        def open_file(self: Path, mode: str = "r", buffering: int = -1) -> Any:
            if not self.exists() or self.stat().st_ino != rotten:
                return as_it_was(self, mode, buffering)
            file = Rotten(self)
            file.unreadable = unreadable
            return file if buffering == 0 else io.BufferedReader(file)

        monkeypatch.setattr(Path, "open", open_file)

    return begin


def read_on(journal: Journal) -> list[Record]:
    """As the recorder does: again, where the disk fails."""
    for _ in range(9):
        with pytest.raises(OSError, match="Input/output"):
            read_all(journal)
    return read_all(journal)


def test_a_place_that_the_disk_does_not_read_costs_the_record_there(
    folder: Path, rot: Callable[[Path, range], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before it, behind it and in later files is read."""
    records = [record(n, size=9000) for n in range(6)]
    [path] = filled(folder, records)
    later = record(7)
    journal = Journal(folder, MANY)
    journal.append(later)
    rot(path, range(21_000, 21_001))  # within the third record, with its block
    assert read_on(journal) == [*records[:2], *records[3:], later]
    begin, end = sum(each.size for each in records[:2]), sum(each.size for each in records)
    assert files(folder) == [f"{path.stem}-{begin:012}.damaged", f"{path.stem}-{end:012}.damaged"]
    assert [(folder / name).stat().st_size for name in files(folder)] == [records[2].size, end]
    assert "4096 bytes of the journal cannot be read" in caplog.text
    assert journal.backlog == 0
    journal.close()


def test_a_place_in_the_file_that_is_still_written_loses_nothing_that_is_appended_then(
    folder: Path, rot: Callable[[Path, range], None]
) -> None:
    journal = Journal(folder, MANY)
    first, second = record(1, size=9000), record(2)
    journal.append(first)
    [path] = folder.iterdir()
    rot(path, range(5000, 5001))
    assert read_on(journal) == []
    journal.append(second)
    assert read_all(journal) == [second]
    journal.close()


@pytest.mark.parametrize("size", [100, 5000])
def test_a_file_of_which_the_disk_reads_nothing_is_set_aside(
    folder: Path, rot: Callable[[Path, range], None], caplog: pytest.LogCaptureFixture, size: int
) -> None:
    records = [record(n, size=size) for n in range(3)]
    [path] = filled(folder, records)
    inode, whole = path.stat().st_ino, path.stat().st_size
    journal = Journal(folder, MANY)
    later = record(7)
    journal.append(later)
    rot(path, range(MANY))
    assert read_on(journal) == [later]
    assert journal.backlog == 0
    [kept] = files(folder)
    assert kept == f"{path.stem}-{whole:012}.damaged"
    assert (folder / kept).stat().st_ino == inode
    assert f"{whole} bytes of the journal cannot be read" in caplog.text
    journal.close()


@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.usefixtures("rot_all")
def test_a_disk_that_reads_nothing_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Its cable may be loose."""
    records = [record(n, size=size) for n in range(3)]
    filled(folder, records)
    journal = Journal(folder, MANY)
    for _ in range(20):
        with pytest.raises(OSError, match="Input/output"):
            journal.read(MANY, 1)
    monkeypatch.undo()
    assert read_all(journal) == records
    assert files(folder) == []


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system that has no posix_fadvise")
def test_what_is_written_to_try_the_disk_is_read_from_the_disk(
    folder: Path, rot: Callable[[Path, range], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not on the disk yet stays in memory, whatever is advised."""
    done = []

    def watched(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: int) -> None:
            done.append(name)
            real(*arguments)

        return call

    for name in ("fsync", "posix_fadvise"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    [path] = filled(folder, [record(1, size=9000)])
    rot(path, range(5000, 5001))
    journal = Journal(folder, MANY)
    assert read_on(journal) == []
    assert done == ["fsync", "posix_fadvise"]
    journal.close()


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


def test_room_is_left_on_the_disk_for_filing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(folder, MANY)
    left = list(os.statvfs(folder))
    left[:2], left[4] = [1, 1], SPARE_BYTES + 99  # block sizes, and blocks that are free
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(left))
    journal.expect_room(99)
    with pytest.raises(JournalFull, match="no room to spare"):
        journal.expect_room(100)
    journal.close()


def test_what_can_never_be_filed_is_kept_whole(folder: Path) -> None:
    journal = Journal(folder, MANY)
    for number in range(3):
        journal.append(record(number))
    journal.drop(journal.read(MANY, 1))
    [refused, later] = journal.read(MANY, 2)
    [segment] = folder.iterdir()
    written = segment.read_bytes()
    kept = journal.set_aside(refused)
    assert kept.read_bytes() == written[len(written) - refused.size - later.size : -later.size]
    assert read_all(journal) == [later]
    assert files(folder) == [kept.name]
    journal.close()


@files_of_at_most(2000)
def test_a_record_that_the_disk_cuts_off_is_taken_back(folder: Path) -> None:
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
    with pytest.raises(JournalFull):
        journal.append(record(4, size=3000))
    assert journal.read(MANY, 1) == []
    journal.append(first)
    assert read_all(journal) == [first]
    journal.close()


@files_of_at_most(2000)
def test_where_a_cut_record_cannot_be_taken_back_the_next_goes_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_file_that_cannot_be_closed_is_not_written_to_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is another file's by then: a share may tell at the close that it has no room."""
    journal = Journal(folder, MANY)
    records = [record(i) for i in range(2)]
    journal.append(records[0])
    close = os.close

    def late(number: int) -> None:
        close(number)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", late)
        journal._end()
    journal.append(records[1])
    assert read_all(journal) == records
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
