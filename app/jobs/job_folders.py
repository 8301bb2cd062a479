"""The files of jobs, in the history folder."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.jobs.job import JobRecord
from app.jobs.job_log import JobLog, whole_lines
from app.registry.free_disk import require_room_for_upload
from app.storage.store import Store, StoreUnavailable
from flows.fastflow.files.atomic_files import replace_file, temporary_directory

LOG: Final = "log.txt"


class JobFolders:
    """Folders of jobs: logs, images to read, checkpoints, and reports.

    Args:
        store: holds logs and reports for the servers that do not run the job; None with one server.
    """

    def __init__(self, history: Path, store: Store | None = None) -> None:
        self.path = history / "jobs"
        self._store = store

    def data(self, job: JobRecord) -> Path:
        return self.path / job.id / "data"

    def runs(self, job: JobRecord) -> Path:
        """Return the folder of a job's checkpoint and cached features."""
        return self.path / job.id / "runs"

    def models(self, job: JobRecord) -> Path:
        """Return the models folder of a job's command, if it is not that of the service."""
        return self.path / job.id / "models"

    def compared(self, job: JobRecord) -> Path:
        """Return the folder of the images that a job compares versions on before a takeover."""
        return self.path / job.id / "compared"

    def report(self, job: JobRecord) -> Path:
        return self.path / job.id / "report"

    def find_report(self, job: JobRecord, version: str | None = None) -> Path | None:
        """Find the page that an evaluation of a version wrote, by default of any; None without one."""
        if self._store is not None and job.kind == "evaluate" and not self.report(job).is_dir():
            self._fetch_report(job, self._store)
        return next(self.report(job).glob(f"{job.product}/{version or '*'}/report.html"), None)

    def log(self, job: JobRecord) -> JobLog:
        return JobLog(self.path / job.id / LOG)

    def read_log(self, job: JobRecord, position: int, *, runs_here: bool) -> tuple[int, list[str]]:
        """Read the whole lines of a job's log after a position, as `JobLog.read`."""
        if self._store is None or runs_here:
            return self.log(job).read(position)
        try:
            size, lines = whole_lines(self._store.read(f"{job.id}/{LOG}")[position:])
            return position + size, lines
        except (FileNotFoundError, StoreUnavailable):  # its end is not the end of the log
            return position, []

    def publish_log(self, job: JobRecord) -> None:
        """Copy the log to the store."""
        file = self.path / job.id / LOG
        if self._store is not None and file.is_file():
            self._store.write(f"{job.id}/{LOG}", file.read_bytes())

    def publish(self, job: JobRecord) -> None:
        """Copy log and report of an ended job to the store.

        Raises:
            StoreUnavailable: a retry can help.
        """
        if self._store is None:
            return
        self.publish_log(job)
        for file in self.report(job).rglob("*"):
            if file.is_file():
                self._store.write(f"{job.id}/{file.relative_to(self.path / job.id)}", file.read_bytes())

    def create(self, job: JobRecord) -> None:
        """Create the folder of a job.

        Raises:
            OSError: inspections need the space that is left on the disk.
        """
        self.data(job).parent.mkdir(parents=True, exist_ok=True)
        require_room_for_upload(self.path, 0)

    def fetch_log(self, job: JobRecord) -> None:
        """Continue the log of the server that ran a job before."""
        if self._store is not None:
            with suppress(OSError):
                data, file = self._store.read(f"{job.id}/{LOG}"), self.path / job.id / LOG
                if not file.exists() or file.stat().st_size < len(data):
                    replace_file(file, data, sync=False)

    def remove_data(self, job: JobRecord) -> None:
        """Remove what an ended job no longer needs."""
        for folder in (self.path / job.id).glob("*/"):
            if folder != self.report(job):
                shutil.rmtree(folder, ignore_errors=True)

    def remove_all_but(self, kept: set[str]) -> None:
        """Remove the files of all other jobs, in the store too if it answers."""
        for folder in self.path.iterdir() if self.path.is_dir() else ():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        if self._store is not None:
            with suppress(StoreUnavailable):  # a server must lead without it too
                for name in self._store.list(""):
                    if name.partition("/")[0] not in kept:
                        self._store.delete(name)

    def _fetch_report(self, job: JobRecord, store: Store) -> None:
        folder = self.path / job.id
        with suppress(StoreUnavailable), temporary_directory(folder) as temporary:
            for name in store.list(f"{job.id}/report"):
                file = temporary / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(store.read(name))
            with suppress(OSError):  # there is none, or another request has just fetched it
                (temporary / job.id / "report").rename(self.report(job))
