"""A place that is not empty stays as it is; one that a restore has left half-done is done again."""

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.backup import restoring
from app.backup.copying import copy_rows
from app.backup.folder import JOURNAL, BackupError
from app.backup.restoring import restore
from app.backup.taking import take
from app.database.engine import Database
from app.history.identity import IDENTITY
from app.main import create_app
from tests.app.backup.conftest import Plant, break_off
from tests.app.backup.test_backup import expect_same_service, open_and_close

SEGMENT = f"{1:012}.journal"


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def rot(path: Path) -> None:
    """Leave a file as large as it was, as a disk that lies does."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.fixture
def waiting(plant: Plant) -> Plant:
    """A plant whose journal has something that is not filed."""
    (plant.settings.history / JOURNAL / SEGMENT).write_bytes(b"answered before the snapshot")
    return plant


class TestInPlace:
    """The database was damaged and moved away; everything else is there."""

    @pytest.fixture
    def name(self, waiting: Plant) -> str:
        name = take(waiting.settings, waiting.folder).name
        (waiting.settings.history / JOURNAL / SEGMENT).write_bytes(b"answered, and nowhere else!!")
        for path in waiting.settings.history.glob("history.sqlite*"):
            path.unlink()
        return name

    @pytest.mark.parametrize("kept", ["pictures", "maps", "journal", "all"])
    @pytest.mark.parametrize("identified", [True, False])
    def test_it_is_refused_and_stays_as_it_is(
        self, waiting: Plant, name: str, kept: str, identified: bool
    ) -> None:
        history = waiting.settings.history
        for folder in {"pictures", "maps", "journal"} - {kept} if kept != "all" else ():
            shutil.rmtree(history / folder)
        if not identified:
            (history / IDENTITY).unlink()
        before = contents(history)
        with pytest.raises(BackupError, match=r"is not empty: .* Name a new folder") as caught:
            restore(waiting.settings, waiting.folder, name)
        assert contents(history) == before
        # What to do about the journal is said where there is one.
        assert (f"--journal {history / JOURNAL}" in str(caught.value)) == (kept in {"journal", "all"})

    def test_with_another_database_too(self, waiting: Plant, name: str, tmp_path: Path) -> None:
        moved = waiting.settings.model_copy(update={"database": f"sqlite:///{tmp_path / 'new.sqlite'}"})
        with pytest.raises(BackupError, match="is not empty"):
            restore(moved, waiting.folder, name)

    def test_its_own_journal_does_not_come_along(self, waiting: Plant, name: str) -> None:
        with pytest.raises(BackupError, match="is not empty"):
            restore(waiting.settings, waiting.folder, name, waiting.settings.history / JOURNAL)


class TestBrokenOff:
    def test_what_rotted_since_is_replaced(self, waiting: Plant) -> None:
        name = take(waiting.settings, waiting.folder).name
        break_off(waiting.empty, waiting.folder, name)
        history = waiting.empty.history
        good = {file: data for file, data in contents(history).items() if "/" in file}
        for file in good:
            rot(history / file)
        restore(waiting.empty, waiting.folder, name)
        there = contents(history)
        assert {file: there[file] for file in good} == good
        (history / JOURNAL / SEGMENT).unlink()
        expect_same_service(waiting)

    def test_another_snapshot_can_be_taken_instead(self, waiting: Plant) -> None:
        segment = waiting.settings.history / JOURNAL / SEGMENT
        names = [take(waiting.settings, waiting.folder).name]
        segment.write_bytes(segment.read_bytes().swapcase())
        names.append(take(waiting.settings, waiting.folder).name)
        break_off(waiting.empty, waiting.folder, names[0])
        restore(waiting.empty, waiting.folder, names[1])
        assert (waiting.empty.history / JOURNAL / SEGMENT).read_bytes() == segment.read_bytes()

    def test_at_its_very_end_it_is_said_that_all_is_there(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = take(plant.settings, plant.folder).name
        unlink = Path.unlink

        def killed(path: Path, missing_ok: bool = False) -> None:
            if path.name == "restoring":
                raise KeyboardInterrupt
            unlink(path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                restore(plant.empty, plant.folder, name)
        mark = plant.empty.history / "restoring"
        with pytest.raises(BackupError, match=rf"is not empty; .* all is there: delete {mark} and start"):
            restore(plant.empty, plant.folder, name)
        mark.unlink()
        with TestClient(create_app(plant.empty)) as client:
            for number, answer in enumerate(plant.answers):
                assert client.get(f"/v1/parts/P-{number}").json()["decision"] == answer["decision"]

    def test_what_a_server_has_begun_to_use_is_its_own(self, plant: Plant) -> None:
        """A restore that broke off at its first file leaves a place that is as good as new."""
        name = take(plant.settings, plant.folder).name
        break_off(plant.empty, plant.folder, name)
        for folder in ("pictures", "maps"):
            shutil.rmtree(plant.empty.history / folder)
        open_and_close(plant.empty)
        (plant.empty.history / JOURNAL / SEGMENT).write_bytes(b"answered since")
        before = contents(plant.empty.history)
        with pytest.raises(BackupError, match="is not empty"):
            restore(plant.empty, plant.folder, name)
        assert contents(plant.empty.history) == before

    def test_one_that_was_finished_is_not_begun_again(self, plant: Plant) -> None:
        name = take(plant.settings, plant.folder).name
        restore(plant.empty, plant.folder, name)
        for path in plant.empty.history.glob("history.sqlite*"):
            path.unlink()
        with pytest.raises(BackupError, match="is not empty"):
            restore(plant.empty, plant.folder, name)


def test_no_snapshot_is_deleted_while_one_is_restored(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it would be there, and nothing to do it again from."""
    name = take(plant.settings, plant.folder).name
    refused = []

    def copy(source: Database, target: Database) -> dict[str, int]:
        with pytest.raises(BackupError, match="or a restore, is under way") as caught, plant.folder.locked():
            plant.folder.prune(1)
        refused.append(caught.value)
        return copy_rows(source, target)

    monkeypatch.setattr(restoring, "copy_rows", copy)
    restore(plant.empty, plant.folder, name)
    assert len(refused) == 1
