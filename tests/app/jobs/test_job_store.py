from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.database import clock
from app.database.engine import Database
from app.errors.problems import Problem
from app.jobs import job_store
from app.jobs.job_store import JobStore
from tests.support.postgres import is_waiting
from tests.support.waiting import eventually


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


def test_order_survives_a_clock_that_was_ahead(
    each_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(each_database)
    with monkeypatch.context() as context:
        context.setattr(clock, "now_ms", lambda: 2_000_000_000_000)
        first = store.add("train", "bottle", {}, "a")
    later = [store.add("train", name, {}, "a") for name in ("grid", "cap")]
    assert store.page(5) == [*reversed(later), first]
    assert store.next_queued(("train",)) == first


def test_oldest_jobs_of_a_kind_are_deleted(each_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_store, "MAX_KEPT", 2)
    store = JobStore(each_database)
    kept = [store.add("train", "grid", {}, "a"), store.add("check", "bottle", {}, "a")]
    jobs = []
    for _ in range(4):
        jobs.append(store.add("train", "bottle", {}, "a"))
        store.change(replace(jobs[-1], state="failed"), "queued")
    waiting = store.add("train", "bottle", {}, "a")
    left = {job.id for job in (*kept, *jobs[2:], waiting)}
    assert store.prune() == left
    assert store.prune() == left


def test_equal_requests_to_two_servers_queue_one_job(postgres_database: Database) -> None:
    store = JobStore(postgres_database)

    def add() -> str:
        return store.add("train", "bottle", {}, "a").id

    with ThreadPoolExecutor(2) as pool:
        with postgres_database.write() as connection:
            connection.execute(text("LOCK TABLE jobs IN SHARE MODE"))  # insertions wait, queries do not
            both = [pool.submit(add) for _ in range(2)]
            eventually(lambda: is_waiting(postgres_database, 2))
        assert both[0].result() == both[1].result()
