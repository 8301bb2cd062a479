"""The inspection that a path names, for every route below /v1/inspections/{inspection_id}."""

import re
from typing import Annotated, Any, Final

from fastapi import Depends, Path
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from app.access import MaySeeResult
from app.dependencies import HistoryPart
from app.history import queries
from app.problems import Problem

ID_PATTERN: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


async def _known_inspection(
    inspection_id: Annotated[
        str,
        Path(description="`inspection_id` of an answer.", examples=["0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"]),
    ],
    caller: MaySeeResult,
    history: HistoryPart,
) -> Row[Any]:
    """Find it, even if it was answered a moment ago."""

    def find() -> Row[Any] | None:
        with history.database.read() as connection:
            return queries.find(connection, inspection_id)

    row = None
    if re.fullmatch(ID_PATTERN, inspection_id):
        row = await run_in_threadpool(find)
        if row is None:
            await history.settled()
            row = await run_in_threadpool(find)
    if row is None:
        raise Problem(
            "unknown-inspection",
            "No inspection has this id: it was never kept, or retention has removed it.",
        )
    caller.require_category(row.category)
    return row


# All its columns; the caller may see it.
KnownInspection = Annotated[Row[Any], Depends(_known_inspection)]
