"""A service that has kept something, to be backed up."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.backup.create import create_snapshot
from app.backup.folder import BackupFolder
from app.backup.restore import restore_snapshot
from app.main import create_app
from app.settings import Settings
from tests.app.support.calibrations import post_calibration

RAW = {"Content-Type": "image/png"}
Images = dict[str, list[bytes]]


@dataclass(frozen=True)
class Plant:
    """Settings of a service with the tiny model, what it has answered, and an empty place to restore into."""

    settings: Settings
    images: list[bytes]
    defects: list[bytes]  # of the product "cap"
    answers: list[dict[str, Any]]
    empty: Settings
    folder: BackupFolder

    def create(self) -> str:
        """Take a snapshot; its name."""
        return create_snapshot(self.settings, self.folder)[0]

    def restore(self, name: str) -> bool:
        """Restore a snapshot into the empty place; whether the models came back."""
        return restore_snapshot(self.empty, self.folder, name)


def inspect(client: TestClient, images: list[bytes]) -> list[dict[str, Any]]:
    """Inspect images, each as a part of its own, and wait until they are filed."""
    answers = []
    for number, image in enumerate(images):
        answer = client.post(f"/v1/models/tiny/predict?part_id=P-{number}", content=image, headers=RAW)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        assert client.get(answers[-1]["links"]["inspection"]).status_code == 200
    return answers


def teach(client: TestClient, images: list[bytes]) -> None:
    """Make the product "cap" of defects."""
    product = {"name": "cap", "kinds": ["scratch"], "takeover": "manual"}
    assert client.post("/v1/products", json=product).status_code == 201
    files = [("file", image) for image in images]
    query = {"label": "defect", "kind": "scratch"}
    stored = client.post("/v1/products/cap/images", files=files, params=query)
    assert stored.json()["counts"] == {"stored": len(images)}


def expect_taught(client: TestClient, images: list[bytes]) -> None:
    """The product "cap" has its images, labels and thumbnails."""
    found = client.get("/v1/products/cap/images").json()["images"]
    assert [client.get(one["links"]["image"]).content for one in reversed(found)] == images
    assert {(one["label"], one["kind"]) for one in found} == {("defect", "scratch")}
    assert client.get(found[0]["links"]["thumbnail"]).status_code == 200


def work(settings: Settings, images: Images) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Let a service inspect five images, one twice, review one, get a new threshold and a product."""
    chosen = [*images["good"][:3], images["defect"][0], images["good"][0]]
    with TestClient(create_app(settings)) as client:
        answers = inspect(client, chosen)
        review = {"verdict": "good", "expected_revision": 0, "note": "looked at it"}
        assert client.post(f"{answers[0]['links']['inspection']}/reviews", json=review).status_code == 201
        change = {"target_fpr": 0.2, "reason": "too strict"}
        tag = client.get("/v1/models/tiny/thresholds").headers["ETag"]
        changed = client.patch("/v1/models/tiny/thresholds", json=change, headers={"If-Match": tag})
        assert changed.status_code == 200, changed.text
        assert post_calibration(client, images["good"], station="line-3").status_code == 201
        teach(client, images["defect"][:2])
    return chosen, answers


def place(folder: Path) -> Settings:
    """Where a service has nothing yet."""
    return Settings(models=folder / "models", history=folder / "history")


@pytest.fixture(scope="module")
def worked(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[bytes], list[dict[str, Any]]]:
    """The folder of a plant that has worked; not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("worked")
    shutil.copytree(tiny_bundle_store, folder / "models")
    return folder, *work(place(folder), tiny_images)


@pytest.fixture
def plant(
    worked: tuple[Path, list[bytes], list[dict[str, Any]]], tiny_images: Images, tmp_path: Path
) -> Plant:
    """A plant whose service has stopped."""
    folder, images, answers = worked
    copy = shutil.copytree(folder, tmp_path / "plant")
    return Plant(
        place(copy),
        images,
        tiny_images["defect"][:2],
        answers,
        place(tmp_path / "new"),
        BackupFolder(tmp_path / "backup"),
    )
