"""The execution of a job: attempts of its command, progress and log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from errno import ENOSPC
from typing import Any, Final, NamedTuple

from app.database.engine import DatabaseError
from app.errors.problems import Problem
from app.jobs.child import Child, ChildFailed, ChildKilled, ChildProgress
from app.jobs.commands import Commands
from app.jobs.job import JobRecord
from app.jobs.job_folders import JobFolders
from app.jobs.job_store import JobStore
from app.storage.store import StoreUnavailable

logger = logging.getLogger("flowgauge.jobs")

MAX_ATTEMPTS: Final = 5  # in a row that get no further
_RETRY_SECONDS: Final = 1.0
_SAVE_SECONDS: Final = 2.0


class Completed(NamedTuple):
    """Result of a completed job, and the outcome for its version."""

    result: Mapping[str, Any]
    outcome: str | None = None


Run = Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]
Complete = Callable[[JobRecord, Mapping[str, Any], Run], Awaitable[Completed]]


class Execution:
    """A job that runs.

    Args:
        job: its present state; running once `run` is called.
        complete: called with the job, its command's result, and a function that runs another command.
        notify: called after each change.

    Attributes:
        job: its present state.
        ended: set once nothing of the job runs any more.
    """

    def __init__(
        self,
        job: JobRecord,
        store: JobStore,
        folders: JobFolders,
        commands: Commands,
        complete: Complete,
        notify: Callable[[], None],
    ) -> None:
        self.job = job
        self.ended = asyncio.Event()
        self._store = store
        self._folders = folders
        self._commands = commands
        self._complete = complete
        self._notify = notify
        self._log = folders.log(job)
        self._child: Child | None = None
        self._is_cancelled = False
        self._is_stopped = False
        self._is_waiting = False
        self._has_new_lines = False  # in the log
        self._share = 0.0  # of the job that was done when this attempt began

    def cancel(self) -> None:
        """Kill the command, and try it no more."""
        self._is_cancelled = True
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        """Kill the command, because the server stops."""
        self._is_stopped = True
        if self._child is not None:
            self._child.kill()

    async def run(self) -> JobRecord | None:
        """Run the command until the job ends; return the ended job, or None if the server stops."""
        if self.job.resumed:
            await asyncio.to_thread(self._folders.fetch_log, self.job)
        saving = asyncio.create_task(self._save_progress())
        try:
            while (ended := await self._attempt()) is None:
                if self._is_stopped:
                    return None
                await asyncio.sleep(_RETRY_SECONDS)
            return ended
        finally:
            saving.cancel()

    async def _attempt(self) -> JobRecord | None:
        """Run the command once; return the ended job, or None if it was interrupted."""
        self._share = self.job.share
        try:
            result, outcome = await self._run_command()
            return replace(self.job, state="succeeded", share=1.0, result=result, outcome=outcome)
        except StoreUnavailable as error:
            if self._is_cancelled:
                return replace(self.job, state="cancelled")
            if not self._is_waiting:  # once an outage, however long it lasts
                logger.warning("job %s waits: %s", self.job.id, error)
                self._append("The store of the files does not answer; the job waits for it.")
            self._is_waiting = True
            self.job = replace(self.job, resumed=self.job.resumed + 1, seconds_left=None)
            self._notify()
            return None
        except (ChildKilled, DatabaseError) as error:
            if self._is_cancelled:
                return replace(self.job, state="cancelled")
            if self._is_stopped:
                return None
            if self.job.attempts >= MAX_ATTEMPTS:
                return self._fail(str(error))
            self._append(f"{error} It is tried again.")
            attempts, resumed = self.job.attempts + 1, self.job.resumed + 1
            self.job = replace(self.job, attempts=attempts, resumed=resumed, seconds_left=None)
            self._notify()
            return None
        except (ChildFailed, Problem) as error:
            return self._fail(str(error))
        except OSError as error:
            logger.exception("the command of job %s cannot be started", self.job.id)
            reason = "there is too little free space on the disk" if error.errno == ENOSPC else error.strerror
            return self._fail(f"The job cannot be started: {reason}.")
        except Exception:
            logger.exception("job %s failed", self.job.id)
            return self._fail("The server failed; its log has more under the job's id.")

    async def _run_command(self) -> Completed:
        if self.job.attempts > MAX_ATTEMPTS:
            raise ChildFailed(f"The job was interrupted {MAX_ATTEMPTS} times without getting further.")
        await asyncio.to_thread(self._folders.create, self.job)
        is_new_here = not self._folders.data(self.job).is_dir()
        if is_new_here and self.job.resumed and self._store.is_shared:
            self._append("The job begins again: another server has run it, whose files are not here.")
        if is_new_here:
            # Before the images are read: a later change counts as one that the job does not know.
            of_job = self.job.kind, self.job.product
            revision, good = await asyncio.to_thread(self._commands.read_dataset, *of_job)
            self.job = replace(self.job, data_revision=revision, good=good)
            await asyncio.to_thread(self._store.change, self.job, "running")
        command = await asyncio.to_thread(self._commands.prepare, self.job)
        result = await self._run_child(command)
        if not await asyncio.to_thread(self._store.change, self.job, "running"):
            self.stop()
            raise ChildKilled("Another server has taken the job over.")
        return await self._complete(self.job, result, self._run_child)

    async def _run_child(self, command: Sequence[str]) -> Mapping[str, Any]:
        environment = self._commands.environment()
        self._child = child = Child(command, environment, self._append, self._take_progress)
        if self._is_stopped or self._is_cancelled:
            child.kill()
        return await child.run()

    def _append(self, line: str) -> None:
        with suppress(OSError):  # the disk is full; the job may still succeed
            self._log.append(self._commands.redact(self.job, line))
        self._has_new_lines = True
        self._notify()

    def _take_progress(self, progress: ChildProgress) -> None:
        self.job = replace(
            self.job,
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            share=max(progress.share, self.job.share),
            seconds_left=progress.seconds_left,
            attempts=0 if progress.share > self._share else self.job.attempts,
        )
        self._notify()

    def _fail(self, detail: str) -> JobRecord:
        return replace(self.job, state="failed", error=self._commands.redact(self.job, detail))

    async def _save_progress(self) -> None:
        saved = self.job
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            if self._has_new_lines:
                self._has_new_lines = False
                with suppress(OSError):  # the end of the job publishes it again
                    await asyncio.to_thread(self._folders.publish_log, saved)
            if self.job != saved:
                saved = self.job
                with suppress(DatabaseError):  # the end is what must be stored
                    await asyncio.to_thread(self._store.change, saved, "running")
