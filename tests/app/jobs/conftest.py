"""Jobs whose command is a small script."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.database.engine import Database
from app.jobs.commands import Commands
from app.jobs.execution import Completed, Run
from app.jobs.job import JobRecord
from app.jobs.job_folders import JobFolders
from app.jobs.job_store import JobStore
from app.jobs.runner import JobRunner
from app.schemas.jobs import JobKind
from app.storage.store import Store

PRELUDE = """
import json, os, sys, time
from pathlib import Path
def tell(event, **values): print(json.dumps({"event": event, **values}), flush=True)
def progress(share): tell("progress", stage="fit", done=1, total=2, share=share, seconds_left=3.5)
def wait():
    while not Path("go").exists(): time.sleep(0.01)
"""


class Script(Commands):
    """Commands that run a Python script in a folder."""

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        self.code = code
        self.prepared: list[JobRecord] = []
        self.revision = 7

    def complete_settings(self, kind: JobKind, product: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return dict(settings)

    def read_dataset(self, kind: JobKind, product: str) -> tuple[int | None, int | None]:
        return self.revision, 12

    def prepare(self, job: JobRecord) -> list[str]:
        self.prepared.append(job)
        return [sys.executable, "-c", f"{PRELUDE}\nos.chdir({str(self.folder)!r})\n{self.code}"]

    def environment(self) -> dict[str, str]:
        return {}

    def redact(self, job: JobRecord, text: str) -> str:
        return text.replace("secret", "***")


class Jobs:
    """A queue of jobs whose command is a script; make a runner for each start of a server."""

    def __init__(self, database: Database, folder: Path, files: Store | None = None) -> None:
        self.folder = folder
        self.store = JobStore(database)
        self.folders = JobFolders(folder / "history", files)
        self.script = Script(folder, "tell('result', version='v1')")
        self.completed: list[JobRecord] = []

    def runner(self) -> JobRunner:
        return JobRunner(self.store, self.folders, self.script, self._complete, 1)

    async def _complete(self, job: JobRecord, result: Mapping[str, Any], _: Run) -> Completed:
        self.completed.append(job)
        return Completed(result, "it serves")


async def no_command(_: Sequence[str]) -> Mapping[str, Any]:
    """Run no command to complete a job."""
    raise AssertionError


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.upgrade()
    return Jobs(database, tmp_path)
