"""Jobs in the database."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update

from app.database import clock, locks
from app.database.engine import Database
from app.database.notifications import notify
from app.database.tables import jobs
from app.errors.problems import Problem
from app.jobs.job import JobRecord
from app.schemas.jobs import ENDED, JobKind, JobState

MAX_QUEUED: Final = 50
MAX_KEPT: Final = 20  # ended jobs of a kind and product
_JSON: Final = ("settings", "result")


class JobStore:
    """The table of jobs. Safe to use from several threads.

    Attributes:
        is_shared: True if several servers may use it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_shared = not database.is_sqlite

    def add(
        self,
        kind: JobKind,
        product: str,
        settings: Mapping[str, Any],
        actor: str,
        data_revision: int | None = None,
        good: int | None = None,
    ) -> JobRecord:
        """Queue a job, or return an equal one: it waits, or runs with the same images.

        Raises:
            Problem: queue-full at the limit; conflict if one with other settings waits for the product.
        """
        job = JobRecord(clock.new_id(), clock.now_ms(), kind, product, actor, settings)
        job = replace(job, data_revision=data_revision, good=good)
        queued = select(func.count()).where(jobs.c.state == "queued")
        present = select(jobs).where(
            jobs.c.kind == kind, jobs.c.product == product, jobs.c.state.not_in(ENDED)
        )
        with self._database.write() as connection:
            locks.take(connection, locks.JOBS)  # two servers would both find no equal job
            for other in map(_from_row, connection.execute(present.order_by(jobs.c.id.desc()))):
                is_equal = other.settings == settings
                if is_equal and (other.state == "queued" or other.data_revision == data_revision):
                    return other
                if other.state == "queued":
                    raise Problem(
                        "conflict",
                        f"A {kind} job for {product!r} with other settings waits already; cancel it first.",
                    )
            if (connection.scalar(queued) or 0) >= MAX_QUEUED:
                raise Problem("queue-full", f"{MAX_QUEUED} jobs wait, the limit; try again later.", 60)
            newest = connection.scalar(select(func.max(jobs.c.id)))
            if newest is not None and newest > job.id:  # the clock was ahead: ids must keep the order
                job = replace(job, id=clock.first_id(clock.id_to_ms(newest) + 1))
            connection.execute(insert(jobs).values(_to_row(job)))
            notify(connection, "jobs")
        return job

    def get(self, identifier: str) -> JobRecord:
        """Read a job, or raise the problem unknown-job."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == identifier)).one_or_none()
        if row is None:
            raise Problem("unknown-job", "No job has this id, or it ended long ago.")
        return _from_row(row)

    def page(
        self,
        limit: int,
        before: str | None = None,
        *,
        states: Collection[JobState] | None = None,
        products: Collection[str] | None = None,
    ) -> list[JobRecord]:
        """Read jobs before an id, of some states and products or of all, newest first."""
        where: list[ColumnElement[bool]] = []
        if before is not None:
            where.append(jobs.c.id < before)
        if states is not None:
            where.append(jobs.c.state.in_(states))
        if products is not None:
            where.append(jobs.c.product.in_(products))
        with self._database.read() as connection:
            query = select(jobs).where(*where).order_by(jobs.c.id.desc()).limit(limit)
            return [_from_row(row) for row in connection.execute(query)]

    def of_product(self, product: str) -> list[JobRecord]:
        """Read all jobs of a product, newest first."""
        query = select(jobs).where(jobs.c.product == product).order_by(jobs.c.id.desc())
        with self._database.read() as connection:
            return [_from_row(row) for row in connection.execute(query)]

    def next_queued(self, kinds: Sequence[JobKind]) -> JobRecord | None:
        """Read the oldest queued job of some kinds; None without one."""
        query = select(jobs).where(jobs.c.state == "queued", jobs.c.kind.in_(kinds))
        with self._database.read() as connection:
            row = connection.execute(query.order_by(jobs.c.id).limit(1)).one_or_none()
        return None if row is None else _from_row(row)

    def change(self, job: JobRecord, before: JobState) -> bool:
        """Store a job that has another state in the database.

        Returns:
            False if it is in yet another state there, or runs in another server.
        """
        found = update(jobs).where(jobs.c.id == job.id, jobs.c.state == before)
        if before == "running":
            found = found.where(jobs.c.owner.is_not_distinct_from(job.owner))
        with self._database.write() as connection:
            notify(connection, "jobs")
            return connection.execute(found.values(_to_row(job))).rowcount == 1

    def request_cancel(self, identifier: str) -> None:
        """Let the server that runs a job cancel it."""
        found = update(jobs).where(jobs.c.id == identifier, jobs.c.state == "running")
        with self._database.write() as connection:
            connection.execute(found.values(cancel_requested=True))
            notify(connection, "jobs")

    def requeue(self) -> None:
        """Queue the jobs that a stopped server left running, to be resumed, unless they were cancelled."""
        found = update(jobs).where(jobs.c.state == "running")
        with self._database.write() as connection:
            cancelled = {"state": "cancelled", "ended_ms": clock.now_ms()}
            connection.execute(found.where(jobs.c.cancel_requested).values(cancelled))
            connection.execute(found.values(state="queued", owner=None, resumed=jobs.c.resumed + 1))
            notify(connection, "jobs")

    def prune(self) -> set[str]:
        """Delete the oldest ended jobs of each kind and product; return the ids of all that are left."""
        rank = func.row_number().over(partition_by=(jobs.c.kind, jobs.c.product), order_by=jobs.c.id.desc())
        ended = select(jobs.c.id, rank.label("rank")).where(jobs.c.state.in_(ENDED)).subquery()
        with self._database.write() as connection:
            oldest = select(ended.c.id).where(ended.c.rank > MAX_KEPT)
            connection.execute(delete(jobs).where(jobs.c.id.in_(oldest)))
            return {*connection.scalars(select(jobs.c.id))}


def _to_row(job: JobRecord) -> dict[str, Any]:
    # Another server may have requested the cancellation meanwhile.
    names = [column.name for column in jobs.columns if column.name != "cancel_requested"]
    row = {name: getattr(job, name) for name in names}
    return row | {name: None if row[name] is None else json.dumps(dict(row[name])) for name in _JSON}


def _from_row(row: Row[Any]) -> JobRecord:
    values = row._asdict()
    return JobRecord(
        **values | {name: None if values[name] is None else json.loads(values[name]) for name in _JSON}
    )
