"""Use of the results of jobs' commands."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from app.jobs.execution import Completed, Run
from app.jobs.job import TAUGHT, JobRecord
from app.jobs.job_folders import JobFolders
from app.jobs.takeover import BY_HAND, Takeover
from app.products.folders import find_sha256, record_check
from app.products.products import Products
from app.registry.model_files import ModelFiles
from app.schemas.comparison import VersionComparison

_PUBLISHING: Final = (*TAUGHT, "learn", "calibrate")
_PATHS: Final = ("bundle", "folder", "report", "parts_file")  # of the server, which no answer names


class Completion:
    """Completion of jobs: the findings of a check go to the product, a new version may take over."""

    def __init__(
        self, files: ModelFiles, folders: JobFolders, products: Products, takeover: Takeover
    ) -> None:
        self._files = files
        self._folders = folders
        self._products = products
        self._takeover = takeover

    async def complete(self, job: JobRecord, result: Mapping[str, Any], run: Run) -> Completed:
        """Use a result; return what the job's answer has of it. `run` runs another command."""
        if job.kind in _PUBLISHING:
            await asyncio.to_thread(self._files.take, self._folders.models(job), job.product)
        shown = {name: value for name, value in result.items() if name not in _PATHS}
        if job.kind == "check":
            await asyncio.to_thread(record_check, self._products, job.product, result)
            return Completed({name: value for name, value in shown.items() if name != "findings"})
        if job.kind in TAUGHT:
            return Completed(shown, await self._takeover.take_over(job, str(result["version"]), run))
        if job.kind == "compare":
            images = [{**image, "image": find_sha256(image["path"])} for image in result["images"]]
            return Completed(VersionComparison.model_validate({**result, "images": images}).model_dump())
        if job.kind == "learn":
            return Completed(shown, BY_HAND)
        if job.kind == "evaluate":
            shown["summary"] = {name: value for name, value in shown["summary"].items() if name != "data"}
        return Completed(shown)
