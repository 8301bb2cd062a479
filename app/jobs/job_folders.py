"""The files of jobs, in the history folder."""

import shutil
from pathlib import Path

from app.jobs.job import JobRecord
from app.jobs.job_log import JobLog
from app.registry.free_disk import require_room_for_upload


class JobFolders:
    """Folders of jobs: logs, images to read, checkpoints, and reports."""

    def __init__(self, history: Path) -> None:
        self.path = history / "jobs"

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
        return next(self.report(job).glob(f"{job.product}/{version or '*'}/report.html"), None)

    def log(self, job: JobRecord) -> JobLog:
        return JobLog(self.path / job.id / "log.txt")

    def create(self, job: JobRecord) -> None:
        """Create the folder of a job.

        Raises:
            OSError: inspections need the space that is left on the disk.
        """
        self.data(job).parent.mkdir(parents=True, exist_ok=True)
        require_room_for_upload(self.path, 0)

    def remove_data(self, job: JobRecord) -> None:
        """Remove what an ended job no longer needs."""
        for folder in (self.path / job.id).glob("*/"):
            if folder != self.report(job):
                shutil.rmtree(folder, ignore_errors=True)

    def remove_all_but(self, kept: set[str]) -> None:
        for folder in self.path.iterdir() if self.path.is_dir() else ():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
