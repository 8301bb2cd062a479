"""The queue of jobs: one at a time in each lane, resumed after a restart."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

from app.database import clock
from app.database.engine import DatabaseError
from app.errors.problems import Problem
from app.jobs.commands import Commands
from app.jobs.execution import Complete, Execution
from app.jobs.job import LANES, JobRecord
from app.jobs.job_folders import JobFolders
from app.jobs.job_store import JobStore
from app.jobs.resources import choose_threads
from app.schemas.jobs import ENDED, JobKind
from app.storage.store import StoreUnavailable

logger = logging.getLogger("flowgauge.jobs")

_RETRY_SECONDS: Final = 1.0
_HEARTBEAT_SECONDS: Final = 15.0
_CANCEL_SECONDS: Final = 15.0  # a cancellation by another server, or its takeover, is waited for
_PAUSE_SECONDS: Final = 0.5  # between two news of a follower


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
        self._running: dict[str, Execution] = {}
        self._lanes: list[asyncio.Task[None]] = []
        self._runs_lanes = False
        self._has_ended = False  # the server stops
        self._owner = ""
        self.ended = 0
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Queue the jobs that were cut off, and start the lanes; may be repeated after `close`.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """

        def recover() -> None:
            self.store.requeue()
            self.folders.remove_all_but(kept := self.store.prune())
            for job in self.store.page(len(kept), states=ENDED) if self.store.is_shared else ():
                self.folders.remove_data(job)  # another server has ended it

        await asyncio.to_thread(recover)
        self._owner = str(uuid.uuid4())
        self._runs_lanes = not self._has_ended
        self._lanes = [asyncio.create_task(self._run_lane(kinds)) for kinds in LANES]

    def wake(self) -> None:
        """Look for changes, such as those of other servers."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def stop(self) -> None:
        """Kill the running commands without waiting; `close` follows."""
        self._runs_lanes = False
        for running in self._running.values():
            running.stop()
        self.wake()

    def end(self) -> None:
        """Kill the running commands, because the server stops; its next start resumes them."""
        self._has_ended = True
        self.stop()

    async def close(self) -> None:
        """Kill the running commands, and wait for their processes; the next `open` resumes them."""
        self.stop()
        await asyncio.gather(*self._lanes)

    async def start(self, kind: JobKind, product: str, settings: Mapping[str, Any], actor: str) -> JobRecord:
        """Queue a job, or return the one that a repeated request queued before.

        Raises:
            Problem: draining; or as `Commands.complete_settings` and `JobStore.add`.
        """
        if self._has_ended:
            raise Problem("draining", "The server is stopping; send the job again after its restart.")

        def queue() -> JobRecord:
            complete = self._commands.complete_settings(kind, product, settings)
            return self.store.add(kind, product, complete, actor, *self._commands.read_dataset(kind, product))

        job = await asyncio.to_thread(queue)
        self.wake()
        return job

    async def cancel(self, identifier: str) -> JobRecord:
        """Cancel a job, and return it once its process has ended.

        Raises:
            Problem: unknown-job; conflict if it has ended; history-unavailable if it runs in another server,
                which does not answer in time.
        """
        running = self._running.get(identifier)
        if running is not None and not running.job.has_ended:
            running.cancel()
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
                await asyncio.to_thread(self.folders.remove_data, job)
                self.wake()
                return cancelled
            if job.state == "running" and self.store.is_shared:
                await asyncio.to_thread(self.store.request_cancel, identifier)
                job = await self._wait_for_end(identifier)
                if job.state == "cancelled":
                    return job
        raise Problem("conflict", f"The job is {job.state}; only one that waits or runs can be cancelled.")

    async def _wait_for_end(self, identifier: str) -> JobRecord:
        """Wait until another server has cancelled a job, or the next one does in its place."""
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                while True:
                    news = self._news
                    job = await asyncio.to_thread(self.store.get, identifier)
                    if job.has_ended:
                        return job
                    await news.wait()
        except TimeoutError:
            raise Problem(
                "history-unavailable", "The server that runs the job does not answer; it is cancelled later."
            ) from None

    async def cancel_reading(self, product: str) -> None:
        """Cancel the jobs that read the images of a product."""
        for job in await asyncio.to_thread(self.store.of_product, product):
            if not job.has_ended and job.data_revision is not None:
                with suppress(Problem):  # it has just ended
                    await self.cancel(job.id)

    def get(self, identifier: str) -> JobRecord:
        """Return a job with its present progress, or raise the problem unknown-job."""
        running = self._running.get(identifier)
        return self.store.get(identifier) if running is None else running.job

    def with_progress(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        return [one.job if (one := self._running.get(job.id)) else job for job in jobs]

    def read_log(self, job: JobRecord, position: int = 0) -> tuple[int, list[str]]:
        """Read the whole lines of a job's log after a position; return the position after them, too."""
        return self.folders.read_log(job, position, runs_here=job.id in self._running)

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
            position, lines = await asyncio.to_thread(self.read_log, job, position)
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
        while self._runs_lanes:
            news = self._news
            try:
                job = await asyncio.to_thread(self.store.next_queued, kinds)
                if job is not None and self._runs_lanes:
                    await self._run(job)
                    continue
            except Exception:  # whatever it is, later jobs must run
                logger.exception("cannot run the next job; trying again")
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
            owner=self._owner,
        )
        running = Execution(job, self.store, self.folders, self._commands, self._complete, self.wake)
        self._running[job.id] = running
        watching = asyncio.create_task(self._watch_cancellation(running)) if self.store.is_shared else None
        try:
            if not await asyncio.to_thread(self.store.change, begun, "queued"):
                return  # it was cancelled
            running.job = begun  # not before, for nobody may see it run while another request finds it queued
            if (ended := await running.run()) is not None:
                await self._save_end(running, replace(ended, ended_ms=clock.now_ms(), seconds_left=None))
        finally:
            if watching is not None:
                watching.cancel()
            running.ended.set()
            del self._running[job.id]
            self.ended += 1
            self.wake()

    async def _watch_cancellation(self, running: Execution) -> None:
        """Cancel a running job if another server asks for it."""
        while True:
            news = self._news
            with suppress(DatabaseError, Problem):
                if (await asyncio.to_thread(self.store.get, running.job.id)).cancel_requested:
                    running.cancel()
                    return
            await news.wait()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _save_end(self, running: Execution, job: JobRecord) -> None:
        """Store an ended job. Without a database it stays running, and the next start runs it again."""

        def save() -> None:
            self.folders.publish(job)
            if self.store.change(job, "running"):
                running.job = job  # at once, because other servers tell it from now on
            self.folders.remove_data(job)
            self.folders.remove_all_but(self.store.prune())

        while True:
            try:
                return await asyncio.to_thread(save)
            except (DatabaseError, StoreUnavailable):
                logger.exception("cannot store the end of job %s; trying again", job.id)
                if not self._runs_lanes:
                    return None
                await asyncio.sleep(_RETRY_SECONDS)
