"""Jobs: trainings and other commands that run beside serving."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from app.auth.audit import audited
from app.auth.permissions import Caller, MaySeeHistory, MayTeach
from app.dependencies import FeedDep, JobsDep
from app.errors.problems import Problem
from app.events.stream import MEDIA_TYPE, RETRY, EventStreamResponse, to_frame
from app.jobs.job import JobRecord
from app.jobs.job_log import LAST_LINES
from app.jobs.runner import JobRunner
from app.middleware import authentication
from app.routes.models import REPORT_POLICY
from app.routes.openapi import LOCATION, documented
from app.routes.parameters import text_query
from app.schemas import jobs as schemas

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobIdPath = Annotated[str, Path(description="Id of the job.", max_length=36)]
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "`job` has the job without its lines: at once, at each change, and as a heartbeat. "
        "`lines` has new lines of the log. The stream ends with the job.",
        "content": {
            MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": 'event: lines\nid: 4711\ndata: {"lines": ["epoch 12 of 39"]}\n\n',
            }
        },
    }
}


@router.post(
    "",
    status_code=202,
    responses={
        202: {"description": "The job is queued.", "headers": LOCATION},
        **documented(
            *("invalid-request", "unknown-product", "unknown-model", "conflict", "internal", "queue-full"),
            *("history-unavailable", "model-loading", "rejected-bundle", "draining"),
        ),
    },
)
async def start_job(
    new: schemas.NewJob, request: Request, response: Response, jobs: JobsDep, caller: MayTeach
) -> schemas.Job:
    """Queue a job, such as a training, or return the equal one that waits, or runs with the same images.

    One training, evaluation or learning runs at a time; starters, calibrations, comparisons and checks run
    beside it, one at a time. A restart of the server resumes jobs. Each job reads the product's images of its
    start.
    """
    caller.require_category(new.product)
    settings = new.settings.model_dump(mode="json", exclude_none=True, by_alias=True)
    known = {"kind": new.kind, "settings": settings}
    async with audited(request, "job.start", new.product, known) as detail:
        job = await jobs.start(new.kind, new.product, settings, caller.actor)
        detail["job"] = job.id
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job.to_schema()


@router.get("", responses=documented("invalid-request", "internal", "history-unavailable"))
def list_jobs(
    jobs: JobsDep,
    caller: MaySeeHistory,
    product: Annotated[str | None, text_query("Only of this product.", "bottle")] = None,
    state: Annotated[
        list[schemas.JobState] | None, Query(description="Only in this state. May be repeated.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs per page.")] = 50,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the previous page.", max_length=36)
    ] = None,
) -> schemas.JobPage:
    """List jobs, the newest first."""
    if product is not None:
        caller.require_category(product)
    products = caller.categories if product is None else [product]
    found = jobs.store.page(limit + 1, cursor, states=state, products=products)
    shown = jobs.with_progress(found[:limit])
    return schemas.JobPage(
        jobs=[job.to_schema() for job in shown], next_cursor=shown[-1].id if len(found) > limit else None
    )


@router.get("/{job_id}", responses=documented("unknown-job", "internal", "history-unavailable"))
def get_job(job_id: JobIdPath, jobs: JobsDep, caller: MaySeeHistory) -> schemas.Job:
    """Return a job with its progress and the last lines of its log."""
    job = _find(jobs, job_id, caller)
    return job.to_schema(jobs.read_log(job)[1][-LAST_LINES:])


@router.post(
    "/{job_id}:cancel", responses=documented("unknown-job", "conflict", "internal", "history-unavailable")
)
async def cancel_job(job_id: JobIdPath, request: Request, jobs: JobsDep, caller: MayTeach) -> schemas.Job:
    """Cancel a job that waits or runs. Versions that it published before stay."""
    job = await asyncio.to_thread(_find, jobs, job_id, caller)
    async with audited(request, "job.cancel", job.product, {"job": job.id, "kind": job.kind}):
        return (await jobs.cancel(job_id)).to_schema()


@router.get(
    "/{job_id}/report",
    response_class=Response,
    responses={
        200: {
            "description": "A page without scripts.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        **documented("unknown-job", "not-found", "internal", "history-unavailable"),
    },
)
def get_report(job_id: JobIdPath, jobs: JobsDep, caller: MaySeeHistory) -> Response:
    """Return the report of an evaluation."""
    file = jobs.folders.find_report(_find(jobs, job_id, caller))
    if file is None:
        raise Problem("not-found", "The job has evaluated no version.")
    return Response(
        file.read_bytes(), headers={"Content-Security-Policy": REPORT_POLICY}, media_type="text/html"
    )


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses={
        **_STREAM,
        **documented("unknown-job", "internal", "queue-full", "history-unavailable", "draining"),
    },
)
async def follow_job(
    job_id: JobIdPath,
    request: Request,
    jobs: JobsDep,
    feed: FeedDep,
    caller: MaySeeHistory,
    after: Annotated[
        int, Query(ge=0, le=10**9, description="Only lines after this `id`.", examples=[4711])
    ] = 0,
    last_event_id: Annotated[
        str | None,
        Header(
            description="As `after`, which it overrides; browsers send it when they reconnect.",
            pattern="^[0-9]{1,9}$",
            examples=["4711"],
        ),
    ] = None,
) -> Response:
    """Stream a job's progress and its log from the beginning, as server-sent events, until it ends."""
    await asyncio.to_thread(_find, jobs, job_id, caller)
    pieces = _write_events(jobs, job_id, int(last_event_id or after), request)
    return EventStreamResponse(pieces, feed, caller.key_id)


def _find(jobs: JobRunner, job_id: str, caller: Caller) -> JobRecord:
    job = jobs.get(job_id)
    caller.require_category(job.product)
    return job


async def _write_events(
    jobs: JobRunner, job_id: str, position: int, request: Request
) -> AsyncGenerator[bytes, None]:
    may_listen = partial(authentication.is_still_allowed, request.scope)
    yield RETRY
    async for news in jobs.follow(job_id, position):
        if not may_listen():
            yield b": the key is no longer valid\n\n"
            return
        identifier = str(news.position)
        if news.lines:
            yield to_frame("lines", schemas.JobLines(lines=news.lines).model_dump_json(), identifier)
        yield to_frame("job", news.job.to_schema().model_dump_json(), identifier)
