"""Live events as server-sent events."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from app.auth.permissions import MaySeeHistory
from app.dependencies import FeedDep
from app.errors.problems import Problem
from app.events.feed import Feed
from app.events.log import EventSelector
from app.events.stream import MEDIA_TYPE, FeedResponse
from app.middleware import authentication
from app.routes.openapi import documented
from app.routes.parameters import text_query
from app.schemas.predict import Decision

router = APIRouter(prefix="/v1/events", tags=["history"])

BEGINNING: Final = "beginning"
_CURSOR: Final = "0193a6b2-4711"
_EXAMPLE: Final = (
    f"id: {_CURSOR}\nevent: inspection\n"
    'data: {"inspection_id": "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11", "category": "bottle", '
    '"decision": "REJECT"}\n\n'
)
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events as they happen, until either side ends it. `inspection`, `review`, `model` "
        "and `thresholds` have the data of docs/how-to/receive-events.md. `position` has only an `id` to "
        "resume from. `gap` comes first if events may be missing.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


@router.get(
    "",
    response_class=Response,
    responses={
        **_ANSWER,
        **documented("invalid-request", "internal", "queue-full", "history-unavailable", "draining"),
    },
)
async def listen(
    request: Request,
    caller: MaySeeHistory,
    feed: FeedDep,
    category: Annotated[str | None, text_query("Of this category.", "bottle")] = None,
    station: Annotated[str | None, text_query("Of inspections at this station.", "line-3")] = None,
    decision: Annotated[
        list[Decision] | None, Query(description="Only inspections with this decision. May be repeated.")
    ] = None,
    after: Annotated[
        str | None,
        Query(
            description=f"Start after the event with this `id`, or with the first one kept: `{BEGINNING}`.",
            max_length=64,
            examples=[_CURSOR],
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            description="As `after`, which it overrides; browsers send it when they reconnect.",
            examples=[_CURSOR],
        ),
    ] = None,
) -> Response:
    """Stream events: inspections, reviews, changes of models and thresholds.

    Events hold metadata and links, no images. After an interruption, resume with the last `id`: every missed
    event follows once, in order. A reader that takes nothing for 30 seconds, or falls behind by thousands of
    events, is disconnected and may reconnect. Inspections with `store=false` are not in the stream.
    """
    if category is not None:
        caller.require_category(category)
    selector = EventSelector(
        category=caller.categories if category is None else frozenset({category}),
        station=None if station is None else frozenset({station}),
        decision=frozenset(decision) if decision else None,
    )
    number, gap = await _find_start(feed, last_event_id or after)
    may_listen = partial(authentication.is_still_allowed, request.scope)
    return FeedResponse(feed, selector, number, gap, may_listen, caller.key_id)


async def _find_start(feed: Feed, cursor: str | None) -> tuple[int, str | None]:
    """Return the number to start after, and the reason for a gap before it, if there is one."""
    if not cursor:
        return feed.position, None
    forgotten, newest = await feed.kept()
    if cursor == BEGINNING:
        return forgotten, None
    try:
        number = feed.cursors.read(cursor)
    except ValueError as error:
        raise Problem(
            "invalid-request", f"after or Last-Event-ID is no `id` of an event: {cursor[:64]!r}"
        ) from error
    if number is None:
        return feed.position, "The id belongs to another history, such as one before a backup was restored."
    if number < forgotten:
        return forgotten, "The next events are no longer kept; read /v1/inspections instead."
    if number > newest:  # after data loss, numbers are assigned again
        return feed.position, "The event was lost, as after a power failure; others may be missing, too."
    return number, None
