"""Snapshots are taken of real services and brought back; what is served then is what was served before."""

import asyncio
import builtins
import errno
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from sqlalchemy import delete, select, update
from starlette.testclient import TestClient

from app.access import COMMAND_LINE, Role
from app.audit import Audit
from app.backup.folder import MARK, SNAPSHOT, BackupError, BackupFolder
from app.backup.restoring import restore
from app.backup.taking import take
from app.backup.verifying import verify
from app.category_settings import SETTINGS
from app.database.engine import Database, DatabaseError
from app.database.tables import identity, inspections
from app.feed import log
from app.feed.cursor import Cursors
from app.history.history import History, HistoryError
from app.history.identity import IDENTITY
from app.history.pictures import Pictures
from app.keys import Keys
from app.main import create_app
from app.settings import Settings
from app.sinks import positions
from app.sinks.positions import Position
from flows.fastflow import bundle, models_folder
from flows.fastflow.weights import NAMED
from tests.app.backup.conftest import RAW, Plant, inspect, place
from tests.app.history.conftest import MakeEntry, make_entry
from tests.postgres import Postgres
from tests.waiting import until

__all__ = ["make_entry"]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def file_of(pictures: Pictures, answer: dict[str, Any], kind: str) -> Path:
    """Where the picture or the map of an inspection lies."""
    if kind == "map":
        return pictures.map_path(answer["inspection_id"])
    return pictures.picture_path(answer["image"]["sha256"])


def open_and_close(settings: Settings) -> None:
    async def start() -> None:
        history = History(settings)
        await history.open()
        await history.close()

    asyncio.run(start())


def identity_of(settings: Settings) -> str:
    """The identity of a history, which its folder and its database agree on."""
    database = Database(settings.database_url)
    with database.read() as connection:
        known: str = connection.scalars(select(identity.c.id)).one()
    database.close()
    assert (settings.history / IDENTITY).read_text() == known
    return known


def expect_same_service(plant: Plant) -> None:
    """What the restored service says is what the first one has said."""
    with TestClient(create_app(plant.empty)) as client:
        for number, (answer, picture) in enumerate(zip(plant.answers, plant.pictures, strict=True)):
            links = answer["links"]
            kept = client.get(links["inspection"]).json()
            assert {name: kept[name] for name in answer} == answer
            assert client.get(f"{links['inspection']}/source").content == picture
            assert client.get(links["map"]).status_code == 200
            assert client.get(f"/v1/parts/P-{number}").json()["decision"] == answer["decision"]
            again = client.post("/v1/models/tiny/predict", content=picture, headers=RAW).json()
            assert again["score"] == pytest.approx(answer["score"], rel=1e-5)
            assert again["model"] == answer["model"]
            assert again["threshold"]["target_fpr"] == 0.2
        calibration = client.get("/v1/models/tiny/calibrations?station=line-3").json()
        assert (calibration["origin"]["reason"], calibration["stations"]) == ("new lamp", ["line-3"])
        assert calibration["threshold"]["calibration"]["source"] == "station"
        [review] = client.get(f"{plant.answers[0]['links']['inspection']}/reviews").json()["reviews"]
        assert (review["verdict"], review["note"]) == ("good", "looked at it")
        # Numbers go on: nothing new takes the place of something old.
        second = {"verdict": "defect", "expected_revision": 1}
        path = f"{plant.answers[0]['links']['inspection']}/reviews"
        assert client.post(path, json=second).status_code == 201
        acts = [act["action"] for act in client.get("/v1/audit").json()["entries"]]
        assert acts[:3] == ["backup.restore", "backup.create", "model.thresholds"] or "backup.restore" in acts


def test_what_comes_back_is_the_same_service(plant: Plant) -> None:
    taken = take(plant.settings, plant.folder)
    assert taken.snapshot.rows["inspections"] == 5
    assert taken.snapshot.problems == []
    assert verify(plant.folder, taken.name) == []
    for lost in (plant.settings.history, plant.settings.models):
        shutil.rmtree(lost)
    restored = restore(plant.empty, plant.folder, taken.name)
    assert (restored.versions, restored.left_alone) == (1, [])
    expect_same_service(plant)


@pytest.mark.parametrize("trial", [False, True])
def test_what_is_restored_is_another_history(plant: Plant, trial: bool) -> None:
    """Both may run, and neither takes the other's database for its own."""
    if trial:
        open_and_close(plant.empty)
    restore(plant.empty, plant.folder, take(plant.settings, plant.folder).name)
    open_and_close(plant.empty)
    assert identity_of(plant.empty) != identity_of(plant.settings)
    open_and_close(plant.settings)
    with pytest.raises(HistoryError, match="belongs to another database"):
        open_and_close(plant.empty.model_copy(update={"database": plant.settings.database_url}))


def test_sinks_go_on_where_the_backup_was_and_listeners_hear_of_a_gap(plant: Plant) -> None:
    def begin(settings: Settings) -> tuple[Position, int]:
        database = Database(settings.database_url)
        with database.write() as connection:
            found = positions.begin(connection, "mqtt"), log.newest(connection)
        database.close()
        return found

    position, newest = begin(plant.settings)
    assert position.number == newest > 5
    open_and_close(plant.empty)
    assert begin(plant.empty) == (Position(0, 0), 0)  # a service on trial, with the same sink
    restore(plant.empty, plant.folder, take(plant.settings, plant.folder).name)
    assert begin(plant.empty) == (position, newest)
    open_and_close(plant.empty)
    before = Cursors(identity_of(plant.settings)).at(newest)
    assert Cursors(identity_of(plant.empty)).read(before) is None


def test_a_history_moves_to_postgresql_and_back(plant: Plant, postgres: Postgres, tmp_path: Path) -> None:
    restore_from = take(plant.settings, plant.folder).name
    with postgres.database() as url:
        moved = plant.empty.model_copy(update={"database": url})
        restore(moved, plant.folder, restore_from)
        expect_same_service(replace(plant, empty=moved))
        back, folder = place(tmp_path / "back"), BackupFolder(tmp_path / "second")
        taken = take(moved, folder)
        assert verify(folder, taken.name) == []
        restore(back, folder, taken.name)
    with TestClient(create_app(back)) as client:
        for answer in plant.answers:
            kept = client.get(answer["links"]["inspection"]).json()
            assert {name: kept[name] for name in answer} == answer


def test_keys_come_back_and_sessions_do_not(plant: Plant) -> None:
    database = Database(plant.settings.database_url)
    _, text = Keys(database).create(COMMAND_LINE, Role.ADMIN, "me")
    database.close()
    with TestClient(create_app(plant.settings)) as client:
        assert client.post("/login", json={"key": text}).status_code == 200
        assert client.get("/v1/session").status_code == 200
        cookies = dict(client.cookies)
    restore(plant.empty, plant.folder, take(plant.settings, plant.folder).name)
    with TestClient(create_app(plant.empty), cookies=cookies) as client:
        assert client.get("/v1/session").status_code == 401
        assert client.get("/v1/session", headers={"X-API-Key": text}).status_code == 200


def test_a_snapshot_copies_only_what_is_new(plant: Plant, tiny_images: dict[str, list[bytes]]) -> None:
    first = take(plant.settings, plant.folder)
    before = files(plant.folder.path)
    with TestClient(create_app(plant.settings)) as client:
        inspect(client, [tiny_images["defect"][5]])
    second = take(plant.settings, plant.folder)
    assert plant.folder.names() == [first.name, second.name]
    new = {name.split("/")[0] for name in files(plant.folder.path) - before if "snapshots" not in name}
    assert new == {"pictures", "maps"}
    assert second.copied < first.copied
    assert verify(plant.folder, first.name) == verify(plant.folder, second.name) == []
    restored = restore(plant.empty, plant.folder, first.name)
    assert restored.rows["inspections"] == 5


def test_pruning_keeps_what_the_rest_needs(plant: Plant) -> None:
    take(plant.settings, plant.folder)
    database = Database(plant.settings.database_url)
    lone = plant.answers[1]["inspection_id"]
    with database.write() as connection:
        connection.execute(delete(inspections).where(inspections.c.id == lone))
    database.close()
    second = take(plant.settings, plant.folder)
    assert plant.folder.pictures.map_path(lone).exists()
    with plant.folder.locked():
        assert plant.folder.prune(2) == []
        assert len(plant.folder.prune(1)) == 1
    assert plant.folder.names() == [second.name]
    assert not plant.folder.pictures.map_path(lone).exists()
    sha256 = hashlib.sha256(plant.pictures[1]).hexdigest()
    assert not plant.folder.pictures.picture_path(sha256).exists()
    assert verify(plant.folder, second.name) == []


def test_pruning_opens_one_copy_at_a_time(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fourteen nights kept, the disk need not hold fourteen more databases."""
    for _ in range(3):
        take(plant.settings, plant.folder)
    opened, open_now, most = BackupFolder.opened, [0], [0]

    @contextmanager
    def counting(folder: BackupFolder, name: str) -> Iterator[Database]:
        open_now[0] += 1
        most[0] = max(most[0], open_now[0])
        try:
            with opened(folder, name) as database:
                yield database
        finally:
            open_now[0] -= 1

    monkeypatch.setattr(BackupFolder, "opened", counting)
    with plant.folder.locked():
        assert len(plant.folder.prune(2)) == 1
    assert (open_now, most) == ([0], [1])
    assert [verify(plant.folder, name) for name in plant.folder.names()] == [[], []]


def test_pruning_forgets_models_that_no_snapshot_has(plant: Plant) -> None:
    take(plant.settings, plant.folder)
    shutil.rmtree(plant.settings.models / "tiny")
    take(plant.settings, plant.folder)
    assert len(list(plant.folder.bundles.iterdir())) == 1
    with plant.folder.locked():
        plant.folder.prune(1)
    assert list(plant.folder.bundles.iterdir()) == []


def test_what_was_answered_and_not_filed_is_in_it(
    tmp_path: Path, database_url: str, make_entry: MakeEntry, tiny_bundle_store: Path
) -> None:
    settings = Settings(history=tmp_path / "history", database=database_url, models=tiny_bundle_store)
    empty = Settings(history=tmp_path / "new", models=tmp_path / "models")
    folder = BackupFolder(tmp_path / "backup")
    entry = make_entry()

    async def scenario() -> None:
        history = History(settings)
        await history.open()
        # The writer is busy: what is answered stays in the journal.
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait(30)

        history.in_writer(hold)
        held.wait(30)
        await history.record(entry)
        try:
            taken = await asyncio.to_thread(take, settings, folder)
        finally:
            release.set()
            await history.close()
        assert taken.snapshot.rows["inspections"] == 0

    asyncio.run(scenario())
    restore(empty, folder, folder.find(None))

    async def filed() -> None:
        history = History(empty)
        await history.open()
        await history.settled(entry.row["id"])
        with history.database.read() as connection:
            assert connection.scalars(select(inspections.c.id)).all() == [entry.row["id"]]
        score_map = history.pictures.score_map(entry.row["id"])
        assert score_map is not None
        np.testing.assert_array_equal(score_map, entry.score_map)
        await history.close()

    asyncio.run(filed())


def test_snapshots_of_a_service_at_work_are_whole(
    tmp_path: Path, make_entry: MakeEntry, tiny_bundle_store: Path
) -> None:
    settings = Settings(history=tmp_path / "history", models=tiny_bundle_store)
    folder = BackupFolder(tmp_path / "backup")
    answered: list[str] = []

    async def scenario() -> list[tuple[str, int]]:
        history = History(settings)
        await history.open()
        done = False

        async def work() -> None:
            while not done:
                entry = make_entry()
                await history.record(entry)
                answered.append(entry.row["id"])
                await asyncio.sleep(0.01)

        working = [asyncio.create_task(work()) for _ in range(4)]
        await until(lambda: bool(answered))
        taken = []
        for _ in range(2):
            before = len(answered)
            taken.append(((await asyncio.to_thread(take, settings, folder)).name, before))
        done = True
        await asyncio.gather(*working)
        await history.close()
        return taken

    for number, (name, before) in enumerate(asyncio.run(scenario())):
        assert before > 0
        assert verify(folder, name) == []
        empty = Settings(history=tmp_path / f"new{number}", models=tmp_path / "models")
        restore(empty, folder, name)

        async def ids(empty: Settings = empty) -> set[str]:
            history = History(empty)
            await history.open()
            while history.backlog:
                await asyncio.sleep(0.01)
            await history.close()
            database = Database(empty.database_url)
            with database.read() as connection:
                found = set(connection.scalars(select(inspections.c.id)))
            database.close()
            return found

        assert set(answered[:before]) <= asyncio.run(ids())


class TestMissing:
    def test_a_picture_that_the_history_has_lost_is_said(self, plant: Plant) -> None:
        answer = plant.answers[1]
        sha256 = answer["image"]["sha256"]
        Pictures(plant.settings.history).picture_path(sha256).unlink()
        taken = take(plant.settings, plant.folder)
        [problem] = taken.snapshot.problems
        assert answer["inspection_id"] in problem
        assert verify(plant.folder, taken.name) == []
        restore(plant.empty, plant.folder, taken.name)
        with TestClient(create_app(plant.empty)) as client:
            assert client.get(answer["links"]["inspection"]).json()["has_pictures"] is False

    @pytest.mark.parametrize("kind", ["picture", "map"])
    def test_what_is_cut_off_in_the_history_takes_the_place_of_no_copy(self, plant: Plant, kind: str) -> None:
        """All snapshots share the one copy that there is."""
        first = take(plant.settings, plant.folder)
        answer = plant.answers[1]
        there, copied = (
            file_of(Pictures(plant.settings.history), answer, kind),
            file_of(plant.folder.pictures, answer, kind),
        )
        whole = copied.read_bytes()
        there.write_bytes(whole[: len(whole) // 2])
        second = take(plant.settings, plant.folder)
        [problem] = second.snapshot.problems
        assert answer["inspection_id"] in problem
        assert copied.read_bytes() == whole
        assert verify(plant.folder, first.name) == verify(plant.folder, second.name) == []

    @pytest.mark.parametrize("kind", ["picture", "map"])
    def test_what_is_cut_off_before_the_first_snapshot_is_said(self, plant: Plant, kind: str) -> None:
        answer = plant.answers[1]
        file_of(Pictures(plant.settings.history), answer, kind).write_bytes(b"cut")
        taken = take(plant.settings, plant.folder)
        [problem] = taken.snapshot.problems
        assert answer["inspection_id"] in problem
        assert not file_of(plant.folder.pictures, answer, kind).exists()

    @pytest.mark.parametrize("where", ["name", "content"])
    @pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
    @pytest.mark.parametrize("kind", ["picture", "map", "calibration"])
    def test_what_cannot_be_read_ends_no_snapshot(
        self, plant: Plant, kind: str, number: int, where: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = plant.answers[1]
        calibrations = plant.settings.models / "tiny" / models_folder.CALIBRATIONS
        victim = (
            next(calibrations.glob("*/*.json"))
            if kind == "calibration"
            else file_of(Pictures(plant.settings.history), answer, kind)
        )

        def failing(does: Callable[..., Any]) -> Callable[..., Any]:
            def fails(path: Any, *how: Any, **more: Any) -> Any:
                if str(path) == str(victim):
                    raise OSError(number, os.strerror(number), str(path))
                return does(path, *how, **more)

            return fails

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", failing(os.open))
            if kind != "calibration" and where == "name":
                patch.setattr(os, "stat", failing(os.stat))
            taken = take(plant.settings, plant.folder)
        [problem] = taken.snapshot.problems
        assert (victim.name if kind == "calibration" else answer["inspection_id"]) in problem
        assert verify(plant.folder, taken.name) == []

    @pytest.mark.parametrize("kind", ["picture", "map"])
    def test_copies_of_what_is_told_as_lost_stay(self, plant: Plant, kind: str) -> None:
        """They would be gone after so many nights, and they are the last ones."""
        take(plant.settings, plant.folder)
        answer = plant.answers[1]
        there = file_of(Pictures(plant.settings.history), answer, kind)
        copy = file_of(plant.folder.pictures, answer, kind)
        content = there.read_bytes()
        there.unlink()
        for _ in range(3):
            taken = take(plant.settings, plant.folder)
            assert taken.snapshot.lost == [answer["inspection_id"]]
            with plant.folder.locked():
                plant.folder.prune(1)
        assert (plant.folder.names(), copy.read_bytes()) == ([taken.name], content)
        assert verify(plant.folder, taken.name) == []
        there.write_bytes(content)  # as the manual says
        mended = take(plant.settings, plant.folder)
        assert (mended.snapshot.lost, verify(plant.folder, mended.name)) == ([], [])
        # Lost to retention it is nobody's.
        database = Database(plant.settings.database_url)
        with database.write() as connection:
            chosen = inspections.c.id == answer["inspection_id"]
            connection.execute(update(inspections).where(chosen).values(has_pictures=False))
        database.close()
        take(plant.settings, plant.folder)
        with plant.folder.locked():
            plant.folder.prune(1)
        assert not copy.exists()

    def test_a_backup_disk_that_fails_does_end_one(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr("app.backup.copying.shutil.copyfileobj", fails)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            take(plant.settings, plant.folder)
        assert plant.folder.names() == []

    def test_a_picture_that_retention_has_removed_is_no_problem(self, plant: Plant) -> None:
        database = Database(plant.settings.database_url)
        with database.write() as connection:
            chosen = inspections.c.id == plant.answers[1]["inspection_id"]
            connection.execute(update(inspections).where(chosen).values(has_pictures=False))
        database.close()
        Pictures(plant.settings.history).map_path(plant.answers[1]["inspection_id"]).unlink()
        assert take(plant.settings, plant.folder).snapshot.problems == []

    def test_a_damaged_model_is_said_and_the_rest_is_copied(self, plant: Plant) -> None:
        folder = models_folder.resolve(plant.settings.models, "tiny")
        copy = shutil.copytree(folder, folder.parent / "other")
        manifest = json.loads((copy / bundle.MANIFEST).read_text()) | {"version": "other"}
        (copy / bundle.MANIFEST).write_text(json.dumps(manifest))
        (copy / bundle.FLOW).write_bytes(b"damaged")
        taken = take(plant.settings, plant.folder)
        [problem] = taken.snapshot.problems
        assert "tiny/other" in problem
        assert list(taken.snapshot.models["tiny"].versions) == [folder.name]


def test_weights_that_are_a_link_are_copied(plant: Plant, tmp_path: Path) -> None:
    [weights] = (plant.settings.models / models_folder.BACKBONES).glob("*.safetensors")
    elsewhere = weights.rename(tmp_path / "weights")
    weights.symlink_to(elsewhere)
    taken = take(plant.settings, plant.folder)
    assert taken.snapshot.problems == []
    assert verify(plant.folder, taken.name) == []
    restore(plant.empty, plant.folder, taken.name)
    restored = plant.empty.models / models_folder.BACKBONES / weights.name
    assert not restored.is_symlink()
    assert restored.read_bytes() == elsewhere.read_bytes()


@pytest.mark.parametrize("to", ["nowhere", "itself"])
def test_weights_that_are_a_link_to_nothing_are_said_and_the_rest_is_copied(plant: Plant, to: str) -> None:
    [weights] = (plant.settings.models / models_folder.BACKBONES).glob("*.safetensors")
    weights.unlink()
    weights.symlink_to(weights if to == "itself" else weights.with_name("nowhere"))
    taken = take(plant.settings, plant.folder)
    [problem] = taken.snapshot.problems
    assert problem.startswith(f"the weights {weights.name} cannot be copied: ")
    assert taken.snapshot.backbones == {}
    assert list(taken.snapshot.models) == ["tiny"]


def test_weights_that_a_run_named_come_back_as_such(plant: Plant) -> None:
    [weights] = (plant.settings.models / models_folder.BACKBONES).glob("*.safetensors")
    weights.with_name(weights.name + NAMED).write_text("by a run")
    restore(plant.empty, plant.folder, take(plant.settings, plant.folder).name)
    restored = plant.empty.models / models_folder.BACKBONES
    assert {path.name for path in restored.iterdir()} == {weights.name, weights.name + NAMED}


class TestDamage:
    @pytest.mark.parametrize("kind", ["picture", "map", "bundle", "weights", "database", "calibration"])
    def test_is_found(self, plant: Plant, kind: str) -> None:
        taken = take(plant.settings, plant.folder)
        victim = {
            "picture": plant.folder.pictures.picture_path(plant.answers[0]["image"]["sha256"]),
            "map": plant.folder.pictures.map_path(plant.answers[0]["inspection_id"]),
            "bundle": next(plant.folder.bundles.glob(f"*/{bundle.FLOW}")),
            "weights": next(plant.folder.backbones.iterdir()),
            "database": plant.folder.database_path(taken.name),
            "calibration": next((plant.folder.snapshots / taken.name).glob("calibrations/*/*/*.json")),
        }[kind]
        data = victim.read_bytes()
        victim.write_bytes(data[: len(data) // 2])
        [fault] = verify(plant.folder, taken.name)
        assert kind in fault.replace("model", "bundle")

    def test_a_snapshot_with_a_file_missing_is_not_restored_in_part(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        plant.folder.pictures.map_path(plant.answers[-1]["inspection_id"]).unlink()
        with pytest.raises(BackupError, match="missing"):
            restore(plant.empty, plant.folder, taken.name)
        database = Database(plant.empty.database_url)
        with database.read() as connection:
            assert connection.scalars(select(inspections.c.id)).all() == []
        database.close()

    def test_all_that_is_not_lost_is_restored_where_that_is_wanted(self, plant: Plant) -> None:
        versions = models_folder.versions(plant.settings.models, "tiny")
        taken = take(plant.settings, plant.folder)
        first, *_, last = plant.answers
        plant.folder.pictures.map_path(last["inspection_id"]).unlink()
        cut = next(plant.folder.bundles.glob(f"*/{bundle.FLOW}"))
        cut.write_bytes(b"cut")
        [weights] = plant.folder.backbones.iterdir()
        weights.unlink()
        calibration = next((plant.folder.snapshots / taken.name).glob("calibrations/*/*/*.json"))
        calibration.write_bytes(b"cut")
        with pytest.raises(BackupError, match="--incomplete"):
            restore(plant.empty, plant.folder, taken.name)
        restored = restore(plant.empty, plant.folder, taken.name, incomplete=True)
        *lost, active = restored.lacking
        assert [line.partition(" cannot be brought back: ")[0] for line in lost] == [
            f"the map of inspection {last['inspection_id']}",
            f"the file of weights {weights.name}",
            f"version tiny/{versions[0]}",
            f"calibration {calibration.name} of tiny/{versions[0]}",
        ]
        assert "none serves until one is activated" in active
        assert restored.versions == 0
        with TestClient(create_app(plant.empty)) as client:
            assert client.get(f"{first['links']['inspection']}/source").content == plant.pictures[0]
            assert client.get(f"{last['links']['inspection']}/map.npy").status_code == 410
            assert client.get(last["links"]["inspection"]).json()["decision"] == last["decision"]

    @pytest.mark.parametrize("kind", ["picture", "bundle", "weights"])
    def test_what_cannot_be_read_is_lost_too(
        self, plant: Plant, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = take(plant.settings, plant.folder)
        victim = {
            "picture": plant.folder.pictures.picture_path(plant.answers[0]["image"]["sha256"]),
            "bundle": next(plant.folder.bundles.glob(f"*/{bundle.FLOW}")),
            "weights": next(plant.folder.backbones.iterdir()),
        }[kind]

        def failing(opens: Callable[..., Any]) -> Callable[..., Any]:
            def fails(path: Any, *how: Any, **more: Any) -> Any:
                if getattr(path, "path", str(path)) == str(victim):  # shutil's is an entry of its folder
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
                return opens(path, *how, **more)

            return fails

        monkeypatch.setattr(builtins, "open", failing(open))  # by which shutil copies a folder
        monkeypatch.setattr(os, "open", failing(os.open))
        with pytest.raises(BackupError, match="--incomplete"):
            restore(plant.empty, plant.folder, taken.name)
        first = restore(plant.empty, plant.folder, taken.name, incomplete=True).lacking[0]
        assert "cannot be brought back: " in first

    def test_weights_that_rot_in_the_backup_are_not_brought_back(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        [weights] = plant.folder.backbones.iterdir()
        whole = weights.read_bytes()
        weights.write_bytes(bytes(len(whole)))
        with pytest.raises(BackupError, match="is not as it was copied"):
            restore(plant.empty, plant.folder, taken.name)
        assert verify(plant.folder, take(plant.settings, plant.folder).name) == []
        assert weights.read_bytes() == whole

    def test_a_calibration_that_is_lost_ends_a_restore(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        calibration = next((plant.folder.snapshots / taken.name).glob("calibrations/*/*/*.json"))
        calibration.write_bytes(b"cut")
        with pytest.raises(BackupError, match=f"calibration {calibration.name} of tiny/.* --incomplete"):
            restore(plant.empty, plant.folder, taken.name)

    def test_a_snapshot_whose_database_was_changed_is_not_restored(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        with closing(sqlite3.connect(plant.folder.database_path(taken.name))) as connection, connection:
            connection.execute("UPDATE inspections SET decision = 'PASS'")
        with pytest.raises(BackupError, match=r"database of snapshot .* is damaged"):
            restore(plant.empty, plant.folder, taken.name)
        assert not plant.empty.models.exists()

    def test_what_was_cut_off_is_copied_again_by_the_next_snapshot(self, plant: Plant) -> None:
        take(plant.settings, plant.folder)
        cut = plant.folder.pictures.picture_path(plant.answers[0]["image"]["sha256"])
        cut.write_bytes(cut.read_bytes()[:-1])
        assert verify(plant.folder, take(plant.settings, plant.folder).name) == []
        assert cut.read_bytes() == plant.pictures[0]

    def test_after_the_damage_is_mended_it_can_be_done_again(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        lost = plant.folder.pictures.map_path(plant.answers[-1]["inspection_id"])
        data = lost.read_bytes()
        lost.unlink()
        with pytest.raises(BackupError):
            restore(plant.empty, plant.folder, taken.name)
        lost.write_bytes(data)
        restore(plant.empty, plant.folder, taken.name)
        expect_same_service(plant)

    @pytest.mark.parametrize("trial", [False, True])
    def test_no_service_starts_on_half_of_a_history(self, plant: Plant, trial: bool) -> None:
        """It would find the pictures without their rows, and delete them."""
        if trial:  # and none of the place's own: it was tried whether it starts
            open_and_close(plant.empty)
        taken = take(plant.settings, plant.folder)
        lost = plant.folder.pictures.map_path(plant.answers[-1]["inspection_id"])
        data = lost.read_bytes()
        lost.unlink()
        with pytest.raises(BackupError):
            restore(plant.empty, plant.folder, taken.name)
        before = files(plant.empty.history / "pictures")
        assert before
        for _ in range(2):
            with pytest.raises(HistoryError, match="restored only in part"):
                open_and_close(plant.empty)
        assert files(plant.empty.history / "pictures") == before
        lost.write_bytes(data)
        restore(plant.empty, plant.folder, taken.name)
        expect_same_service(plant)

    @pytest.mark.parametrize(
        "change",
        [
            {"backbones": {"../../out": "0" * 64}},
            {"models": {"../x": {"versions": {}, "active": None, "settings": None}}},
            {"models": {"tiny": {"versions": {"..": "0" * 64}, "active": None, "settings": None}}},
            {"models": {"tiny": {"versions": {"v": "../.."}, "active": None, "settings": None}}},
            {"extra": 1},
        ],
    )
    def test_a_snapshot_that_names_strange_files_is_refused(
        self, plant: Plant, change: dict[str, object]
    ) -> None:
        taken = take(plant.settings, plant.folder)
        path = plant.folder.snapshots / taken.name / SNAPSHOT
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(BackupError, match="damaged"):
            restore(plant.empty, plant.folder, taken.name)
        assert not plant.empty.history.exists()


class TestRefusals:
    def test_a_history_that_is_not_there(self, tmp_path: Path) -> None:
        settings = Settings(history=tmp_path / "nothing", models=tmp_path)
        with pytest.raises(BackupError, match="no history"):
            take(settings, BackupFolder(tmp_path / "backup"))
        assert list(tmp_path.iterdir()) == []

    def test_a_backup_inside_the_history(self, plant: Plant) -> None:
        with pytest.raises(BackupError, match="lost with it"):
            take(plant.settings, BackupFolder(plant.settings.history / "backup"))

    def test_a_folder_of_something_else(self, plant: Plant, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "letter").write_text("dear")
        with pytest.raises(BackupError, match="no backup and not empty"):
            take(plant.settings, BackupFolder(tmp_path / "home"))
        assert files(tmp_path / "home") == {"letter"}

    def test_a_backup_of_another_format(self, plant: Plant) -> None:
        take(plant.settings, plant.folder)
        (plant.folder.path / MARK).write_text("2\n")
        with pytest.raises(BackupError, match="format '2'"):
            plant.folder.names()

    def test_two_at_a_time(self, plant: Plant) -> None:
        take(plant.settings, plant.folder)
        with plant.folder.locked(), pytest.raises(BackupError, match="another backup"):
            take(plant.settings, plant.folder)

    def test_a_history_that_is_not_empty(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        before = files(plant.settings.history)
        with pytest.raises(BackupError, match="not empty"):
            restore(plant.settings, plant.folder, taken.name)
        assert files(plant.settings.history) - before <= {"lock"}

    def test_a_server_that_runs(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        plant.empty.history.mkdir(parents=True)
        with FileLock(plant.empty.history / "lock"), pytest.raises(BackupError, match="stop it first"):
            restore(plant.empty, plant.folder, taken.name)

    def test_weights_that_are_there_are_left_alone(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        [name] = taken.snapshot.backbones
        there = plant.empty.models / models_folder.BACKBONES / name
        there.parent.mkdir(parents=True)
        there.write_bytes(b"others")
        restored = restore(plant.empty, plant.folder, taken.name)
        assert there.read_bytes() == b"others"
        assert restored.left_alone == [f"the weights {name} are others than the snapshot's"]

    def test_models_that_are_there_are_left_alone(self, plant: Plant) -> None:
        taken = take(plant.settings, plant.folder)
        shutil.copytree(plant.settings.models, plant.empty.models)
        (plant.empty.models / "tiny" / SETTINGS).write_text("{}")
        [calibration] = (plant.empty.models / "tiny" / models_folder.CALIBRATIONS).glob("*/*.json")
        calibration.write_text("{}")
        restored = restore(plant.empty, plant.folder, taken.name)
        assert restored.versions == 0
        first, second = restored.left_alone
        assert calibration.name in first
        assert SETTINGS in second
        assert calibration.read_text() == "{}"
        assert (plant.empty.models / "tiny" / SETTINGS).read_text() == "{}"

    def test_a_database_of_another_version(self, plant: Plant) -> None:
        database = Database(plant.settings.database_url)
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        database.close()
        with pytest.raises(DatabaseError, match="revision 9999"):
            take(plant.settings, plant.folder)
        assert not plant.folder.path.exists()


@pytest.fixture
def _interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk is full at the third file."""
    count = itertools.count()
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name.endswith(".part") and next(count) == 4:
            raise OSError(28, "No space left on device")
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        yield


@pytest.mark.usefixtures("_interrupted")
def test_a_full_disk_leaves_no_half_of_a_snapshot(plant: Plant) -> None:
    with pytest.raises(OSError, match="No space left"):
        take(plant.settings, plant.folder)
    assert plant.folder.names() == []
    assert [name for name in files(plant.folder.path) if ".part" in name] == []
    taken = take(plant.settings, plant.folder)
    assert verify(plant.folder, taken.name) == []


def test_taking_and_restoring_are_in_the_audit_log(plant: Plant) -> None:
    taken = take(plant.settings, plant.folder)
    restore(plant.empty, plant.folder, taken.name)
    for settings, action in ((plant.settings, "backup.create"), (plant.empty, "backup.restore")):
        database = Database(settings.database_url)
        [entry] = Audit(database).page(1)
        database.close()
        assert (entry.action, entry.target, entry.actor) == (action, taken.name, "command line")
