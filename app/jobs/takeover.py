"""Takeover: the activation of a version that a job has made."""

import asyncio

from app.auth.audit import Audit
from app.auth.permissions import SERVER
from app.errors.problems import Problem
from app.jobs.child import ChildFailed, ChildKilled
from app.jobs.commands import Commands
from app.jobs.job import JobRecord
from app.jobs.runner import Run
from app.products.products import Products
from app.registry.model_store import ModelStore
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import BundleError, read_manifest

SERVES = "The version serves."
_BY_HAND = "Activate the version by hand to use it."


class Takeover:
    """Activation of new versions for products whose takeover is automatic."""

    def __init__(self, store: ModelStore, products: Products, commands: Commands, audit: Audit) -> None:
        self._store = store
        self._products = products
        self._commands = commands
        self._audit = audit

    async def take_over(self, job: JobRecord, version: str, run: Run) -> str:
        """Activate a version if it may take over, and return what became of it.

        A version takes over if the product's takeover is automatic and the version is no worse than the
        active one: it finds as many of the product's defects. It replaces a certified version only
        if it is certified, too.

        Raises:
            ChildKilled: the measurement was killed; the job can be run again.
        """
        product = await asyncio.to_thread(self._products.get, job.product)
        active = await asyncio.to_thread(models_folder.active_version, self._store.models, job.product)
        if active == version:
            return SERVES
        if product.takeover != "automatic":
            return f"The product's takeover is manual. {_BY_HAND}"
        if active is not None:
            obstacle = await asyncio.to_thread(self._compare_manifests, job.product, active, version)
            obstacle = obstacle or await self._compare_on_defects(job, active, version, run)
            if obstacle is not None:
                return f"{obstacle} {_BY_HAND}"
        try:
            activated = await self._store.activate(job.product, version)
        except Problem as problem:
            return f"The version could not be activated: {problem.detail}"
        detail = {"previous": activated.previous, "sha256": activated.sha256, "reason": f"job {job.id}"}
        target = f"{job.product}/{version}"
        await asyncio.to_thread(self._audit.write, SERVER, "model.activate", target, "done", detail)
        return SERVES

    def _compare_manifests(self, product: str, active: str, version: str) -> str | None:
        """Return the reason why a version promises less than the active one; None if it does not."""
        folder = self._store.models / product
        try:
            before, after = read_manifest(folder / active), read_manifest(folder / version)
        except BundleError:
            return None  # the active version is damaged
        old, new = before.thresholds["float32"], after.thresholds["float32"]
        if old.certified and not new.certified:
            return (
                f"The active version is certified for {old.target_fpr:.2%}. With {new.n_calibration} "
                f"held-out images, the new one is not certified for {new.target_fpr:.2%}."
            )
        return None

    async def _compare_on_defects(self, job: JobRecord, active: str, version: str, run: Run) -> str | None:
        """Return the reason why a version finds fewer of the product's defects; None if it does not."""
        counts = await asyncio.to_thread(self._products.counts, [job.product])
        if not counts[job.product].defect:
            return None
        found = []
        for name in (active, version):
            command = await asyncio.to_thread(self._commands.measure, job, name)
            try:
                summary = (await run(command))["summary"]
            except ChildKilled:
                raise
            except ChildFailed as error:
                return f"It could not be compared with the active version: {error}"
            found.append(round(summary["recall"] * summary["defective"]))
        if found[1] < found[0]:
            return (
                f"The active version finds {found[0]} of the {summary['defective']} defects, the new one "
                f"{found[1]}."
            )
        return None
