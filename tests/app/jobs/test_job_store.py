from dataclasses import replace

import pytest

from app.database.engine import Database
from app.errors.problems import Problem
from app.jobs import job_store
from app.jobs.job_store import JobStore


def test_job_is_read_as_stored(each_database: Database) -> None:
    store = JobStore(each_database)
    job = store.add("train", "bottle", {"epochs": 3}, "key line 1")
    changed = replace(job, state="running", share=0.25, stage="fit", threads=2, result={"version": "v1"})
    assert store.get(job.id) == job
    assert store.change(changed, "queued")
    assert not store.change(job, "queued")
    assert store.get(job.id) == changed
    with pytest.raises(Problem, match="No job has this id"):
        store.get("none")


def test_pages_are_filtered(each_database: Database) -> None:
    store = JobStore(each_database)
    first = store.add("train", "bottle", {}, "a")
    second = store.add("starter", "grid", {}, "a")
    third = store.add("check", "bottle", {}, "a")
    assert store.page(2) == [third, second]
    assert store.page(2, second.id) == [first]
    assert store.page(5, products=["bottle"], states=["queued"]) == [third, first]
    assert store.page(5, products=[]) == []
    assert store.next_queued(("train", "starter")) == first
    assert store.next_queued(("evaluate",)) is None


def test_oldest_ended_jobs_are_deleted(each_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_store, "MAX_KEPT", 2)
    store = JobStore(each_database)
    waiting = store.add("train", "bottle", {}, "a")
    jobs = [store.add("train", f"p{i}", {}, "a") for i in range(4)]
    for job in jobs:
        store.change(replace(job, state="failed"), "queued")
    assert store.prune() == {waiting.id, jobs[2].id, jobs[3].id}
    assert store.prune() == {waiting.id, jobs[2].id, jobs[3].id}
