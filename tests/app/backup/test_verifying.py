"""What verify finds, and what it cannot tell of snapshots that earlier versions took."""

import errno
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from app.backup import taking
from app.backup.folder import JOURNAL, SNAPSHOT, BackupError
from app.backup.restoring import restore
from app.backup.taking import take
from app.backup.verifying import unchecked, verify
from app.database.engine import Database
from app.history.pictures import Pictures
from flows.fastflow import bundle, models_folder, plain_files
from flows.fastflow.manifest import Manifest
from tests.app.backup.conftest import Plant, make_old
from tests.app.bundles import again
from tests.app.stores import damage
from tests.flows.fastflow.manifests import edit


def rot(path: Path) -> None:
    """Turn a byte of a file that says nothing of its form."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def map_of(plant: Plant, number: int) -> Path:
    return plant.folder.pictures.map_path(plant.answers[number]["inspection_id"])


@pytest.fixture
def waiting(plant: Plant) -> Plant:
    """A plant whose journal has something that is not filed."""
    for number in (7, 8):
        path = plant.settings.history / JOURNAL / f"{number:012}.journal"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"records of segment %d" % number)
    return plant


def test_a_map_that_has_rotted_is_found(plant: Plant) -> None:
    taken = take(plant.settings, plant.folder)
    assert (verify(plant.folder, taken.name), unchecked(taken.snapshot)) == ([], [])
    rot(map_of(plant, 0))
    assert plant.folder.pictures.score_map(plant.answers[0]["inspection_id"]) is not None  # a map still
    map_of(plant, 1).unlink()
    assert sorted(verify(plant.folder, taken.name)) == sorted(
        f"the map of inspection {plant.answers[number]['inspection_id']} is missing or damaged: "
        f"{map_of(plant, number)}"
        for number in (0, 1)
    )


def test_later_snapshots_know_what_a_map_was(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """And read none of those again."""
    first = take(plant.settings, plant.folder)
    rot(map_of(plant, 0))
    hashed: list[Path] = []

    def counting(path: Path, max_bytes: int) -> str:
        hashed.append(path)
        return plain_files.sha256_of(path, max_bytes)

    monkeypatch.setattr(taking, "sha256_of", counting)
    second = take(plant.settings, plant.folder)
    assert not [path for path in hashed if path.suffix == ".npy"]
    for taken in (first, second):
        assert len(verify(plant.folder, taken.name)) == 1
    # It is mended as the manual says.
    map_of(plant, 0).unlink()
    third = take(plant.settings, plant.folder)
    assert [verify(plant.folder, taken.name) for taken in (first, second, third)] == [[], [], []]


@pytest.mark.parametrize("damage", ["missing", "rotten", "cut off"])
def test_a_file_of_the_journal_that_is_not_as_it_was_is_found(waiting: Plant, damage: str) -> None:
    taken = take(waiting.settings, waiting.folder)
    assert verify(waiting.folder, taken.name) == []
    path = waiting.folder.snapshots / taken.name / JOURNAL / "000000000008.journal"
    if damage == "missing":
        path.unlink()
    elif damage == "rotten":
        rot(path)
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert verify(waiting.folder, taken.name) == [
        f"the file 000000000008.journal of its journal is missing or damaged: {path}"
    ]


def test_without_a_file_of_the_journal_it_is_not_restored_in_part(waiting: Plant) -> None:
    """What was answered and not filed yet would be missing, and nobody would know."""
    taken = take(waiting.settings, waiting.folder)
    (waiting.folder.snapshots / taken.name / JOURNAL / "000000000007.journal").unlink()
    with pytest.raises(BackupError, match="part of the journal"):
        restore(waiting.empty, waiting.folder, taken.name)


@pytest.mark.parametrize("damage", ["rotten", "cut off"])
def test_a_damaged_file_of_the_journal_ends_a_restore_unless_that_is_wanted(
    waiting: Plant, damage: str
) -> None:
    """A server would say that what is cut off was never answered. What it can read it files."""
    taken = take(waiting.settings, waiting.folder)
    path = waiting.folder.snapshots / taken.name / JOURNAL / "000000000008.journal"
    if damage == "rotten":
        rot(path)
    else:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        BackupError, match=r"000000000008\.journal, a part of the journal, is missing or damaged"
    ):
        restore(waiting.empty, waiting.folder, taken.name)
    [lost] = restore(waiting.empty, waiting.folder, taken.name, incomplete=True).lacking
    assert lost.startswith("000000000008.journal, a part of the journal, cannot be brought back: ")
    assert lost.endswith("; what a server can read of it is filed")
    assert (waiting.empty.history / JOURNAL / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["picture", "map"])
def test_what_rots_in_the_backup_is_not_brought_back(plant: Plant, kind: str) -> None:
    taken = take(plant.settings, plant.folder)
    answer = plant.answers[0]
    picture = plant.folder.pictures.picture_path(answer["image"]["sha256"])
    rot(picture if kind == "picture" else map_of(plant, 0))
    with pytest.raises(BackupError, match=f"the {kind} of inspection .* is not as it was copied"):
        restore(plant.empty, plant.folder, taken.name)
    lost = restore(plant.empty, plant.folder, taken.name, incomplete=True).lacking
    assert f"the {kind} of inspection {answer['inspection_id']} cannot be brought back: " in lost[0]


def test_what_could_not_be_filed_is_kept_with_the_journal(waiting: Plant) -> None:
    damaged = f"{6:012}-{0:012}.damaged"
    (waiting.settings.history / JOURNAL / damaged).write_bytes(b"evidence")
    taken = take(waiting.settings, waiting.folder)
    assert taken.snapshot.problems == verify(waiting.folder, taken.name) == []
    restore(waiting.empty, waiting.folder, taken.name)
    assert (waiting.empty.history / JOURNAL / damaged).read_bytes() == b"evidence"


def test_a_file_of_the_journal_that_the_disk_does_not_read_is_told(
    waiting: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else is in the snapshot."""

    def copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
        data = source.read()
        target.write(data)
        if data == b"records of segment 7":
            raise OSError(errno.EIO, "Input/output error")
        assert not source.read(size)

    monkeypatch.setattr("app.backup.copying.shutil.copyfileobj", copy)
    taken = take(waiting.settings, waiting.folder)
    [problem] = taken.snapshot.problems
    assert problem.startswith("the file 000000000007.journal of the journal cannot be read: ")
    assert taken.snapshot.journal is not None
    assert list(taken.snapshot.journal) == ["000000000008.journal"]
    assert verify(waiting.folder, taken.name) == []
    restore(waiting.empty, waiting.folder, taken.name)


class TestWhileSnapshotsAreDeleted:
    """As at night, by `create --keep`."""

    @staticmethod
    def prune_meanwhile(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Keep one snapshot alone as soon as a model is read; the names of those that are gone, then."""
        gone: list[str] = []
        read = bundle.verify

        def pruning(path: Path) -> Manifest:
            with plant.folder.locked():
                gone.extend(plant.folder.prune(1))
            return read(path)

        monkeypatch.setattr(bundle, "verify", pruning)
        return gone

    def test_what_stays_is_good(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = (take(plant.settings, plant.folder).name for _ in range(2))
        gone = self.prune_meanwhile(plant, monkeypatch)
        assert verify(plant.folder, second) == []
        assert gone == [first]
        assert not list(plant.folder.bundles.glob(".*"))

    def test_what_goes_is_not_called_damaged(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        first = take(plant.settings, plant.folder).name
        shutil.rmtree(plant.settings.models / "tiny")
        take(plant.settings, plant.folder)
        gone = self.prune_meanwhile(plant, monkeypatch)
        with pytest.raises(BackupError, match=f"snapshot {first} was deleted while it was verified"):
            verify(plant.folder, first)
        assert gone == [first]


class TestWhereTheActiveVersionIsDamaged:
    """The snapshot has the pointer to it, and not its files."""

    @pytest.fixture
    def lacking(self, plant: Plant) -> Plant:
        damage(again(plant.settings.models, "v2"))
        models_folder.activate(plant.settings.models, "tiny", "v2")
        return plant

    def test_it_is_found(self, lacking: Plant) -> None:
        taken = take(lacking.settings, lacking.folder)
        assert verify(lacking.folder, taken.name) == [
            "version v2 of tiny, which was active, is not in it; restored, "
            f"{next(iter(taken.snapshot.models['tiny'].versions))} is active instead"
        ]

    def test_the_one_before_is_active_where_it_is_restored(self, lacking: Plant) -> None:
        taken = take(lacking.settings, lacking.folder)
        restored = restore(lacking.empty, lacking.folder, taken.name)
        first = models_folder.previous_version(lacking.settings.models, "tiny")
        assert first is not None
        assert models_folder.active_version(lacking.empty.models, "tiny") == first
        assert restored.lacking == [*taken.snapshot.problems, *verify(lacking.folder, taken.name)]
        bundle.verify(models_folder.resolve(lacking.empty.models, "tiny"))
        # Nor is it another one than it was to be where all is done again.
        other = lacking.empty.model_copy(update={"history": lacking.empty.history.with_name("other")})
        once_more = restore(other, lacking.folder, taken.name)
        assert (once_more.lacking, once_more.left_alone) == (restored.lacking, [])

    def test_where_it_lies_already_it_is_active(self, lacking: Plant) -> None:
        taken = take(lacking.settings, lacking.folder)
        good = again(lacking.settings.models, "good")
        (lacking.empty.models / "tiny").mkdir(parents=True)
        edit(good.rename(lacking.empty.models / "tiny" / "v2"), lambda d: d.update(version="v2"))
        restored = restore(lacking.empty, lacking.folder, taken.name)
        assert models_folder.active_version(lacking.empty.models, "tiny") == "v2"
        assert restored.lacking == taken.snapshot.problems

    def test_without_one_before_nothing_serves(self, plant: Plant) -> None:
        damage(models_folder.resolve(plant.settings.models, "tiny"))
        taken = take(plant.settings, plant.folder)
        [fault] = verify(plant.folder, taken.name)
        assert fault.endswith("is not in it; restored, none serves until one is activated")
        assert restore(plant.empty, plant.folder, taken.name).lacking[-1] == fault


class TestOfAnEarlierVersion:
    def test_it_is_checked_as_far_as_that_goes_and_that_is_said(self, waiting: Plant) -> None:
        taken = take(waiting.settings, waiting.folder)
        make_old(waiting.folder, taken.name)
        assert verify(waiting.folder, taken.name) == []
        maps, journal = unchecked(waiting.folder.snapshot(taken.name))
        assert "maps" in maps
        assert "journal" in journal
        size = map_of(waiting, 0).stat().st_size
        map_of(waiting, 0).write_bytes(b"\xff" * size)
        map_of(waiting, 1).write_bytes(map_of(waiting, 1).read_bytes()[:-2] + b"\x00\x7c")  # infinite
        assert len(verify(waiting.folder, taken.name)) == 2

    def test_it_is_restored_with_its_journal(self, waiting: Plant) -> None:
        taken = take(waiting.settings, waiting.folder)
        make_old(waiting.folder, taken.name)
        restore(waiting.empty, waiting.folder, taken.name)
        assert len(list((waiting.empty.history / JOURNAL).glob("*.journal"))) == 2

    def test_the_next_snapshot_records_what_it_copied(self, plant: Plant) -> None:
        old = take(plant.settings, plant.folder)
        make_old(plant.folder, old.name)
        new = take(plant.settings, plant.folder)
        assert (verify(plant.folder, new.name), unchecked(new.snapshot)) == ([], [])
        rot(map_of(plant, 0))
        assert verify(plant.folder, old.name) == []
        assert len(verify(plant.folder, new.name)) == 1

    def test_what_had_rotted_before_is_not_sworn_to(self, plant: Plant) -> None:
        old = take(plant.settings, plant.folder)
        make_old(plant.folder, old.name)
        size = map_of(plant, 0).stat().st_size
        map_of(plant, 0).write_bytes(b"\xff" * size)
        new = take(plant.settings, plant.folder)
        assert len(verify(plant.folder, new.name)) == 1


def test_a_damaged_snapshot_before_it_is_not_believed(plant: Plant) -> None:
    first = take(plant.settings, plant.folder)
    database = plant.folder.database_path(first.name)
    rot(database)
    second = take(plant.settings, plant.folder)
    assert verify(plant.folder, first.name) == [f"its database is not as it was written: {database}"]
    assert verify(plant.folder, second.name) == []


def test_what_a_map_was_is_known_although_the_snapshot_before_is_damaged(plant: Plant) -> None:
    first, second, third = (take(plant.settings, plant.folder) for _ in range(3))
    rot(plant.folder.database_path(second.name))
    (plant.folder.snapshots / third.name / SNAPSHOT).write_bytes(b"rotten")
    rot(map_of(plant, 0))
    last = take(plant.settings, plant.folder)
    fault = (
        f"the map of inspection {plant.answers[0]['inspection_id']} is missing or damaged: {map_of(plant, 0)}"
    )
    assert [verify(plant.folder, taken.name) for taken in (first, last)] == [[fault], [fault]]


def test_sums_and_what_was_lost_are_not_brought_back(plant: Plant) -> None:
    """They are of the backup; a history has no such tables."""
    restore(plant.empty, plant.folder, take(plant.settings, plant.folder).name)
    database = Database(plant.empty.database_url)
    with database.read() as connection:
        tables = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    database.close()
    assert "inspections" in tables
    assert {"map_sums", "lost_files"}.isdisjoint(tables)
    scores = Pictures(plant.empty.history).score_map(plant.answers[0]["inspection_id"])
    assert scores is not None
    assert np.isfinite(scores).all()
