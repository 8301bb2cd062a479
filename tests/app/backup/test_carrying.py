"""What was answered while a database was damaged is in the old history's journal alone, and comes along."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import select

from app.backup.carrying import waiting_in
from app.backup.folder import JOURNAL, BackupError, BackupFolder
from app.backup.restoring import restore
from app.backup.taking import take
from app.database.tables import inspections
from app.history.entry import Entry
from app.history.history import History, HistoryError
from app.history.record import new_mark
from app.settings import Settings
from flows.fastflow.plain_files import FileError
from tests.app.backup.conftest import break_off
from tests.app.history.conftest import MakeEntry, make_entry
from tests.rights import without_roots_rights
from tests.waiting import until

__all__ = ["make_entry"]


def write(journal: Path, number: int, *entries: Entry) -> None:
    """A file of a journal that has these inspections."""
    mark = new_mark()
    data = b"".join(entry.record().encode(mark) for entry in entries)
    (journal / f"{number:012}.journal").write_bytes(data)


def kept_after_a_start(settings: Settings) -> list[str]:
    """The inspections that are in the history when all that waits is filed."""

    async def work() -> list[str]:
        history = History(settings)
        await history.open()
        await until(lambda: not history.backlog)
        await history.close()
        with history.database.read() as connection:
            return list(connection.scalars(select(inspections.c.id).order_by(inspections.c.id)))

    return asyncio.run(work())


@dataclass(frozen=True)
class Wreck:
    """A history whose database broke, with a backup of before and what was inspected, oldest first."""

    old: Settings
    new: Settings
    folder: BackupFolder
    snapshot: str
    inspected: list[str]

    @property
    def journal(self) -> Path:
        return self.old.history / JOURNAL


@pytest.fixture
def wreck(tmp_path: Path, make_entry: MakeEntry) -> Wreck:
    """One inspection is in the snapshot's rows, one in its journal; the old journal has three more."""
    (tmp_path / "models").mkdir()
    old = Settings(history=tmp_path / "history", models=tmp_path / "models")
    folder = BackupFolder(tmp_path / "backup")
    filed, early, *late = [make_entry() for _ in range(5)]
    journal = old.history / JOURNAL

    async def start() -> None:
        history = History(old)
        await history.open()
        await history.record(filed)
        await history.close()

    asyncio.run(start())
    write(journal, 1, early)
    snapshot = take(old, folder).name
    # The same number once more, as after a start that found the journal empty.
    write(journal, 1, late[0], filed)
    write(journal, 2, *late[1:])
    database = old.history / "history.sqlite"
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(HistoryError, match="--journal"):
        kept_after_a_start(old)
    new = old.model_copy(update={"history": tmp_path / "history-new"})
    return Wreck(old, new, folder, snapshot, sorted(e.row["id"] for e in (filed, early, *late)))


def test_everything_that_was_answered_is_in_the_restored_history(wreck: Wreck) -> None:
    before = {path.name: path.read_bytes() for path in wreck.journal.iterdir()}
    restored = restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)
    assert restored.waiting == sum(map(len, before.values()))
    assert {path.name: path.read_bytes() for path in wreck.journal.iterdir()} == before
    assert kept_after_a_start(wreck.new) == wreck.inspected


def test_it_can_be_done_again(wreck: Wreck) -> None:
    break_off(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)
    restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)
    assert [path.name for path in sorted((wreck.new.history / JOURNAL).iterdir())] == [
        f"{number:012}.journal" for number in (1, 2, 3)
    ]
    assert kept_after_a_start(wreck.new) == wreck.inspected


def test_of_one_that_was_broken_off_with_another_journal_nothing_stays(
    wreck: Wreck, make_entry: MakeEntry
) -> None:
    wrong = wreck.old.history.with_name("other") / JOURNAL
    wrong.mkdir(parents=True)
    for number in (1, 7):
        write(wrong, number, make_entry())
    break_off(wreck.new, wreck.folder, wreck.snapshot, wrong)
    restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)
    assert kept_after_a_start(wreck.new) == wreck.inspected


def test_what_was_set_aside_comes_along(wreck: Wreck) -> None:
    (wreck.journal / f"{2:012}-{7:012}.damaged").write_bytes(b"evidence")
    (wreck.journal / f"{1:012}.part").write_bytes(b"of a process that was killed")
    restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)
    others = [path for path in (wreck.new.history / JOURNAL).iterdir() if path.suffix != ".journal"]
    assert [(path.name, path.read_bytes()) for path in others] == [(f"{3:012}-{7:012}.damaged", b"evidence")]


def test_a_journal_in_which_nothing_waits(wreck: Wreck) -> None:
    for path in wreck.journal.iterdir():
        path.unlink()
    assert restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal).waiting == 0
    assert kept_after_a_start(wreck.new) == wreck.inspected[:2]


class TestRefusals:
    """Before anything is restored."""

    @pytest.fixture(autouse=True)
    def nothing_is_restored(self, wreck: Wreck) -> Iterator[None]:
        yield
        assert {path.name for path in wreck.new.history.iterdir()} <= {"lock", JOURNAL}

    @pytest.mark.parametrize("named", [".", "maps", "nothing", "history.sqlite"])
    def test_another_folder(self, wreck: Wreck, named: str) -> None:
        with pytest.raises(BackupError, match="is no journal: name the folder 'journal'"):
            restore(wreck.new, wreck.folder, wreck.snapshot, wreck.old.history / named)

    def test_a_server_that_runs(self, wreck: Wreck) -> None:
        """It would answer more, and that would not come along."""
        with FileLock(wreck.old.history / "lock"), pytest.raises(BackupError, match="stop it first"):
            restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)

    def test_the_journal_of_the_place_itself(self, wreck: Wreck) -> None:
        journal = wreck.new.history / JOURNAL
        journal.mkdir(parents=True)
        with pytest.raises(BackupError, match="name that of the one before"):
            restore(wreck.new, wreck.folder, wreck.snapshot, journal)


def test_a_link_is_no_file_of_a_journal(wreck: Wreck) -> None:
    (wreck.journal / f"{3:012}.journal").symlink_to(wreck.journal / f"{1:012}.journal")
    with pytest.raises(FileError, match="is a link"):
        restore(wreck.new, wreck.folder, wreck.snapshot, wreck.journal)


def test_a_disk_that_became_read_only_is_read(wreck: Wreck) -> None:
    # Not below tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        shutil.copytree(wreck.old.history, old)
        (old / "lock").touch()
        (old / "lock").chmod(0o444)
        for path in (Path(folder), old, old / JOURNAL):
            path.chmod(0o555)
        with without_roots_rights(), waiting_in(old / JOURNAL, wreck.new.history) as files:
            assert [path.name for path in files] == [f"{number:012}.journal" for number in (1, 2)]
        Path(folder).chmod(0o755)
        for path in (old, old / JOURNAL):
            path.chmod(0o755)
