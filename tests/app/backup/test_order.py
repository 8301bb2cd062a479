"""Which snapshot is the newest does not depend on the clock, which names them."""

import itertools
import json
from datetime import UTC, datetime

import pytest

from app.backup.folder import SNAPSHOT, BackupError, BackupFolder
from app.backup.restoring import restore
from app.backup.taking import Taken, take
from app.backup.verifying import verify
from tests.app.backup.conftest import Plant, make_old

YEARS = (2026, 2027, 2000, 2100, 2028)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    return Clock(monkeypatch)


class Clock:
    """What backups are named by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def set(self, year: int) -> None:
        at_ms = int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000)
        self._monkeypatch.setattr("app.backup.taking.clock.now_ms", lambda: at_ms)


def take_in(plant: Plant, clock: Clock, year: int) -> Taken:
    clock.set(year)
    return take(plant.settings, plant.folder)


def prune(folder: BackupFolder, keep: int) -> list[str]:
    with folder.locked():
        return folder.prune(keep)


def test_they_stand_in_the_order_in_which_they_were_taken(plant: Plant, clock: Clock) -> None:
    taken = [take_in(plant, clock, year) for year in YEARS]
    assert plant.folder.names() == [one.name for one in taken]
    assert [one.name[:4] for one in taken] == list(map(str, YEARS))
    assert [plant.folder.number(one.name) for one in taken] == [1, 2, 3, 4, 5]
    assert plant.folder.find(None) == taken[-1].name


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_what_was_just_taken_is_never_pruned(plant: Plant, clock: Clock, keep: int) -> None:
    names: list[str] = []
    for year in YEARS:
        names.append(take_in(plant, clock, year).name)
        prune(plant.folder, keep)
        assert plant.folder.names() == names[-keep:]
        assert verify(plant.folder, names[-1]) == []
    assert restore(plant.empty, plant.folder, plant.folder.find(None)).name == names[-1]


def test_a_clock_that_is_behind_is_said(plant: Plant, clock: Clock) -> None:
    taken = [take_in(plant, clock, year) for year in YEARS]
    later = [before.name if before.name > one.name else None for before, one in itertools.pairwise(taken)]
    assert [one.behind for one in taken] == [None, *later]
    assert [one is not None for one in later] == [False, True, False, True]


def test_a_clock_that_stands_still_takes_no_name_twice(plant: Plant, clock: Clock) -> None:
    names = [take_in(plant, clock, 2000).name for _ in range(3)]
    assert names == [f"20000101T00000000{i}Z" for i in range(3)]
    assert plant.folder.names() == names


def test_those_without_a_number_come_first_by_their_names(plant: Plant, clock: Clock) -> None:
    old = [take_in(plant, clock, year).name for year in (2027, 2026, 2028)]
    for name in old:
        make_old(plant.folder, name)
    new = take_in(plant, clock, 2000)
    assert plant.folder.names() == [*sorted(old), new.name]
    assert new.behind == max(old)
    assert plant.folder.number(new.name) == 1
    assert prune(plant.folder, 2) == sorted(old)[:2]
    assert [verify(plant.folder, name) for name in plant.folder.names()] == [[], []]
    restore(plant.empty, plant.folder, max(old))


@pytest.mark.parametrize("damage", ["rotten", "missing"])
def test_where_one_cannot_be_read_none_is_the_newest(plant: Plant, clock: Clock, damage: str) -> None:
    names = [take_in(plant, clock, year).name for year in (2026, 2027)]
    path = plant.folder.snapshots / names[1] / SNAPSHOT
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BackupError, match=f"{names[1]}.* cannot be read.* Name the snapshot"):
        plant.folder.find(None)
    assert plant.folder.find(names[0]) == names[0]


def test_where_one_cannot_be_read_none_is_deleted(plant: Plant, clock: Clock) -> None:
    """It may be the newest, or of a later version."""
    names = [take_in(plant, clock, year).name for year in (2026, 2027, 2028)]
    path = plant.folder.snapshots / names[2] / SNAPSHOT
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "of a later version": 1}))
    with pytest.raises(BackupError, match="cannot be read"):
        prune(plant.folder, 2)
    assert sorted(plant.folder.names()) == names
