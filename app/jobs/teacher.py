"""The teacher: queues starters and trainings of products whose takeover is automatic."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Row

from app.auth.audit import Audit
from app.auth.permissions import SERVER
from app.errors.problems import Problem
from app.jobs.job import TAUGHT, JobRecord
from app.jobs.runner import JobRunner
from app.jobs.teaching import Lesson, count_needed, decide, find_origin
from app.products.products import Products
from app.schemas import jobs as schemas
from app.schemas.jobs import JobKind
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.calibration.conformal import good_images_for

logger = logging.getLogger("flowgauge.teacher")

_POLL_SECONDS: Final = 1.0
# A product is looked at for this long after its images changed, a job ended, or the server started.
_ATTENTION_SECONDS: Final = 120.0
_TARGET_FPR: Final = 0.01  # of a training by default


class _Seen(NamedTuple):
    """The revision of a product's images, and when it and the jobs were last seen to change."""

    revision: int
    ended_jobs: int
    changed: float
    noticed: float


class Teacher:
    """The teacher of a service."""

    def __init__(self, products: Products, jobs: JobRunner, models: Path, audit: Audit) -> None:
        self._products = products
        self._jobs = jobs
        self._models = models
        self._audit = audit
        self._seen: dict[str, _Seen] = {}

    async def run(self) -> None:
        """Look at all products once a second, without end."""
        while True:
            try:
                for product in await asyncio.to_thread(self._products.find, None):
                    seen = self._look(product)
                    is_due = time.monotonic() < seen.noticed + _ATTENTION_SECONDS
                    if is_due and product.takeover == "automatic":
                        await self._teach(product, time.monotonic() - seen.changed)
            except Exception:  # whatever it is, teaching goes on
                logger.exception("cannot teach; trying again")
            await asyncio.sleep(_POLL_SECONDS)

    def describe(self, product: Row[Any]) -> schemas.Teaching:
        """Describe what is going on with a product, and what comes next."""
        recent = self._jobs.store.of_product(product.name)
        lesson = self._read_lesson(product, recent, 0)
        kind, needed = count_needed(lesson) if product.takeover == "automatic" else (None, 0)
        running = self._jobs.with_progress([job for job in recent if not job.has_ended])
        last = next((job for job in recent if job.has_ended and job.kind in TAUGHT), None)
        target, promised = self._read_promise(product.name)
        return schemas.Teaching(
            next=kind,
            needed=needed,
            jobs=[job.to_schema() for job in running],
            last=None if last is None else last.to_schema(),
            target_fpr=target,
            promised_fpr=promised,
            missing_for_target=max(0, good_images_for(target) - lesson.good),
        )

    def _look(self, product: Row[Any]) -> _Seen:
        now, ended = time.monotonic(), self._jobs.ended
        seen = self._seen.get(product.name)
        if seen is None or seen.revision != product.data_revision:
            seen = _Seen(product.data_revision, ended, changed=now, noticed=now)
        elif seen.ended_jobs != ended:
            seen = seen._replace(ended_jobs=ended, noticed=now)
        self._seen[product.name] = seen
        return seen

    async def _teach(self, product: Row[Any], quiet_seconds: float) -> None:
        recent = await asyncio.to_thread(self._jobs.store.of_product, product.name)
        lesson = await asyncio.to_thread(self._read_lesson, product, recent, quiet_seconds)
        if (kind := decide(lesson)) is None:
            return
        try:
            job = await self._jobs.start(kind, product.name, {}, SERVER.actor)
        except Problem as problem:  # a person was faster, or the queue is full
            logger.info("no %s job for %s now: %s", kind, product.name, problem.detail)
            return
        detail = {"kind": kind, "job": job.id, "good": lesson.good}
        await asyncio.to_thread(self._audit.write, SERVER, "job.start", product.name, "done", detail)

    def _read_lesson(self, product: Row[Any], recent: Sequence[JobRecord], quiet_seconds: float) -> Lesson:
        last: dict[JobKind, JobRecord] = {}
        for job in recent:
            last.setdefault(job.kind, job)
        return Lesson(
            good=self._products.counts([product.name])[product.name].good,
            revision=product.data_revision,
            quiet_seconds=quiet_seconds,
            active=find_origin(models_folder.active_version(self._models, product.name), recent),
            last=last,
        )

    def _read_promise(self, product: str) -> tuple[float, float | None]:
        """Return the rate that the active version is calibrated for, and the one that it can promise."""
        try:
            manifest = read_manifest(models_folder.resolve(self._models, product))
        except BundleError:
            return _TARGET_FPR, None
        record = manifest.thresholds["float32"]
        return record.target_fpr, record.achievable_fpr
