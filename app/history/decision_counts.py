"""Counts of decisions and verdicts in a time span, and the error rates that follow."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select

from app.database.tables import inspections, retention
from app.history import browsing
from app.history.queries import InspectionFilter
from app.history.rates import DECISIONS, estimate_audit, estimate_escape, estimate_overkill
from app.schemas.predict import Decision
from app.schemas.reports import DecisionCounts, ErrorEstimates

_COLUMNS = inspections.columns


@dataclass(frozen=True)
class TimeSpan:
    """A half-open time span [from, to), in milliseconds since 1970, UTC."""

    from_ms: int
    to_ms: int

    def filter(self, category: str | None, station: str | None) -> InspectionFilter:
        """Return a filter for this time span, and for a category and a station unless None."""
        return InspectionFilter(category=category, station=station, from_ms=self.from_ms, to_ms=self.to_ms)


def skip_deleted(connection: Connection, span: TimeSpan, *, audit: bool = False) -> TimeSpan:
    """Return the latter part of a time span, in which retention by age has deleted nothing.

    Otherwise deleted PASS inspections would raise the share of the rejected ones. With `audit`, only
    deletions from the audit sample matter.
    """
    latest = select(func.max(retention.c.deleted_before_ms))
    if audit:
        latest = latest.where(retention.c.decision == "audit")
    deleted_before = connection.scalar(latest) or 0
    return TimeSpan(min(max(span.from_ms, deleted_before), span.to_ms), span.to_ms)


def count_decisions(
    connection: Connection,
    category: str,
    span: TimeSpan,
    station: str | None = None,
    *,
    audit: bool | None = None,
) -> dict[Decision, DecisionCounts]:
    """Count a category's inspections and verdicts by decision, at one station or at all.

    With `audit`, only the audit sample counts.
    """
    where = replace(span.filter(category, station), audit=audit)
    inspected = browsing.count_decisions(connection, where)
    verdicts = (
        select(_COLUMNS.decision, _COLUMNS.verdict, func.count())
        .where(*where.conditions(), _COLUMNS.verdict.in_(("good", "defect")))
        .group_by(_COLUMNS.decision, _COLUMNS.verdict)
    )
    found = {(decision, verdict): n for decision, verdict, n in connection.execute(verdicts)}
    return {
        d: DecisionCounts(
            inspections=inspected[d],
            reviewed_good=found.get((d, "good"), 0),
            reviewed_defect=found.get((d, "defect"), 0),
        )
        for d in DECISIONS
    }


def estimate_error_rates(
    connection: Connection, category: str, span: TimeSpan, station: str | None = None
) -> ErrorEstimates:
    """Estimate a category's overkill and escape, at one station or at all, without what was deleted."""
    counts = count_decisions(connection, category, skip_deleted(connection, span), station)
    sample_span = skip_deleted(connection, span, audit=True)
    sample = count_decisions(connection, category, sample_span, station, audit=True)
    return ErrorEstimates(
        decisions=counts,
        overkill=estimate_overkill(counts),
        escape=estimate_escape(counts),
        audit=estimate_audit(sample, sample_span.from_ms),
    )


def count_versions(
    connection: Connection, span: TimeSpan, categories: Collection[str] | None, station: str | None = None
) -> dict[str, dict[str, int]]:
    """Count inspections by category and version, in some categories or in all."""
    query = (
        select(_COLUMNS.category, _COLUMNS.version, func.count())
        .where(*span.filter(None, station).conditions())
        .group_by(_COLUMNS.category, _COLUMNS.version)
        .order_by(_COLUMNS.category, _COLUMNS.version)
    )
    if categories is not None:
        query = query.where(_COLUMNS.category.in_(categories))
    found: dict[str, dict[str, int]] = {}
    for category, version, n in connection.execute(query):
        found.setdefault(category, {})[version] = n
    return found
