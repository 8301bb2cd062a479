"""The filter of a page: category, station and decision; links between pages carry it along."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends, Query

from app.access import Caller
from app.forms import MAX_TEXT, TEXT_PATTERN
from app.history.queries import Filter

_TEXT: Final[Any] = Query(max_length=MAX_TEXT, pattern=TEXT_PATTERN)


@dataclass(frozen=True)
class Chosen:
    """A filter; None shows all."""

    category: str | None
    station: str | None
    decision: str | None

    def filter(self, caller: Caller) -> Filter:
        """The matching inspections, of those that the caller may see.

        Raises:
            Problem: forbidden, for a category that the caller's key is not for.
        """
        if self.category is not None:
            caller.require_category(self.category)
        return Filter(**asdict(self), categories=caller.categories)

    @property
    def trail(self) -> str:
        """The end of an address that makes another page choose the same; empty where nothing was chosen."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return f"?{urlencode(given)}" if given else ""


async def _chosen(
    category: Annotated[str | None, _TEXT] = None,
    station: Annotated[str | None, _TEXT] = None,
    decision: Annotated[str | None, Query(pattern="^(PASS|REVIEW|REJECT)?$")] = None,
) -> Chosen:
    # A form sends what was left open as empty text.
    return Chosen(category or None, station or None, decision or None)


ChosenPart = Annotated[Chosen, Depends(_chosen)]
