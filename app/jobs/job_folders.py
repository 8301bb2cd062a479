"""The files of jobs, in the history folder."""

import shutil
from pathlib import Path

from app.jobs.job import JobRecord
from app.jobs.job_log import JobLog


class JobFolders:
    """Folders of jobs: logs, images to train with, reports, and checkpoints.

    Attributes:
        path: folder of all jobs.
        runs: checkpoints and cached features of trainings.
    """

    def __init__(self, history: Path) -> None:
        self.path = history / "jobs"
        self.runs = self.path / "runs"

    def data(self, job: JobRecord) -> Path:
        """Return the folder of the images that a job reads."""
        return self.path / job.id / "data"

    def report(self, job: JobRecord) -> Path:
        """Return the folder of the report that a job writes."""
        return self.path / job.id / "report"

    def find_report(self, job: JobRecord, version: str | None = None) -> Path | None:
        """Find the page that an evaluation of a version wrote, by default of any; None without one."""
        return next(self.report(job).glob(f"{job.product}/{version or '*'}/report.html"), None)

    def log(self, job: JobRecord) -> JobLog:
        """Return the log of a job."""
        return JobLog(self.path / job.id / "log.txt")

    def create(self, job: JobRecord) -> None:
        """Create the folder of a job."""
        self.data(job).parent.mkdir(parents=True, exist_ok=True)

    def remove_data(self, job: JobRecord) -> None:
        """Remove what an ended job no longer needs; a failed training keeps its checkpoint."""
        shutil.rmtree(self.data(job), ignore_errors=True)
        if job.kind == "train" and job.state != "failed":
            shutil.rmtree(self.runs / job.product, ignore_errors=True)

    def remove_all_but(self, kept: set[str]) -> None:
        """Remove the folders of deleted jobs."""
        for folder in self.path.iterdir() if self.path.is_dir() else ():
            if folder.name not in kept and folder != self.runs:
                shutil.rmtree(folder, ignore_errors=True)
