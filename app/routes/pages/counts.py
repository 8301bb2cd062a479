"""Counts of recent decisions, which the wall shows and asks for again."""

from dataclasses import replace
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Connection

from app.access import Caller, MaySeeHistory
from app.database import clock
from app.dependencies import HistoryPart
from app.history import browsing
from app.routes.pages.chosen import Chosen, ChosenPart
from app.schemas.predict import Decision

router = APIRouter()

HOURS: Final = 8


class Counts(BaseModel):
    """The counters."""

    decisions: dict[Decision, int]


@router.get("/wall/counts")
def get_counts(caller: MaySeeHistory, chosen: ChosenPart, history: HistoryPart) -> Counts:
    """Count the last hours."""
    with history.database.read() as connection:
        return Counts(decisions=count(connection, caller, chosen))


def count(connection: Connection, caller: Caller, chosen: Chosen) -> dict[Decision, int]:
    """Count the inspections of the last hours by decision, whichever decision was chosen."""
    wanted = replace(chosen, decision=None).filter(caller)
    return browsing.decisions(connection, replace(wanted, from_ms=clock.now_ms() - HOURS * 3_600_000))
