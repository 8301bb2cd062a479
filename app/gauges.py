"""Which parts of the running service monitoring reads, and what of them."""

from collections.abc import Sequence
from typing import Final

import torch

from app.database import clock
from app.database.engine import Database
from app.feed.feed import Feed
from app.free_disk import free_bytes
from app.history.deletions import KINDS, DeletionGuard
from app.history.drift import Drift
from app.history.history import History
from app.history.rates import escape, overkill
from app.history.reports import Span, complete, shifts
from app.residency import Residency
from app.scheduling.admission import Admission
from app.scheduling.batcher import Batcher
from app.sinks.delivery import Delivery
from app.telemetry import Telemetry

_RATES_DAYS: Final = 7
_RATES_EVERY: Final = 300.0  # seconds; they count a week of rows


def watch_work(telemetry: Telemetry, admission: Admission, batcher: Batcher) -> None:
    """Watch what waits and what was computed.

    Args:
        telemetry: of the service.
        admission: what is held for requests.
        batcher: what computes; its observer must be `telemetry.batch_done`.
    """
    telemetry.watch("held_images", "Images of requests not yet answered.", lambda: admission.images)
    telemetry.watch(
        "held_bytes", "Bytes held for requests not yet answered or taken.", lambda: admission.bytes
    )
    telemetry.watch("pending_images", "Images that wait to be computed, or are.", lambda: batcher.pending)
    telemetry.watch(
        "expected_wait_seconds", "When one more image would be computed, from now.", batcher.expected_wait
    )
    telemetry.watch(
        "backbone_passes", "Passes of a backbone, one per batch.", lambda: batcher.passes, kind="counter"
    )


def watch_models(telemetry: Telemetry, residency: Residency) -> None:
    """Watch what is loaded, and the memory of the GPU where there is one."""
    telemetry.watch(
        "loaded_bytes", "Bytes of everything that is loaded, backbones too.", lambda: residency.nbytes
    )
    telemetry.watch(
        "model_bytes",
        "Bytes of each loaded model; its backbone, which others may share, not counted.",
        residency.loaded,
        labels=("category", "version"),
    )
    telemetry.watch(
        "model_loads",
        "Models loaded, and attempts to load one that failed.",
        lambda: {"loaded": residency.loads, "refused": residency.refusals},
        labels=("outcome",),
        kind="counter",
    )
    if torch.cuda.is_available():
        telemetry.watch("gpu_bytes", "Bytes of tensors on the GPU.", torch.cuda.memory_allocated)
        telemetry.watch(
            "gpu_reserved_bytes", "Bytes of the GPU that this process has taken.", torch.cuda.memory_reserved
        )


def watch_history(telemetry: Telemetry, history: History, max_bytes: int) -> None:
    """Watch whether inspections are kept, how long there will be room, and what reviews say of the decisions.

    Args:
        telemetry: of the service.
        history: of the service.
        max_bytes: of the largest upload.
    """
    telemetry.watch("journal_bytes", "Bytes of inspections that wait to be filed.", lambda: history.backlog)
    telemetry.watch(
        "history_failing", "1 while inspections cannot be filed.", lambda: float(history.failure is not None)
    )
    telemetry.watch(
        "history_free_bytes", "Bytes free on the history's disk.", lambda: free_bytes(history.folder)
    )
    telemetry.watch(
        "history_accepting",
        "1 while the largest upload would be kept; 0 while predictions may be refused for want of room, and "
        "from one that the disk did not take to the next that it takes.",
        lambda: float(history.accepts(max_bytes)),
    )
    telemetry.watch(
        "error_rate",
        "Share of good parts rejected (overkill) and of defective ones passed (escape) in the last "
        f"{_RATES_DAYS} days, as far as reviews tell.",
        lambda: _rates(history.database),
        labels=("category", "kind"),
        every=_RATES_EVERY,
    )


def watch_deletions(telemetry: Telemetry, guard: DeletionGuard) -> None:
    """Watch whether a deletion waits for a person."""

    def held() -> dict[str, float]:
        kinds = {one.kind for one in guard.held()}
        return {kind: float(kind in kinds) for kind in KINDS}

    telemetry.watch(
        "deletion_held",
        "1 while retention would delete so much that an administrator must confirm it.",
        held,
        labels=("kind",),
    )


def watch_drift(telemetry: Telemetry, drift: Drift) -> None:
    """Watch whether inspections still look like the calibration images."""
    telemetry.watch(
        "drift_alarm",
        "1 while the latest inspections differ from the calibration images.",
        lambda: {
            (category, state.station or ""): float(state.alarm)
            for category, states in drift.states().items()
            for state in states
        },
        labels=("category", "station"),
    )
    telemetry.watch(
        "drift_distance",
        "Kolmogorov-Smirnov distance between the latest inspections and the calibration images.",
        lambda: {
            (category, state.station or "", comparison.name): comparison.distance
            for category, states in drift.states().items()
            for state in states
            for comparison in state.comparisons
        },
        labels=("category", "station", "statistic"),
    )


def watch_feed(telemetry: Telemetry, feed: Feed) -> None:
    """Watch who listens to the events."""
    telemetry.watch("event_readers", "Who listens to the events at present.", lambda: feed.readers)
    telemetry.watch("events_sent", "Events sent to readers.", lambda: feed.sent, kind="counter")
    telemetry.watch(
        "event_readers_dropped",
        "Readers of events sent away: too slow, or turned away because there were as many as may be.",
        lambda: dict(feed.dropped),
        labels=("reason",),
        kind="counter",
    )


def watch_sinks(telemetry: Telemetry, deliveries: Sequence[Delivery]) -> None:
    """Watch what is delivered to whom, and how far each is behind."""
    telemetry.watch(
        "sink_deliveries",
        "Events delivered, attempts that were repeated, events given up (failed), and lost to a sink that "
        "was behind by more than is kept.",
        lambda: {
            (one.sink.name, outcome): count for one in deliveries for outcome, count in one.counts.items()
        },
        labels=("sink", "outcome"),
        kind="counter",
    )
    telemetry.watch(
        "sink_lag_events",
        "Events behind the newest one.",
        lambda: {one.sink.name: one.lag for one in deliveries},
        labels=("sink",),
    )
    telemetry.watch(
        "sink_failing",
        "1 while nothing can be delivered.",
        lambda: {one.sink.name: float(one.failing) for one in deliveries},
        labels=("sink",),
    )


def _rates(database: Database) -> dict[tuple[str, str], float]:
    now = clock.now_ms()
    with database.read() as connection:
        span = complete(connection, Span(now - _RATES_DAYS * 24 * 60 * 60 * 1000, now))
        found = shifts(connection, span, None)
    rates = {
        (shift.category, kind): rate(shift.strata).value
        for shift in found
        for kind, rate in (("overkill", overkill), ("escape", escape))
    }
    return {labels: value for labels, value in rates.items() if value is not None}
