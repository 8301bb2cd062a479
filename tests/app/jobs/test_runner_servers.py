"""Jobs of two servers on one database: only the leader runs them, and both show and cancel them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from app.database.engine import Database
from app.database.notifications import Notifications
from app.errors.problems import Problem
from app.jobs import execution
from app.jobs import runner as runner_module
from app.jobs.job import JobRecord
from app.jobs.runner import JobRunner
from app.storage.folder_store import FolderStore
from app.storage.urls import open_store
from tests.app.jobs.conftest import Jobs
from tests.support.s3 import S3Server
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Servers:
    """Two servers; the first one leads."""

    def __init__(self, database: Database, folder: Path) -> None:
        files = FolderStore(folder / "store")
        for name in "ab":
            (folder / name).mkdir()
        self.jobs = [Jobs(database, folder / name, files) for name in "ab"]
        self.leader, self.other = (jobs.runner() for jobs in self.jobs)

    def run(self, code: str) -> None:
        for jobs in self.jobs:
            jobs.script.code = code

    def go(self) -> None:
        for jobs in self.jobs:
            (jobs.folder / "go").touch()


@pytest.fixture
async def servers(
    postgres_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Servers]:
    for name in ("_RETRY_SECONDS", "_SAVE_SECONDS"):
        monkeypatch.setattr(execution, name, 0.01)
    monkeypatch.setattr(runner_module, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("app.database.notifications.POLL_SECONDS", 3600)
    servers = Servers(postgres_database, tmp_path)
    notifications = Notifications(postgres_database)
    for runner in (servers.leader, servers.other):
        notifications.on("jobs", partial(asyncio.get_running_loop().call_soon_threadsafe, runner.wake))
    notifications.start()
    await servers.leader.open()
    yield servers
    for runner in (servers.leader, servers.other):
        await runner.close()
    await asyncio.to_thread(notifications.close)


async def follow(runner: JobRunner, job: JobRecord) -> tuple[list[str], JobRecord]:
    """Return the lines and the end of a job."""
    lines: list[str] = []
    async for news in runner.follow(job.id, 0):
        lines += news.lines
    return lines, news.job


async def test_job_of_another_server_is_run_and_followed(servers: Servers) -> None:
    servers.run("tell('line', text='1'); progress(.4); wait(); tell('line', text='2'); tell('result', v=1)")
    job = await servers.other.start("train", "bottle", {}, "tester")
    following = asyncio.create_task(follow(servers.other, job))
    await until(lambda: servers.other.get(job.id).done == 1)
    shown = servers.other.get(job.id)
    assert (shown.state, shown.stage, shown.total, shown.share) == ("running", "fit", 2, 0.4)
    await until(lambda: servers.other.read_log(job)[1] == ["1"])
    servers.go()
    lines, end = await following
    assert (lines, end.state) == (["1", "2"], "succeeded")
    assert servers.other.read_log(job, 2) == (4, ["2"])
    assert [jobs.completed != [] for jobs in servers.jobs] == [True, False]


async def test_report_is_shown_by_the_other_server(servers: Servers) -> None:
    leader, other = servers.jobs
    servers.run("wait(); tell('result', v=1)")
    job = await servers.other.start("evaluate", "bottle", {}, "tester")
    report = leader.folders.report(job) / "bottle/v1/report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<p>report")
    servers.go()
    await until(lambda: servers.other.get(job.id).has_ended)
    found = other.folders.find_report(job, "v1")
    assert found is not None
    assert found.read_text() == "<p>report"
    assert found.is_relative_to(other.folder)
    assert other.folders.find_report(job, "v2") is None


async def test_both_servers_tell_an_end_at_once(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    remove_data = servers.leader.folders.remove_data

    def late(job: JobRecord) -> None:
        assert go_on.wait(60)
        remove_data(job)

    monkeypatch.setattr(servers.leader.folders, "remove_data", late)
    servers.run("progress(.1); time.sleep(600)")
    job = await servers.other.start("train", "bottle", {}, "tester")
    await until(lambda: servers.leader.get(job.id).share == 0.1)
    try:
        assert (await servers.other.cancel(job.id)).state == "cancelled"
        await until(lambda: servers.leader.get(job.id).state == "cancelled")
        with pytest.raises(Problem, match="The job is cancelled"):
            await servers.leader.cancel(job.id)
    finally:
        go_on.set()


async def test_running_job_is_cancelled_by_the_other_server(servers: Servers) -> None:
    servers.run("progress(.1); time.sleep(600)")
    job = await servers.other.start("train", "bottle", {}, "tester")
    queued = await servers.other.start("train", "grid", {}, "tester")
    assert (await servers.other.cancel(queued.id)).state == "cancelled"
    await until(lambda: servers.leader.get(job.id).share == 0.1)
    assert (await servers.other.cancel(job.id)).state == "cancelled"
    with pytest.raises(Problem, match="The job is cancelled"):
        await servers.other.cancel(job.id)


async def test_next_leader_takes_a_job_over(servers: Servers) -> None:
    servers.run("tell('line', text='begins'); progress(.5); wait(); tell('result', v=1)")
    job = await servers.leader.start("train", "bottle", {}, "tester")
    await until(lambda: servers.other.read_log(job)[1] == ["begins"])
    late = servers.leader.get(job.id)
    await servers.leader.close()
    servers.go()
    await servers.other.open()
    lines, end = await follow(servers.leader, job)
    assert (end.state, end.resumed) == ("succeeded", 1)
    begins_again = "The job begins again: another server has run it, whose files are not here."
    assert lines == ["begins", begins_again, "begins"]
    # The server that lost the lead can no longer change it.
    assert not servers.jobs[0].store.change(late, "running")


async def test_next_server_leads_while_the_store_is_away(
    postgres_database: Database, tmp_path: Path, s3_server: S3Server, s3_url: str
) -> None:
    runner = Jobs(postgres_database, tmp_path, open_store(s3_url, "jobs")).runner()
    s3_server.kill()
    try:
        await runner.open()
    finally:
        s3_server.start()
    await runner.close()


async def test_late_end_of_a_lost_job_is_dropped(servers: Servers) -> None:
    """The leader was suspended, and another server has taken its job over."""
    servers.run("progress(.5); wait(); tell('result', v=1)")
    job = await servers.leader.start("train", "bottle", {}, "tester")
    await until(lambda: servers.leader.get(job.id).share == 0.5)
    late = servers.leader.get(job.id)
    await servers.other.open()
    await until(lambda: servers.other.get(job.id).resumed == 1 and servers.other.get(job.id).share == 0.5)
    assert not servers.jobs[0].store.change(late, "running")
    servers.go()
    await until(lambda: not servers.leader._running and servers.other.get(job.id).has_ended)
    assert [len(jobs.completed) for jobs in servers.jobs] == [0, 1]


async def test_cancelled_job_of_a_dead_leader_is_not_resumed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_CANCEL_SECONDS", 0.1)
    servers.run("progress(.5); time.sleep(600)")
    job = await servers.leader.start("train", "bottle", {}, "tester")
    await until(lambda: servers.leader.get(job.id).share == 0.5)
    await servers.leader.close()  # the job stays running, as after a kill
    with pytest.raises(Problem, match="it is cancelled later") as caught:
        await servers.other.cancel(job.id)
    assert caught.value.name == "history-unavailable"
    await servers.other.open()
    assert servers.other.get(job.id).state == "cancelled"
