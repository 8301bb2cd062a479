"""A service that has kept something, to be backed up."""

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.backup.folder import SNAPSHOT, BackupFolder
from app.backup.restoring import restore
from app.database.engine import Database
from app.main import create_app
from app.settings import Settings
from tests.app.calibrating import send

RAW = {"Content-Type": "image/png"}
Images = dict[str, list[bytes]]


@dataclass(frozen=True)
class Plant:
    """Settings of a service with the tiny model, what it has answered, and an empty place to restore into."""

    settings: Settings
    pictures: list[bytes]
    answers: list[dict[str, Any]]
    empty: Settings
    folder: BackupFolder


def inspect(client: TestClient, pictures: list[bytes]) -> list[dict[str, Any]]:
    """Inspect pictures, each as a part of its own, and wait until they are filed."""
    answers = []
    for number, picture in enumerate(pictures):
        answer = client.post(f"/v1/models/tiny/predict?part_id=P-{number}", content=picture, headers=RAW)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        assert client.get(answers[-1]["links"]["inspection"]).status_code == 200
    return answers


def work(settings: Settings, images: Images) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Let a service inspect five pictures, one of them twice, review one, and get a new threshold."""
    pictures = [*images["good"][:3], images["defect"][0], images["good"][0]]
    with TestClient(create_app(settings)) as client:
        answers = inspect(client, pictures)
        review = {"verdict": "good", "expected_revision": 0, "note": "looked at it"}
        assert client.post(f"{answers[0]['links']['inspection']}/reviews", json=review).status_code == 201
        change = {"target_fpr": 0.2, "reason": "too strict"}
        tag = client.get("/v1/models/tiny/thresholds").headers["ETag"]
        changed = client.patch("/v1/models/tiny/thresholds", json=change, headers={"If-Match": tag})
        assert changed.status_code == 200, changed.text
        assert send(client, images["good"], station="line-3").status_code == 201
    return pictures, answers


def make_old(folder: BackupFolder, name: str) -> None:
    """Make a snapshot what a version took that did not number them and recorded no sums.

    What its history had lost it named in snapshot.json alone.
    """
    with closing(sqlite3.connect(folder.database_path(name))) as connection:
        connection.execute("DROP TABLE map_sums")
        connection.execute("DROP TABLE lost_files")
    path = folder.snapshots / name / SNAPSHOT
    told = json.loads(path.read_text())
    del told["number"], told["journal"], told["unnamed"]
    told["database_sha256"] = hashlib.sha256(folder.database_path(name).read_bytes()).hexdigest()
    path.write_text(json.dumps(told))


def place(folder: Path) -> Settings:
    """Where a service has nothing yet."""
    return Settings(models=folder / "models", history=folder / "history")


def break_off(settings: Settings, folder: BackupFolder, name: str, journal: Path | None = None) -> None:
    """Restore until the rows should come, and get no further."""

    def fail(source: Database, target: Database) -> dict[str, int]:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.backup.restoring.copy_rows", fail)
        with pytest.raises(KeyboardInterrupt):
            restore(settings, folder, name, journal)


@pytest.fixture(scope="module")
def worked(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[bytes], list[dict[str, Any]]]:
    """The folder of a plant that has worked; not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("worked")
    shutil.copytree(tiny_bundle_store, folder / "models")
    return folder, *work(place(folder), tiny_images)


@pytest.fixture
def plant(worked: tuple[Path, list[bytes], list[dict[str, Any]]], tmp_path: Path) -> Plant:
    """A plant whose service has stopped."""
    folder, pictures, answers = worked
    copy = shutil.copytree(folder, tmp_path / "plant")
    return Plant(place(copy), pictures, answers, place(tmp_path / "new"), BackupFolder(tmp_path / "backup"))
