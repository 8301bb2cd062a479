"""The queue of jobs: one at a time in each lane, resumed after a restart."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from app.database import clock
from app.database.engine import DatabaseError
from app.errors.problems import Problem
from app.jobs.child import Child, ChildFailed, ChildKilled, ChildProgress
from app.jobs.commands import Commands
from app.jobs.job import LANES, TAUGHT, JobRecord
from app.jobs.job_folders import JobFolders
from app.jobs.job_log import JobLog
from app.jobs.job_store import JobStore
from app.jobs.resources import choose_threads
from app.schemas.jobs import JobKind

logger = logging.getLogger("flowgauge.jobs")

MAX_ATTEMPTS: Final = 5  # in a row that get no further
_RETRY_SECONDS: Final = 1.0
_SAVE_SECONDS: Final = 2.0
_HEARTBEAT_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 0.5  # between two news of a follower


class Completed(NamedTuple):
    """Result of a completed job, and the outcome for its version."""

    result: Mapping[str, Any]
    outcome: str | None = None


Run = Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]
Complete = Callable[[JobRecord, Mapping[str, Any], Run], Awaitable[Completed]]


@dataclass
class _Running:
    """A running job. `share` is what was done when this attempt began."""

    job: JobRecord
    log: JobLog
    child: Child | None = None
    is_cancelled: bool = False
    share: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class News(NamedTuple):
    """News of a job: its state, new lines of its log, and the position after them."""

    job: JobRecord
    lines: list[str]
    position: int


class JobRunner:
    """The jobs of a service. Use it in the event loop; `get` and `with_progress` also in threads.

    Args:
        complete: called with a finished job, its command's result, and a function that runs another command.
        threads: threads of a job; None to choose.

    Attributes:
        ended: number of jobs that have ended since the start.
    """

    def __init__(
        self,
        store: JobStore,
        folders: JobFolders,
        commands: Commands,
        complete: Complete,
        threads: int | None,
    ) -> None:
        self.store = store
        self.folders = folders
        self._commands = commands
        self._complete = complete
        self._threads = threads
        self._running: dict[str, _Running] = {}
        self._lanes: list[asyncio.Task[None]] = []
        self._has_ended = False
        self.ended = 0
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Queue the jobs that were cut off, and start the lanes.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """

        def recover() -> None:
            self.store.requeue()
            self.folders.remove_all_but(self.store.prune())

        await asyncio.to_thread(recover)
        self._lanes = [asyncio.create_task(self._run_lane(kinds)) for kinds in LANES]

    def end(self) -> None:
        """Kill the running commands, because the server stops; its next start resumes them."""
        self._has_ended = True
        for running in self._running.values():
            if running.child is not None:
                running.child.kill()
        self._notify()

    async def close(self) -> None:
        """End all jobs and wait for their processes."""
        self.end()
        await asyncio.gather(*self._lanes)

    async def start(self, kind: JobKind, product: str, settings: Mapping[str, Any], actor: str) -> JobRecord:
        """Queue a job.

        Raises:
            Problem: draining; or as `Commands.require_possible` and `JobStore.add`.
        """
        if self._has_ended:
            raise Problem("draining", "The server is stopping; send the job again after its restart.")
        await asyncio.to_thread(self._commands.require_possible, kind, product, settings)
        job = await asyncio.to_thread(self.store.add, kind, product, settings, actor)
        self._notify()
        return job

    async def cancel(self, identifier: str) -> JobRecord:
        """Cancel a job, and return it once its process has ended.

        Raises:
            Problem: unknown-job; conflict if it has ended.
        """
        if running := self._running.get(identifier):
            running.is_cancelled = True
            if running.child is not None:
                running.child.kill()
            await running.ended.wait()
            job = await asyncio.to_thread(self.store.get, identifier)
            if job.state == "cancelled":
                return job
        else:
            job = await asyncio.to_thread(self.store.get, identifier)
            cancelled = replace(job, state="cancelled", ended_ms=clock.now_ms())
            if job.state == "queued":
                if not await asyncio.to_thread(self.store.change, cancelled, "queued"):
                    return await self.cancel(identifier)  # it has just started
                self._notify()
                return cancelled
        raise Problem("conflict", f"The job is {job.state}; only one that waits or runs can be cancelled.")

    def get(self, identifier: str) -> JobRecord:
        """Return a job with its present progress, or raise the problem unknown-job."""
        running = self._running.get(identifier)
        return self.store.get(identifier) if running is None else running.job

    def with_progress(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Return jobs with their present progress."""
        return [one.job if (one := self._running.get(job.id)) else job for job in jobs]

    async def follow(self, identifier: str, position: int) -> AsyncGenerator[News, None]:
        """Yield a job's state and its log after a position, at once, then at each change until it ends.

        Without changes, the same state comes as a heartbeat. It also ends when the server stops.

        Raises:
            Problem: unknown-job.
        """
        known, due = None, 0.0
        now = asyncio.get_running_loop().time
        while True:
            news = self._news
            job = await asyncio.to_thread(self.get, identifier)
            # After the state: what came before the end is read.
            position, lines = await asyncio.to_thread(self.folders.log(job).read, position)
            if job != known or lines or now() >= due:
                yield News(job, lines, position)
                known, due = job, now() + _HEARTBEAT_SECONDS
            if job.has_ended or self._has_ended:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await news.wait()
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _run_lane(self, kinds: Sequence[JobKind]) -> None:
        while not self._has_ended:
            news = self._news
            try:
                job = await asyncio.to_thread(self.store.next_queued, kinds)
                if job is not None:
                    await self._run(job)
                    continue
            except DatabaseError:
                logger.exception("cannot read the queue of jobs; trying again")
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await news.wait()

    async def _run(self, job: JobRecord) -> None:
        begun = replace(
            job,
            state="running",
            started_ms=job.started_ms or clock.now_ms(),
            threads=job.threads or choose_threads(self._threads),
            seconds_left=None,
            attempts=job.attempts + 1,
        )
        self._running[job.id] = running = _Running(begun, self.folders.log(job))
        try:
            if not await asyncio.to_thread(self.store.change, begun, "queued"):
                return  # it was cancelled
            await asyncio.to_thread(self.folders.create, job)
            saving = asyncio.create_task(self._save_progress(running))
            ended = await self._run_attempts(running)
            saving.cancel()
            if ended is not None:
                await self._save_end(replace(ended, ended_ms=clock.now_ms(), seconds_left=None))
        finally:
            running.ended.set()
            del self._running[job.id]
            self.ended += 1
            self._notify()

    async def _run_attempts(self, running: _Running) -> JobRecord | None:
        """Run a job's command until it ends; return the ended job, or None if the server stops."""
        while True:
            running.share = running.job.share
            try:
                result, outcome = await self._run_once(running)
                return replace(running.job, state="succeeded", share=1.0, result=result, outcome=outcome)
            except ChildKilled as error:
                if self._has_ended:
                    return None
                if running.is_cancelled:
                    return replace(running.job, state="cancelled")
                if running.job.attempts >= MAX_ATTEMPTS:
                    return self._fail(running, str(error))
                running.log.append(f"{error} It is tried again.")
                running.job = replace(
                    running.job,
                    attempts=running.job.attempts + 1,
                    resumed=running.job.resumed + 1,
                    seconds_left=None,
                )
                self._notify()
                await asyncio.sleep(_RETRY_SECONDS)
            except (ChildFailed, Problem) as error:
                return self._fail(running, str(error))
            except OSError as error:
                logger.exception("the command of job %s cannot be started", running.job.id)
                return self._fail(running, f"The job cannot be started: {error.strerror}.")
            except Exception:
                logger.exception("job %s failed", running.job.id)
                return self._fail(running, "The server failed; its log has more under the job's id.")

    async def _run_once(self, running: _Running) -> Completed:
        job = running.job
        if job.attempts > MAX_ATTEMPTS:
            raise ChildFailed(f"The job was interrupted {MAX_ATTEMPTS} times without getting further.")

        def take_line(text: str) -> None:
            running.log.append(self._commands.redact(job, text))
            self._notify()

        def take_progress(progress: ChildProgress) -> None:
            attempts = 0 if progress.share > running.share else running.job.attempts
            running.job = replace(
                running.job,
                stage=progress.stage,
                done=progress.done,
                total=progress.total,
                share=max(progress.share, running.job.share),
                seconds_left=progress.seconds_left,
                attempts=attempts,
            )
            self._notify()

        if job.kind in TAUGHT and job.data_revision is None:
            # Before the images are read: a later change counts as one that the job does not know.
            revision, good = await asyncio.to_thread(self._commands.read_dataset, job.product)
            running.job = job = replace(job, data_revision=revision, good=good)
            await asyncio.to_thread(self.store.change, job, "running")
        command = await asyncio.to_thread(self._commands.prepare, job)

        async def run(command: Sequence[str]) -> Mapping[str, Any]:
            environment = self._commands.environment()
            running.child = child = Child(command, environment, take_line, take_progress)
            if self._has_ended or running.is_cancelled:
                child.kill()
            return await child.run()

        return await self._complete(running.job, await run(command), run)

    def _fail(self, running: _Running, detail: str) -> JobRecord:
        detail = self._commands.redact(running.job, detail)
        return replace(running.job, state="failed", error=detail)

    async def _save_progress(self, running: _Running) -> None:
        saved = running.job
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            if running.job != saved:
                saved = running.job
                with suppress(DatabaseError):  # the end is what must be stored
                    await asyncio.to_thread(self.store.change, saved, "running")

    async def _save_end(self, job: JobRecord) -> None:
        """Store an ended job. Without a database it stays running, and the next start runs it again."""

        def save() -> None:
            self.store.change(job, "running")
            self.folders.remove_data(job)
            self.folders.remove_all_but(self.store.prune())

        while True:
            try:
                return await asyncio.to_thread(save)
            except DatabaseError:
                logger.exception("cannot store the end of job %s; trying again", job.id)
                if self._has_ended:
                    return None
                await asyncio.sleep(_RETRY_SECONDS)

    def _notify(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
