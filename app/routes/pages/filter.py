"""The filter of a page: category, station and decision; links between pages carry it along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends, Query

from app.auth.access import AnyCaller, Caller
from app.history.queries import InspectionFilter
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN
from flows.fastflow.bundle import models_folder

_TEXT: Final[Any] = Query(max_length=MAX_TEXT, pattern=TEXT_PATTERN)


@dataclass(frozen=True)
class Chosen(InspectionFilter):
    """A filter of inspections that a page shows, of those that the caller may see."""

    @property
    def trail(self) -> str:
        """The end of an address that makes another page choose the same; empty where nothing was chosen."""
        chosen = {"category": self.category, "station": self.station, "decision": self.decision}
        given = {name: value for name, value in chosen.items() if value is not None}
        return f"?{urlencode(given)}" if given else ""


async def _chosen(
    caller: AnyCaller,
    category: Annotated[str | None, _TEXT] = None,
    station: Annotated[str | None, _TEXT] = None,
    decision: Annotated[str | None, Query(pattern="^(PASS|REVIEW|REJECT)?$")] = None,
) -> Chosen:
    # A form sends what was left open as empty text.
    if category:
        caller.require_category(category)
    return Chosen(category or None, decision or None, None, station or None, categories=caller.categories)


PageFilter = Annotated[Chosen, Depends(_chosen)]


def categories(models: Path, caller: Caller, *, active: bool = False) -> list[str]:
    """Categories of a models folder that the caller's key is for; `active`: of which a version serves."""
    return [
        name
        for name in models_folder.categories(models)
        if (caller.categories is None or name in caller.categories)
        and (not active or models_folder.active_version(models, name) is not None)
    ]
