"""Filter of a page, carried along by links between pages."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Query
from pydantic import BeforeValidator

from app.auth.permissions import AnyCaller, Caller
from app.database import clock
from app.history.queries import InspectionFilter
from app.routes.parameters import MaxMargin, MinMargin, Time, require_category_of_margin
from app.schemas.history import Verdict
from app.schemas.predict import Decision, WarningCode
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN
from flows.fastflow.bundle import models_folder

_TEXT: Final[Any] = Query(max_length=MAX_TEXT, pattern=TEXT_PATTERN)
# A form sends empty text for a field that is not set.
_BLANK: Final = BeforeValidator(lambda text: text or None)
_SEARCHED: Final = (
    *("part_id", "file_name", "verdict", "reviewed", "warning", "from", "to", "min_margin", "max_margin"),
)


@dataclass(frozen=True)
class PageSelection(InspectionFilter):
    """Filter of the inspections on a page, limited to the categories of the caller."""

    def audit_queue(self) -> "PageSelection":
        """Return the inspections of the audit sample to review; their decisions stay hidden."""
        return replace(self, decision=None, audit=True, reviewed=False)

    @property
    def is_search(self) -> bool:
        """Tell if there are criteria that only the search page has."""
        return any(name in self._chosen() for name in _SEARCHED)

    @property
    def query_string(self) -> str:
        """Query string that carries the filter to another page; empty without a filter."""
        chosen = self._chosen()
        return f"?{urlencode(chosen)}" if chosen else ""

    def _chosen(self) -> dict[str, Any]:
        """Return the query parameters, named as those of /v1/inspections."""
        names = ("category", "station", "decision", *_SEARCHED)
        chosen = {name: getattr(self, name, None) for name in names}
        chosen |= {"audit": "true"} if self.audit else {}
        chosen["reviewed"] = "false" if self.reviewed is False and not self.audit else None
        times = {"from": self.from_ms, "to": self.to_ms}
        chosen |= {name: None if ms is None else clock.iso(ms) for name, ms in times.items()}
        return {name: value for name, value in chosen.items() if value is not None}


async def _read_selection(
    caller: AnyCaller,
    category: Annotated[str | None, _TEXT] = None,
    station: Annotated[str | None, _TEXT] = None,
    decision: Annotated[Decision | None, _BLANK, Query()] = None,
    part_id: Annotated[str | None, _TEXT] = None,
    file_name: Annotated[str | None, _TEXT] = None,
    verdict: Annotated[Verdict | None, _BLANK, Query()] = None,
    reviewed: Annotated[Literal["false"] | None, _BLANK, Query()] = None,
    warning: Annotated[WarningCode | None, _BLANK, Query()] = None,
    made_from: Annotated[Time | None, _BLANK, Query(alias="from")] = None,
    made_before: Annotated[Time | None, _BLANK, Query(alias="to")] = None,
    min_margin: Annotated[MinMargin, _BLANK, Query()] = None,
    max_margin: Annotated[MaxMargin, _BLANK, Query()] = None,
) -> PageSelection:
    if category:
        caller.require_category(category)
    require_category_of_margin(category or None, min_margin, max_margin)
    from_ms, to_ms = (
        None if time is None else clock.from_datetime(time) for time in (made_from, made_before)
    )
    return PageSelection(
        category or None,
        decision,
        part_id or None,
        station or None,
        verdict,
        reviewed=False if reviewed else None,
        from_ms=from_ms,
        to_ms=to_ms,
        categories=caller.categories,
        file_name=file_name or None,
        warning=warning,
        min_margin=min_margin,
        max_margin=max_margin,
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
