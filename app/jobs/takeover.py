"""Takeover: the activation of a version that a job has made."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.auth.audit import Audit
from app.auth.permissions import SERVER
from app.errors.problems import Problem
from app.jobs.child import ChildFailed, ChildKilled
from app.jobs.commands import Commands
from app.jobs.execution import Run
from app.jobs.job import JobRecord
from app.jobs.job_store import JobStore
from app.jobs.teaching import SERVES, find_origin
from app.products.products import Products
from app.registry.model_store import ModelStore
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import BundleError, read_manifest

BY_HAND = "Activate the version by hand to use it."


class Takeover:
    """Activation of new versions for products whose takeover is automatic."""

    def __init__(
        self, store: ModelStore, products: Products, jobs: JobStore, commands: Commands, audit: Audit
    ) -> None:
        self._store = store
        self._products = products
        self._jobs = jobs
        self._commands = commands
        self._audit = audit

    async def take_over(self, job: JobRecord, version: str, run: Run) -> str:
        """Activate a version if it may take over, and return what became of it.

        A version takes over if the product's takeover is automatic, the active version is not a person's
        choice, and it is no worse than that one, see `_find_obstacle`.

        Raises:
            ChildKilled: the comparison was killed; the job can be run again.
        """
        product = await asyncio.to_thread(self._products.get, job.product)
        active = await asyncio.to_thread(models_folder.active_version, self._store.models, job.product)
        if active == version:
            return SERVES
        if product.takeover != "automatic":
            return f"The product's takeover is manual. {BY_HAND}"
        if active is not None and (obstacle := await self._find_obstacle(job, active, version, run)):
            return f"{obstacle} {BY_HAND}"
        try:
            activated = await self._store.replace_active(job.product, active, version)
        except Problem as problem:
            return f"The version could not be activated: {problem.detail}"
        detail = {"previous": activated.previous, "sha256": activated.sha256, "reason": f"job {job.id}"}
        target = f"{job.product}/{version}"
        await asyncio.to_thread(self._audit.write, SERVER, "model.activate", target, "done", detail)
        return SERVES

    async def _find_obstacle(self, job: JobRecord, active: str, version: str, run: Run) -> str | None:
        """Return the reason why a version may not replace the active one; None if it may."""
        recent = await asyncio.to_thread(self._jobs.of_product, job.product)
        if find_origin(active, recent) == "elsewhere":
            return f"The active version {active} is a person's choice."
        folder = self._store.models / job.product
        try:
            before = await asyncio.to_thread(read_manifest, folder / active)
        except BundleError:
            return None  # it is damaged
        after = await asyncio.to_thread(read_manifest, folder / version)
        old, new = before.thresholds["float32"], after.thresholds["float32"]
        # A starter's calibration proves nothing: it is fitted to the same images.
        if old.certified and not new.certified and not before.starter:
            return (
                f"The active version is certified for {old.target_fpr:.2%}. With {new.n_calibration} "
                f"held-out images, the new one is not certified for {new.target_fpr:.2%}."
            )
        try:
            command = await asyncio.to_thread(self._commands.compare, job, version, active)
            comparison = None if command is None else await run(command)
        except ChildKilled:
            raise
        except (ChildFailed, Problem) as error:
            return f"It could not be compared with the active version: {error}"
        return None if comparison is None else _find_worse(comparison, new.achievable_fpr)


def _find_worse(comparison: Mapping[str, Any], promise: float) -> str | None:
    """Return what is worse by a comparison on images that neither version knows; None if nothing is.

    A version may not miss more defects, nor reject more good images than the active one or its promise.

    Args:
        comparison: see `app.schemas.comparison`.
        promise: share of good images that the new version is expected to reject.
    """
    old, new, good = comparison["before"], comparison["after"], comparison["good"]
    if new["rejected_defective"] < old["rejected_defective"]:
        return (
            f"The active version finds {old['rejected_defective']} of {comparison['defective']} defects, the "
            f"new one {new['rejected_defective']}."
        )
    if new["rejected_good"] > max(old["rejected_good"], promise * good):
        return (
            f"The active version rejects {old['rejected_good']} of {good} good images that neither knows, "
            f"the new one {new['rejected_good']}."
        )
    return None
