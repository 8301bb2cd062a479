"""Takeover of versions that jobs have made, in a service with the model `tiny` and a copy of it."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.errors.problems import Problem
from app.jobs.child import ChildFailed
from app.jobs.job import JobRecord
from app.jobs.job_store import JobStore
from app.jobs.takeover import Takeover
from app.jobs.teaching import SERVES
from app.products.image_store import NewImage
from app.schemas.history import Verdict
from app.schemas.products import NewProduct, ProductChange
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import read_manifest
from tests.app.support.bundles import copy_version
from tests.app.support.services import create_service

NEW = "20990101T000000-abcdef"
GOOD, DEFECTIVE, FOUND = 20, 10, 8


class Service:
    """A service whose active version `first` was made by a job of the product."""

    def __init__(self, client: TestClient, models: Path) -> None:
        self.client, self.models = client, models
        self.state: Any = client.app.state  # type: ignore[attr-defined]
        self.state.products.create(NewProduct(name="tiny"))
        self.first = str(models_folder.active_version(models, "tiny"))
        copy_version(models, NEW)
        self.job = self.add_job(self.first, SERVES)
        self.comparison: Mapping[str, Any] | None = None

    def add_job(self, version: str, outcome: str) -> JobRecord:
        store: JobStore = self.state.jobs.store
        job = store.add("train", "tiny", {"epochs": 1}, "server", 1, 60)
        job = replace(job, state="succeeded", result={"version": version}, outcome=outcome)
        assert store.change(job, "queued")
        self.state.jobs.folders.create(job)
        return job

    def add_image(self, data: bytes, label: Verdict) -> None:
        image = NewImage(hashlib.sha256(data).hexdigest(), "png", "a.png", 8, 8, data, label)
        self.state.products.images.add("tiny", image)

    def take_over(self) -> str:
        state = self.state
        takeover = Takeover(state.store, state.products, state.jobs.store, state.jobs._commands, state.audit)

        async def run(command: Sequence[str]) -> Mapping[str, Any]:
            if self.comparison is None:
                raise ChildFailed("no")
            return self.comparison

        assert self.client.portal is not None
        return self.client.portal.call(takeover.take_over, self.job, NEW, run)

    @property
    def active(self) -> str | None:
        return models_folder.active_version(self.models, "tiny")


@pytest.fixture
def service(store: Path) -> Iterator[Service]:
    with create_service(store) as client:
        yield Service(client, store)


def test_version_takes_over_and_is_audited(service: Service) -> None:
    assert service.take_over() == SERVES
    assert service.active == NEW
    [entry] = service.client.get("/v1/audit", params={"action": "model.activate"}).json()["entries"]
    assert (entry["actor"], entry["target"]) == ("server", f"tiny/{NEW}")
    assert entry["detail"]["previous"] == service.first
    assert service.take_over() == SERVES  # the job was killed before it ended


def test_choice_of_a_person_stays(service: Service) -> None:
    service.add_job("20980101T000000-abcdef", SERVES)  # which a rollback to the first has followed
    assert service.take_over().startswith(f"The active version {service.first} is a person's choice.")
    change = ProductChange(takeover="manual")
    service.state.products.change("tiny", change, lambda _: None)
    assert service.take_over().startswith("The product's takeover is manual.")
    assert service.active == service.first


def test_activation_meanwhile_is_not_overridden(service: Service) -> None:
    assert service.client.portal is not None
    with pytest.raises(Problem, match="was activated meanwhile"):
        service.client.portal.call(service.state.store.replace_active, "tiny", None, NEW)
    assert service.active == service.first


@pytest.mark.parametrize(
    ("found", "share_of_promise", "outcome"),
    [
        (FOUND, 0, SERVES),
        (7, 0, "The active version finds 8 of 10 defects, the new one 7."),
        (FOUND, 1, SERVES),  # as promised
        (FOUND, 2, "The active version rejects 0 of 20 good images that neither knows"),
        (0, 0, "The active version finds 8"),
        (None, 0, "It could not be compared with the active version: no"),
    ],
)
def test_worse_version_waits_for_a_person(
    service: Service, found: int | None, share_of_promise: int, outcome: str
) -> None:
    service.add_image(b"scratch", "defect")
    promise = read_manifest(service.models / "tiny" / NEW).thresholds["float32"].achievable_fpr
    rejected = math.floor(share_of_promise * promise * GOOD)
    assert share_of_promise < 2 or rejected > promise * GOOD
    if found is not None:
        service.comparison = {
            "good": GOOD,
            "defective": DEFECTIVE,
            "before": {"rejected_good": 0, "rejected_defective": FOUND},
            "after": {"rejected_good": rejected, "rejected_defective": found},
        }
    assert service.take_over().startswith(outcome)
    assert service.active == (NEW if outcome == SERVES else service.first)


def test_versions_are_compared_on_images_that_neither_knows(service: Service, tiny_data: Path) -> None:
    train = sorted((tiny_data / "tiny/train/good").glob("*.png"))
    for path in train[:8]:  # to fit and to calibrate
        service.add_image(path.read_bytes(), "good")
    compare = service.state.jobs._commands.compare
    assert compare(service.job, NEW, service.first) is None
    service.add_image(b"good", "good")
    service.add_image(b"scratch", "defect")
    command = compare(service.job, NEW, service.first)
    assert {f"--version={NEW}", f"--against={service.first}"} < set(command)
    files = (service.state.jobs.folders.compared(service.job) / "tiny").rglob("*.png")
    assert {file.read_bytes() for file in files} == {b"good", b"scratch"}
