"""Filter of a page by category, station and decision, carried along by links between pages."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends, Query

from app.auth.permissions import AnyCaller, Caller
from app.history.queries import InspectionFilter
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN
from flows.fastflow.bundle import models_folder

_TEXT: Final[Any] = Query(max_length=MAX_TEXT, pattern=TEXT_PATTERN)


@dataclass(frozen=True)
class PageSelection(InspectionFilter):
    """Filter of the inspections on a page, limited to the categories of the caller."""

    def audit_queue(self) -> "PageSelection":
        """Return the inspections of the audit sample to review; their decisions stay hidden."""
        return replace(self, decision=None, audit=True, reviewed=False)

    @property
    def query_string(self) -> str:
        """Query string that carries the filter to another page; empty without a filter."""
        chosen = {"category": self.category, "station": self.station, "decision": self.decision}
        if self.audit:
            chosen["audit"] = "true"
        given = {name: value for name, value in chosen.items() if value is not None}
        return f"?{urlencode(given)}" if given else ""


async def _read_selection(
    caller: AnyCaller,
    category: Annotated[str | None, _TEXT] = None,
    station: Annotated[str | None, _TEXT] = None,
    decision: Annotated[str | None, Query(pattern="^(PASS|REVIEW|REJECT)?$")] = None,
) -> PageSelection:
    # A form sends empty text for a field that is not set.
    if category:
        caller.require_category(category)
    return PageSelection(
        category or None, decision or None, None, station or None, categories=caller.categories
    )


PageFilter = Annotated[PageSelection, Depends(_read_selection)]


def visible_categories(models: Path, caller: Caller, *, active: bool = False) -> list[str]:
    """List the categories that the caller may see; with `active`, only those with an active version."""
    return [
        name
        for name in models_folder.categories(models)
        if (caller.categories is None or name in caller.categories)
        and (not active or models_folder.active_version(models, name) is not None)
    ]
