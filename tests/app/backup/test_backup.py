"""Snapshots are taken of real services and restored; what is served then is what was served before."""

import asyncio
import itertools
import os
import re
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.auth.audit import Audit
from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.backup.create import create_snapshot
from app.backup.folder import MANIFEST, SNAPSHOT, BackupError, BackupFolder, ManifestLine
from app.backup.restore import restore_snapshot
from app.database import tables
from app.database.engine import Database
from app.database.tables import inspections
from app.history import identity
from app.history.history import History
from app.history.inspection_files import InspectionFiles
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings
from flows.fastflow.files.atomic_files import remove_directory
from flows.fastflow.files.plain_files import file_hashes
from tests.app.backup.conftest import RAW, Plant, expect_taught, inspect, place, teach
from tests.app.history.conftest import MakeEntry, make_entry
from tests.support.postgres import Postgres
from tests.support.waiting import until

__all__ = ["make_entry"]


def kept_after_start(settings: Settings) -> list[str]:
    """Inspections in a history once a server has filed what waits in its journal."""

    async def work() -> list[str]:
        history = History(settings)
        await history.open()
        await until(lambda: not history.backlog)
        with history.database.read() as connection:
            found = list(connection.scalars(select(inspections.c.id).order_by(inspections.c.id)))
        await history.close()
        return found

    return asyncio.run(work())


def object_of(plant: Plant, part: str) -> Path:
    """The object of the first file of the newest snapshot whose path has this part."""
    name = plant.folder.find(None)
    line = next(line for line in plant.folder.lines(name) if part in line.path)
    return plant.folder.object_path(line.sha256)


def kill(*_: object) -> None:
    raise KeyboardInterrupt


def expect_same_service(plant: Plant, settings: Settings) -> None:
    """The restored service answers as the first one did."""
    with TestClient(create_app(settings)) as client:
        for number, (answer, image) in enumerate(zip(plant.answers, plant.images, strict=True)):
            links = answer["links"]
            kept = client.get(links["inspection"]).json()
            assert {name: kept[name] for name in answer} == answer
            assert client.get(f"{links['inspection']}/source").content == image
            assert client.get(links["map"]).status_code == 200
            assert client.get(f"/v1/parts/P-{number}").json()["decision"] == answer["decision"]
            again = client.post("/v1/models/tiny/predict", content=image, headers=RAW).json()
            assert again["score"] == pytest.approx(answer["score"], rel=1e-5)
            assert again["model"] == answer["model"]
            assert again["threshold"]["target_fpr"] == 0.2
        expect_taught(client, plant.defects)
        calibration = client.get("/v1/models/tiny/calibrations?station=line-3").json()
        assert (calibration["origin"]["reason"], calibration["stations"]) == ("new lamp", ["line-3"])
        path = f"{plant.answers[0]['links']['inspection']}/reviews"
        [review] = client.get(path).json()["reviews"]
        assert (review["verdict"], review["note"]) == ("good", "looked at it")
        # Numbers go on: nothing new takes the place of something old.
        second = {"verdict": "defect", "expected_revision": 1}
        assert client.post(path, json=second).status_code == 201
        acts = [act["action"] for act in client.get("/v1/audit").json()["entries"]]
        assert "backup.restore" in acts


def test_restored_service_answers_as_before(plant: Plant) -> None:
    name = plant.create()
    assert plant.folder.snapshot(name).inspections == 5
    assert plant.folder.verify(name) == []
    for lost in (plant.settings.history, plant.settings.models):
        shutil.rmtree(lost)
    assert plant.restore(name)
    expect_same_service(plant, plant.empty)


def test_history_in_postgresql_is_restored_into_postgresql(
    plant: Plant, postgres: Postgres, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    with postgres.database() as url, postgres.database() as second:
        live = plant.settings.model_copy(update={"database": url, "history": tmp_path / "live"})
        with TestClient(create_app(live)) as client:
            [answer] = inspect(client, tiny_images["good"][:1])
            teach(client, tiny_images["defect"][:2])
            name, _ = create_snapshot(live, plant.folder)
        assert plant.folder.verify(name) == []
        restore_snapshot(plant.empty.model_copy(update={"database": second}), plant.folder, name)
        with TestClient(create_app(plant.empty.model_copy(update={"database": second}))) as client:
            assert client.get(answer["links"]["map"]).status_code == 200
            expect_taught(client, tiny_images["defect"][:2])
            [entry] = client.get("/v1/audit?action=backup.restore").json()["entries"]
            assert entry["outcome"] == "done"
        elsewhere = place(tmp_path / "elsewhere").model_copy(update={"database": second})
        with pytest.raises(BackupError, match="not empty"):
            restore_snapshot(elsewhere, plant.folder, name)
    with pytest.raises(BackupError, match="holds a postgresql database"):
        restore_snapshot(place(tmp_path / "sqlite"), plant.folder, name)


@pytest.mark.anyio
async def test_snapshot_taken_under_load_has_all_that_was_answered(
    tmp_path: Path, make_entry: MakeEntry, tiny_bundle_store: Path
) -> None:
    settings = Settings(history=tmp_path / "history", models=tiny_bundle_store)
    folder = BackupFolder(tmp_path / "backup")
    answered: list[str] = []
    history = History(settings)
    await history.open()
    done = False

    async def work() -> None:
        while not done:
            entry = make_entry()
            await history.record(entry)
            answered.append(entry.row["id"])

    working = [asyncio.create_task(work()) for _ in range(4)]
    await until(lambda: len(answered) > 20)
    before = answered[:]
    name, _ = await asyncio.to_thread(create_snapshot, settings, folder)
    done = True
    await asyncio.gather(*working)
    await history.close()
    assert folder.verify(name) == []
    restored = place(tmp_path / "new")
    restore_snapshot(restored, folder, name)
    kept = await asyncio.to_thread(kept_after_start, restored)
    assert set(before) <= set(kept)
    pictures = InspectionFiles(restored.history)
    assert all(pictures.read_score_map(identifier) is not None for identifier in kept)


def test_snapshot_has_the_journal_and_later_records_can_be_added(
    tmp_path: Path, make_entry: MakeEntry, tiny_bundle_store: Path
) -> None:
    """As docs/how-to/troubleshoot.md says for a damaged database."""
    old = Settings(history=tmp_path / "history", models=tiny_bundle_store)
    first, second = make_entry(), make_entry()
    kept_after_start(old)
    waiting = old.history / "journal" / f"{1:012}.journal"
    waiting.write_bytes(first.record().encode())

    class Filing(BackupFolder):
        """The server files its journal when the first file, whichever it is, has been copied."""

        def add(self, source: Path) -> tuple[str, int]:
            added = super().add(source)
            if waiting.exists():
                kept_after_start(old)
            return added

    new, folder = place(tmp_path / "new"), Filing(tmp_path / "backup")
    restore_snapshot(new, folder, create_snapshot(old, folder)[0])
    assert kept_after_start(new) == [first.row["id"]]
    (new.history / "journal" / waiting.name).write_bytes(second.record().encode())
    assert kept_after_start(new) == sorted([first.row["id"], second.row["id"]])


def test_keys_are_restored_and_sessions_and_identity_are_not(plant: Plant) -> None:
    database = Database(plant.settings.database_url)
    _, key = KeyStore(database).create(COMMAND_LINE, Role.ADMIN, "me")
    database.close()
    with TestClient(create_app(plant.settings)) as client:
        assert client.post("/login", json={"key": key}).status_code == 200
        assert client.get("/v1/session").status_code == 200
        cookies = dict(client.cookies)
    plant.restore(plant.create())
    database = Database(plant.empty.database_url)
    assert identity.read_identity(database) is None
    database.close()
    with TestClient(create_app(plant.empty), cookies=cookies) as client:
        assert client.get("/v1/session").status_code == 401
        assert client.get("/v1/session", headers={"X-API-Key": key}).status_code == 200


def test_next_snapshot_copies_only_what_is_new(plant: Plant, tiny_images: dict[str, list[bytes]]) -> None:
    first, first_copied = create_snapshot(plant.settings, plant.folder)
    with TestClient(create_app(plant.settings)) as client:
        inspect(client, [tiny_images["defect"][5]])
    known = {line for line in plant.folder.lines(first) if re.match("history/(maps|pictures)/", line.path)}
    # Images and maps never change: those that are known are not read again.
    for line in known:
        (plant.settings.history / line.path.removeprefix("history/")).write_bytes(b"damaged meanwhile")
    second, copied = create_snapshot(plant.settings, plant.folder)
    assert plant.folder.names() == [first, second]
    assert copied < first_copied
    new = set(plant.folder.lines(second)) - set(plant.folder.lines(first))
    assert {line.path.split("/")[1] for line in new if "/" in line.path} == {"pictures", "maps"}
    assert known <= set(plant.folder.lines(second))
    assert plant.folder.verify(second) == []


def test_prune_keeps_the_objects_that_the_rest_needs(plant: Plant) -> None:
    names = [plant.create()]
    only_of_first = object_of(plant, plant.answers[1]["inspection_id"])
    InspectionFiles(plant.settings.history).map_path(plant.answers[1]["inspection_id"]).unlink()
    names += [plant.create() for _ in range(2)]
    with plant.folder.locked():
        assert plant.folder.prune(2, names[2]) == names[:1]
    assert not only_of_first.exists()
    assert plant.folder.names() == names[1:]
    assert plant.folder.verify(names[1]) == plant.folder.verify(names[2]) == []
    with plant.folder.locked():  # where the clock was wrong, the newest is not the last by name
        assert plant.folder.prune(1, names[1]) == []
    assert plant.folder.names() == names[1:]


def test_version_that_is_deleted_meanwhile_is_left_out(plant: Plant) -> None:
    class Deleting(BackupFolder):
        """A version is deleted when its first file has been copied."""

        def add(self, source: Path) -> tuple[str, int]:
            added = super().add(source)
            if source.parent == deleted:
                remove_directory(deleted)
            return added

    tiny = plant.settings.models / "tiny"
    active = tiny / (tiny / "active").read_text().split()[0]
    deleted = shutil.copytree(active, tiny / "deleted")
    plant.restore(create_snapshot(plant.settings, Deleting(plant.folder.path))[0])
    assert (plant.empty.models / "tiny" / active.name / "manifest.json").exists()
    assert not (plant.empty.models / "tiny" / "deleted").exists()


def test_weight_links_are_followed_temporary_files_skipped(plant: Plant, tmp_path: Path) -> None:
    backbones = plant.settings.models / "backbones"
    backbones.mkdir(exist_ok=True)
    (tmp_path / "elsewhere").write_bytes(b"weights")
    (backbones / "linked.safetensors").symlink_to(tmp_path / "elsewhere")
    (backbones / "broken.safetensors").symlink_to(tmp_path / "nowhere")
    (backbones / ".half.part").write_bytes(b"wei")
    plant.restore(plant.create())
    restored = plant.empty.models / "backbones"
    assert (restored / "linked.safetensors").read_bytes() == b"weights"
    assert not (restored / "broken.safetensors").exists()
    assert not (restored / ".half.part").exists()


class TestDamage:
    @pytest.mark.parametrize("part", ["maps/", "database", "/manifest.json"])
    def test_damaged_object_is_found_and_not_restored(self, plant: Plant, part: str) -> None:
        name = plant.create()
        damaged = object_of(plant, part)
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1])
        faults = plant.folder.verify(name)
        assert faults
        assert all(part in fault and str(damaged) in fault for fault in faults)
        with pytest.raises(BackupError, match="missing or damaged in the backup"):
            plant.restore(name)
        # Mended, it can be done again in the same place.
        damaged.write_bytes(whole)
        plant.restore(name)
        assert (plant.empty.history / "history.sqlite").exists()

    def test_next_snapshot_copies_a_deleted_object_again(self, plant: Plant) -> None:
        name = plant.create()
        for part in ("pictures/", "maps/"):
            object_of(plant, part).unlink()
        assert plant.folder.verify(name)
        plant.create()
        assert plant.folder.verify(name) == []

    @pytest.mark.parametrize("file", ["history/../../elsewhere", "history//tmp/elsewhere"])
    def test_manifest_that_leads_elsewhere_is_not_restored(self, plant: Plant, file: str) -> None:
        name = plant.create()
        folder = plant.folder.snapshots / name
        manifest = folder / MANIFEST
        before = file_hashes([manifest])[0]
        manifest.write_text(re.sub("  history/pictures/.*", f"  {file}", manifest.read_text(), count=1))
        snapshot = (folder / SNAPSHOT).read_text()
        (folder / SNAPSHOT).write_text(snapshot.replace(before, file_hashes([manifest])[0]))
        with pytest.raises(BackupError, match="no valid path"):
            plant.restore(name)

    def test_damaged_manifest_prevents_deletion_of_objects(self, plant: Plant) -> None:
        names = [plant.create() for _ in range(3)]
        manifest = plant.folder.snapshots / names[1] / MANIFEST
        manifest.write_text(manifest.read_text()[:-80])
        for action in (
            lambda: plant.folder.verify(names[1]),
            lambda: plant.restore(names[1]),
            lambda: plant.folder.prune(2, names[2]),
        ):
            with pytest.raises(BackupError, match="was changed"):
                action()
        assert plant.folder.names() == names
        assert plant.folder.verify(names[0]) == []

    def test_snapshot_that_was_broken_off_is_none(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "sync", kill)  # all is written and nothing renamed
            with pytest.raises(KeyboardInterrupt):
                plant.create()
        assert plant.folder.names() == []
        assert plant.folder.verify(plant.create()) == []

    @pytest.mark.parametrize("extracted", [0, 5, None])
    def test_restore_that_was_broken_off_is_done_again(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch, extracted: int | None
    ) -> None:
        """After so many files, or after all of them."""
        lines = iter(range(extracted)) if extracted is not None else itertools.count()

        class Killed(BackupFolder):
            def extract(self, line: ManifestLine, target: Path) -> None:
                super().extract(line, target)
                if next(lines, None) is None:
                    target.write_bytes(b"half")
                    raise KeyboardInterrupt

        name = plant.create()
        with monkeypatch.context() as patch:
            patch.setattr(os, "sync", kill)
            with pytest.raises(KeyboardInterrupt):
                restore_snapshot(plant.empty, Killed(plant.folder.path), name)
        assert not (plant.empty.history / "history.sqlite").exists()
        assert plant.restore(name) == (extracted is not None)
        expect_same_service(plant, plant.empty)

    def test_damaged_database_is_not_copied(self, plant: Plant) -> None:
        path = plant.settings.history / "history.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            [[root]] = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'ix_inspections_station'"
            )
            [[size]] = connection.execute("PRAGMA page_size")
        with path.open("r+b") as file:
            file.seek((root - 1) * size + 8)
            file.write(b"\xff" * 64)
        with pytest.raises(BackupError, match="is damaged"):
            plant.create()
        assert plant.folder.names() == []


class TestRefusals:
    def test_folder_inside_the_history(self, plant: Plant) -> None:
        with pytest.raises(BackupError, match="lost with it"):
            create_snapshot(plant.settings, BackupFolder(plant.settings.history / "backup"))

    def test_two_at_a_time(self, plant: Plant) -> None:
        plant.create()
        with FileLock(plant.folder.path / "lock"), pytest.raises(BackupError, match="another process"):
            plant.create()

    def test_place_that_is_not_empty(self, plant: Plant) -> None:
        name = plant.create()
        new = f"sqlite:///{plant.empty.history / 'history.sqlite'}"
        for settings, said in (
            (plant.settings.model_copy(update={"database": new}), "the history"),
            (plant.empty.model_copy(update={"database": plant.settings.database_url}), "the database"),
        ):
            with pytest.raises(BackupError, match=f"{said} .* is not empty"):
                restore_snapshot(settings, plant.folder, name)
        assert len(kept_after_start(plant.settings)) == 5

    def test_history_of_a_running_server(self, plant: Plant) -> None:
        name = plant.create()
        plant.empty.history.mkdir(parents=True)
        lock = FileLock(plant.empty.history / "lock")
        with lock, pytest.raises(BackupError, match="a server uses the history"):
            plant.restore(name)


def test_creating_and_restoring_are_audited(plant: Plant) -> None:
    plant.create()
    database = Database(plant.settings.database_url)
    [entry] = Audit(database).page(1)
    database.close()
    assert (entry.action, entry.target, entry.outcome) == ("backup.create", plant.folder.find(None), "done")


def test_folder_is_for_its_user_alone(plant: Plant) -> None:
    plant.create()
    assert plant.folder.path.stat().st_mode & 0o077 == 0


def test_backup_without_the_setting_of_a_store_is_refused(plant: Plant) -> None:
    with closing(Database(plant.settings.database_url)) as database, database.write() as connection:
        connection.execute(update(tables.identity).values(has_store=True))
    with pytest.raises(BackupError, match="FLOWGAUGE_STORE cannot be used: it is not set"):
        plant.create()


def test_backup_of_a_store_is_refused(tmp_path: Path) -> None:
    settings = Settings(
        history=tmp_path / "history",
        database="postgresql://flowgauge@localhost/flowgauge",
        store=f"file://{tmp_path}/store",
    )
    folder = BackupFolder(tmp_path / "backup")
    for use in (create_snapshot, partial(restore_snapshot, name="newest")):
        with pytest.raises(BackupError, match="copy the database first, with pg_dump, and then the store"):
            use(settings, folder)
