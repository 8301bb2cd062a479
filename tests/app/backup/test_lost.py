"""A history that has lost the files of very many inspections, as after a disk that was lost."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.backup import lost
from app.backup.folder import SNAPSHOT, BackupError, BackupFolder
from app.backup.restoring import restore
from app.backup.taking import Taken, take
from app.backup.verifying import verify
from app.database.engine import Database
from app.history import orphans
from tests.app.backup.conftest import Plant, make_old
from tests.app.plans import plans_of


def lose_all(plant: Plant) -> dict[Path, bytes]:
    """Delete every map of the history; gives what they were."""
    maps = {path: path.read_bytes() for path in (plant.settings.history / "maps").rglob("*.npy")}
    for path in maps:
        path.unlink()
    assert len(maps) == len(plant.answers)
    return maps


def ids_of(plant: Plant) -> list[str]:
    return [answer["inspection_id"] for answer in plant.answers]


def recorded(folder: BackupFolder, name: str) -> list[str]:
    """The ids that a snapshot's database has of inspections that had lost their files."""
    with closing(sqlite3.connect(folder.database_path(name))) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM lost_files ORDER BY id")]


def prune(folder: BackupFolder, keep: int) -> list[str]:
    with folder.locked():
        return folder.prune(keep)


def copies(plant: Plant) -> list[bytes]:
    """The maps of all inspections, as the backup has them."""
    pictures = plant.folder.pictures
    return [pictures.map_path(identifier).read_bytes() for identifier in ids_of(plant)]


class TestMany:
    @pytest.fixture
    def first(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Taken:
        """A snapshot of before; later ones have room for what they say of two inspections, and name two."""
        first = take(plant.settings, plant.folder)
        size = (plant.folder.snapshots / first.name / SNAPSHOT).stat().st_size
        monkeypatch.setattr("app.backup.folder._MAX_BYTES", size + 2 * 158 + 200)
        monkeypatch.setattr("app.backup.taking._NAMED", 2)
        return first

    def test_the_snapshot_can_be_read_however_many_there_are(self, plant: Plant, first: Taken) -> None:
        lose_all(plant)
        taken = take(plant.settings, plant.folder)
        assert plant.folder.find(None) == taken.name
        snapshot = plant.folder.snapshot(taken.name)
        assert snapshot == taken.snapshot
        assert (snapshot.lost, snapshot.unnamed, snapshot.missing) == (ids_of(plant)[:2], 3, 5)
        assert snapshot.problems == [
            *(
                f"the picture or the map of inspection {identifier} is missing or damaged in the history"
                for identifier in ids_of(plant)[:2]
            ),
            "and likewise of more inspections, 3 in number: the table lost_files of the snapshot's "
            "database.sqlite has the ids of all",
        ]
        assert recorded(plant.folder, taken.name) == ids_of(plant)
        assert verify(plant.folder, taken.name) == []
        assert prune(plant.folder, 1) == [first.name]
        assert restore(plant.empty, plant.folder, taken.name).lacking == snapshot.problems

    @pytest.mark.usefixtures("first")
    def test_their_copies_stay_in_the_backup(self, plant: Plant) -> None:
        before = copies(plant)
        maps = lose_all(plant)
        for _ in range(3):
            taken = take(plant.settings, plant.folder)
            prune(plant.folder, 1)
        assert plant.folder.names() == [taken.name]
        assert copies(plant) == before
        for path, content in maps.items():  # as the manual says
            path.write_bytes(content)
        mended = take(plant.settings, plant.folder)
        assert (mended.snapshot.missing, recorded(plant.folder, mended.name)) == (0, [])
        assert prune(plant.folder, 1) == [taken.name]
        assert verify(plant.folder, mended.name) == []

    @pytest.mark.usefixtures("first")
    def test_copies_of_what_no_inspection_has_any_more_go(self, plant: Plant) -> None:
        """Retention has removed it meanwhile: no snapshot needs it, nor tells it as lost."""
        lose_all(plant)
        take(plant.settings, plant.folder)
        database = Database(plant.settings.database_url)
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE inspections SET has_pictures = 0")
        database.close()
        taken = take(plant.settings, plant.folder)
        assert (taken.snapshot.missing, recorded(plant.folder, taken.name)) == (0, [])
        prune(plant.folder, 1)
        assert not plant.folder.pictures.has_files()

    def test_files_are_looked_up_and_no_table_is_gone_through(self, plant: Plant, first: Taken) -> None:
        """This is asked 512 times of each snapshot that stays; SQLite says in words how it answers."""
        files = orphans.Files({"0" * 64: plant.folder.path}, {"1": plant.folder.path})
        with plant.folder.opened(first.name) as database:
            having = lost.had_files(database)
            with plans_of(database) as plans:
                files.not_of(database, having=having)
        one_lost = "SEARCH lost_files USING COVERING INDEX sqlite_autoindex_lost_files_1 (id=?)"
        assert plans == [
            [
                "SEARCH inspections USING INDEX ix_inspections_image_sha256 (image_sha256=?)",
                "CORRELATED SCALAR SUBQUERY 1",
                one_lost,
            ],
            [
                "SEARCH inspections USING INDEX sqlite_autoindex_inspections_1 (id=?)",
                "CORRELATED SCALAR SUBQUERY 1",
                one_lost,
            ],
        ]


def test_what_cannot_be_read_back_is_no_snapshot(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the newest that nobody can read, and would keep all others from being deleted."""
    first = take(plant.settings, plant.folder)
    size = (plant.folder.snapshots / first.name / SNAPSHOT).stat().st_size
    lose_all(plant)
    with monkeypatch.context() as patch:
        patch.setattr("app.backup.folder._MAX_BYTES", size)
        with pytest.raises(BackupError, match=r"snapshot.json, [0-9,]+ bytes, cannot be read back: no snap"):
            take(plant.settings, plant.folder)
        assert [path.name for path in plant.folder.snapshots.iterdir()] == [first.name]
        assert plant.folder.find(None) == first.name
    assert take(plant.settings, plant.folder).snapshot.missing == 5


class TestOfVersionsBefore:
    def test_copies_of_what_is_named_in_its_json_alone_stay(self, plant: Plant) -> None:
        take(plant.settings, plant.folder)
        before = copies(plant)
        lose_all(plant)
        old = take(plant.settings, plant.folder).name
        make_old(plant.folder, old)
        # Without a number it comes first, so it is kept beside what is taken after it.
        prune(plant.folder, 2)
        assert copies(plant) == before
        assert plant.folder.snapshot(old).lost == ids_of(plant)

    def test_one_that_names_more_than_64_mib_is_read_and_goes_in_its_turn(self, plant: Plant) -> None:
        """None could be read, so that every night left another one."""
        names = [take(plant.settings, plant.folder).name for _ in range(2)]
        path = plant.folder.snapshots / names[0] / SNAPSHOT
        told = json.loads(path.read_text())
        ids = [f"01a21baa-a872-7000-8895-{number:012}" for number in range(430_000)]
        problem = "the picture or the map of inspection {} is missing or damaged in the history"
        told |= {"lost": ids, "problems": [problem.format(identifier) for identifier in ids]}
        path.write_text(json.dumps(told, indent=1))
        assert path.stat().st_size > 64 * 2**20
        assert plant.folder.snapshot(names[0]).missing == 430_000
        assert plant.folder.find(None) == names[1]
        assert prune(plant.folder, 1) == [names[0]]
        assert verify(plant.folder, names[1]) == []
