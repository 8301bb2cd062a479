"""The queue of jobs: order, progress, failures, cancelling, and resuming after a stop."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors.problems import Problem
from app.jobs import execution
from app.jobs import runner as runner_module
from app.jobs.execution import MAX_ATTEMPTS, Completed, Run
from app.jobs.job import JobRecord
from app.jobs.job_store import JobStore
from app.jobs.runner import JobRunner
from app.registry import free_disk
from app.schemas.jobs import JobKind
from app.storage.store import StoreUnavailable
from tests.app.jobs.conftest import Jobs
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_RETRY_SECONDS", "_SAVE_SECONDS"):
        monkeypatch.setattr(execution, name, 0.01)
    monkeypatch.setattr(runner_module, "_PAUSE_SECONDS", 0.01)


@asynccontextmanager
async def opened(jobs: Jobs) -> AsyncIterator[JobRunner]:
    runner = jobs.runner()
    await runner.open()
    try:
        yield runner
    finally:
        await runner.close()


async def ended(runner: JobRunner, job: JobRecord) -> JobRecord:
    await until(lambda: runner.get(job.id).has_ended)
    return runner.get(job.id)


async def test_job_reports_progress_and_result(jobs: Jobs) -> None:
    jobs.script.code = "tell('line', text='secret epoch'); progress(.4); wait(); tell('result', version='v1')"
    async with opened(jobs) as runner:
        job = await runner.start("train", "bottle", {"epochs": 2}, "tester")
        assert (job.state, job.settings, job.actor) == ("queued", {"epochs": 2}, "tester")
        await until(lambda: runner.get(job.id).share == 0.4)
        running = runner.get(job.id)
        assert (running.state, running.stage, running.done, running.total) == ("running", "fit", 1, 2)
        assert running.seconds_left == 3.5
        await until(lambda: jobs.store.get(job.id).share == 0.4)
        assert runner.with_progress(jobs.store.page(5)) == [runner.get(job.id)]
        (jobs.folder / "go").touch()
        done = await ended(runner, job)
    assert (done.state, done.share, done.outcome) == ("succeeded", 1, "it serves")
    assert done.result == {"version": "v1"}
    assert done.ended_ms is not None
    assert jobs.folders.log(job).read(0)[1] == ["*** epoch"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("tell('error', message='secret: no such image'); sys.exit(1)", "***: no such image"),
        ("sys.exit('no NDJSON')", "The command ended without a result, with code 1: no NDJSON"),
        ("print('{\"event\": 3}'); print('[' * 100_000)", "The command ended without a result, with code 0"),
        ("sys.stdout.buffer.write(b'\\xff\\0' * 20_000_000)", "The command ended without a result"),
    ],
)
async def test_failed_command_is_explained(jobs: Jobs, code: str, error: str) -> None:
    jobs.script.code = code
    async with opened(jobs) as runner:
        failed = await ended(runner, await runner.start("train", "bottle", {}, "tester"))
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.startswith(error)


async def test_lanes_run_side_by_side_and_in_order(jobs: Jobs) -> None:
    jobs.script.code = "wait(); tell('result', version='v1')"
    async with opened(jobs) as runner:
        first = await runner.start("train", "bottle", {}, "tester")
        await until(lambda: len(jobs.script.prepared) == 1)  # it has read which images there are
        second = await runner.start("train", "bottle", {"seed": 1}, "tester")
        starter = await runner.start("starter", "grid", {}, "tester")
        await until(lambda: runner.get(starter.id).state == "running")
        assert runner.get(second.id).state == "queued"
        with pytest.raises(Problem, match="waits already"):
            await runner.start("train", "bottle", {"seed": 2}, "tester")
        (jobs.folder / "go").touch()
        await until(lambda: len(jobs.completed) == 3)
    assert [job.id for job in jobs.completed if job.kind == "train"] == [first.id, second.id]


async def test_repeated_request_queues_one_job(jobs: Jobs) -> None:
    jobs.script.code = "wait(); tell('result', version='v1')"
    async with opened(jobs) as runner:
        first = await runner.start("train", "bottle", {}, "tester")
        await until(lambda: len(jobs.script.prepared) == 1)  # it has read which images there are
        assert (await runner.start("train", "bottle", {}, "tester")).id == first.id
        jobs.script.revision += 1  # its images are outdated
        second = await runner.start("train", "bottle", {}, "tester")
        assert second.id != first.id
        assert (await runner.start("train", "bottle", {}, "tester")).id == second.id


async def test_queue_is_bounded(jobs: Jobs) -> None:
    runner = jobs.runner()
    for i in range(50):
        await runner.start("train", f"p{i}", {}, "tester")
    with pytest.raises(Problem, match="50 jobs wait"):
        await runner.start("train", "another", {}, "tester")


async def test_jobs_are_cancelled(jobs: Jobs) -> None:
    jobs.script.code = "Path('pid').write_text(str(os.getpid())); progress(.1); time.sleep(600)"
    async with opened(jobs) as runner:
        running = await runner.start("train", "bottle", {}, "tester")
        await until(lambda: runner.get(running.id).share == 0.1)
        queued = await runner.start("train", "grid", {}, "tester")
        for job in (queued, running):
            assert (await runner.cancel(job.id)).state == "cancelled"
            with pytest.raises(Problem, match="The job is cancelled"):
                await runner.cancel(job.id)
        with pytest.raises(ProcessLookupError):
            os.kill(int((jobs.folder / "pid").read_text()), 0)
        with pytest.raises(Problem, match="No job has this id"):
            await runner.cancel("none")
    assert jobs.completed == []


async def test_cancelled_job_leaves_no_images(jobs: Jobs) -> None:
    job = jobs.store.add("train", "bottle", {}, "tester")
    for name in ("data", ".killed.part"):  # of a start before the last restart
        (jobs.folders.path / job.id / name).mkdir(parents=True)
    await jobs.runner().cancel(job.id)
    assert list((jobs.folders.path / job.id).iterdir()) == []


async def test_job_found_while_stopping_stays_queued(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, loop, found = jobs.runner(), asyncio.get_running_loop(), list[JobRecord]()

    def stop_and_find(kinds: Sequence[JobKind]) -> JobRecord | None:
        if job := JobStore.next_queued(jobs.store, kinds):
            loop.call_soon_threadsafe(runner.end)
            found.append(job)
        return job

    monkeypatch.setattr(jobs.store, "next_queued", stop_and_find)
    job = jobs.store.add("train", "bottle", {}, "tester")
    await runner.open()
    await until(lambda: found != [])
    await runner.close()
    assert jobs.store.get(job.id).state == "queued"


async def test_failed_cleaning_stops_no_later_job(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(jobs) as runner:
        with monkeypatch.context() as context:
            context.setattr(runner_module, "_RETRY_SECONDS", 0.01)
            context.setattr(jobs.folders, "remove_all_but", lambda _: jobs.folder.rmdir())  # an OSError
            await runner.start("train", "bottle", {}, "tester")
            await until(lambda: runner.ended == 1)
        assert (await ended(runner, await runner.start("train", "grid", {}, "tester"))).state == "succeeded"


async def test_full_disk_is_a_failed_job(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(jobs) as runner:
        with monkeypatch.context() as context:
            context.setattr(free_disk, "free_bytes", lambda _: 0)
            failed = await ended(runner, await runner.start("train", "bottle", {}, "tester"))
        assert failed.error == "The job cannot be started: there is too little free space on the disk."
        assert (await ended(runner, await runner.start("train", "bottle", {}, "tester"))).state == "succeeded"


async def test_job_waits_for_the_store(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = MAX_ATTEMPTS + 3

    async def complete(job: JobRecord, result: Mapping[str, Any], run: Run) -> Completed:
        if len(jobs.script.prepared) <= absent:
            raise StoreUnavailable("it does not answer")
        return await before(job, result, run)

    before = jobs._complete
    monkeypatch.setattr(jobs, "_complete", complete)
    jobs.script.code = "tell('result', version='v1')"
    async with opened(jobs) as runner:
        done = await ended(runner, await runner.start("train", "bottle", {}, "tester"))
    assert (done.state, done.resumed) == ("succeeded", absent)
    assert len(jobs.folders.log(done).read(0)[1]) == 1


async def test_log_that_cannot_be_written_fails_no_job(jobs: Jobs) -> None:
    jobs.script.code = "tell('line', text='one'); tell('result', version='v1')"
    job = jobs.store.add("train", "bottle", {}, "tester")
    (jobs.folders.path / job.id / "log.txt").mkdir(parents=True)
    async with opened(jobs) as runner:
        assert (await ended(runner, job)).state == "succeeded"


async def test_attempts_without_progress_are_bounded(jobs: Jobs) -> None:
    jobs.script.code = "os.kill(os.getpid(), 9)"
    async with opened(jobs) as runner:
        failed = await ended(runner, await runner.start("train", "bottle", {}, "tester"))
    assert failed.state == "failed"
    assert "out of memory" in (failed.error or "")
    assert len(jobs.script.prepared) == MAX_ATTEMPTS


async def test_progress_allows_further_attempts(jobs: Jobs) -> None:
    jobs.script.code = """
done = len(Path("done").read_text()) if Path("done").exists() else 0
if done < 8:
    progress((done + 1) / 10)
    Path("done").write_text("x" * (done + 1))
    time.sleep(0.2)
    os.kill(os.getpid(), 9)
tell("result", version="v1")
"""
    async with opened(jobs) as runner:
        done = await ended(runner, await runner.start("train", "bottle", {}, "tester"))
    assert (done.state, done.resumed, done.error) == ("succeeded", 8, None)
    assert "out of memory" in jobs.folders.log(done).read(0)[1][0]


async def test_stopped_server_resumes_its_jobs(jobs: Jobs) -> None:
    jobs.script.code = "progress(.5); wait(); tell('result', version='v1')"
    async with opened(jobs) as runner:
        job = await runner.start("train", "bottle", {}, "tester")
        waiting = await runner.start("train", "grid", {}, "tester")
        await until(lambda: runner.get(job.id).share == 0.5)
        runner.end()
        with pytest.raises(Problem) as refused:
            await runner.start("train", "carpet", {}, "tester")
        assert refused.value.name == "draining"
    assert jobs.store.get(job.id).state == "running"
    (jobs.folder / "go").touch()
    async with opened(jobs) as runner:
        done = await ended(runner, job)
        assert (await ended(runner, waiting)).resumed == 0
    assert (done.state, done.resumed, done.threads) == ("succeeded", 1, 1)
    assert [one.id for one in jobs.completed] == [job.id, waiting.id]


async def test_job_that_kills_the_server_is_given_up(jobs: Jobs) -> None:
    job = jobs.store.add("train", "bottle", {}, "tester")
    for _ in range(MAX_ATTEMPTS):
        [queued] = jobs.store.page(1)
        runner = jobs.runner()
        runner.store.change(
            JobRecord(**{**vars(queued), "state": "running", "attempts": queued.attempts + 1}), "queued"
        )
        jobs.store.requeue()
    async with opened(jobs) as runner:
        failed = await ended(runner, job)
    assert (failed.state, failed.resumed) == ("failed", MAX_ATTEMPTS)
    assert "interrupted 5 times" in (failed.error or "")
    assert jobs.script.prepared == []


async def test_followers_get_lines_and_the_end(jobs: Jobs) -> None:
    jobs.script.code = (
        "tell('line', text='one'); wait(); tell('line', text='two'); tell('result', version='v1')"
    )
    async with opened(jobs) as runner:
        job = await runner.start("train", "bottle", {}, "tester")
        lines: list[str] = []
        async for news in runner.follow(job.id, 0):
            lines += news.lines
            if lines == ["one"]:
                (jobs.folder / "go").touch()
        assert (lines, news.job.state) == (["one", "two"], "succeeded")
        [last] = [news async for news in runner.follow(job.id, len("one\n"))]
        assert last.lines == ["two"]


async def test_command_ends_with_its_server(jobs: Jobs) -> None:
    """A server that is killed cannot end its children: the kernel does."""
    code = f"""
import asyncio
from pathlib import Path
from typing import Any
from app.database.engine import Database
from tests.app.jobs.conftest import Jobs
async def serve():
    jobs = Jobs(Database("sqlite:///{jobs.folder}/jobs.sqlite"), Path({str(jobs.folder)!r}))
    jobs.script.code = "Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    runner = jobs.runner()
    await runner.open()
    await runner.start("train", "bottle", {{}}, "tester")
    await asyncio.sleep(600)
asyncio.run(serve())
"""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    pid = jobs.folder / "pid"
    await until(lambda: pid.exists() and pid.read_text() != "")
    server.send_signal(signal.SIGKILL)
    await server.wait()
    await until(lambda: not is_running(int(pid.read_text())))
    async with opened(jobs) as runner:
        [job] = jobs.store.page(2)
        assert (await ended(runner, job)).resumed == 1


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
