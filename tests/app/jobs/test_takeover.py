"""Takeover of versions that jobs have made, in a service with the model `tiny` and a copy of it."""

import hashlib
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
from tests.app.support.bundles import copy_version
from tests.app.support.services import create_service

NEW = "20990101T000000-abcdef"
SUMMARY = {"recall": 0.8, "defective": 10, "false_rejects": 0.0, "good": 20, "achievable_fpr": 0.05}


class Service:
    """A service whose active version `first` was made by a job of the product."""

    def __init__(self, client: TestClient, models: Path) -> None:
        self.client, self.models = client, models
        self.state: Any = client.app.state  # type: ignore[attr-defined]
        self.state.products.create(NewProduct(name="tiny"))
        self.first = str(models_folder.active_version(models, "tiny"))
        copy_version(models, NEW)
        self.job = self.add_job(self.first, SERVES)
        self.summaries: Sequence[Mapping[str, Any]] = ()

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
        summaries = iter(self.summaries)

        async def run(command: Sequence[str]) -> Mapping[str, Any]:
            if (summary := next(summaries, None)) is None:
                raise ChildFailed("no")
            return {"summary": summary}

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
    ("new", "outcome"),
    [
        ({}, SERVES),
        ({"recall": 0.7}, "The active version finds 8 of 10 defects, the new one 7."),
        ({"false_rejects": 0.05}, SERVES),  # as promised
        ({"false_rejects": 0.1}, "The active version rejects 0 of 20 good images that neither knows"),
        ({"recall": None, "defective": 0}, "The active version finds 8"),
        (None, "It could not be compared with the active version: no"),
    ],
)
def test_worse_version_waits_for_a_person(
    service: Service, new: Mapping[str, Any] | None, outcome: str
) -> None:
    service.add_image(b"scratch", "defect")
    service.summaries = [SUMMARY] if new is None else [SUMMARY, SUMMARY | dict(new)]
    assert service.take_over().startswith(outcome)
    assert service.active == (NEW if outcome == SERVES else service.first)


def test_versions_are_compared_on_images_that_neither_knows(service: Service, tiny_data: Path) -> None:
    train = sorted((tiny_data / "tiny/train/good").glob("*.png"))
    for path in train[:8]:  # to fit and to calibrate
        service.add_image(path.read_bytes(), "good")
    compare = service.state.jobs._commands.compare
    assert compare(service.job, (service.first, NEW)) == []
    service.add_image(b"good", "good")
    service.add_image(b"scratch", "defect")
    commands = compare(service.job, (service.first, NEW))
    assert [command[-1] for command in commands] == [f"--version={service.first}", f"--version={NEW}"]
    files = (service.state.jobs.folders.compared(service.job) / "tiny").rglob("*.png")
    assert {file.read_bytes() for file in files} == {b"good", b"scratch"}
