"""What monitoring reads from the parts of the running service, whenever it asks."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.database import clock
from app.database.engine import Database
from app.feed.feed import Feed
from app.free_disk import free_bytes
from app.history.deletions import KINDS, DeletionGuard
from app.history.drift import Drift
from app.history.history import History
from app.history.rates import escape, overkill
from app.history.reports import Span, complete, counts, versions
from app.residency import Residency
from app.scheduling.admission import Admission
from app.scheduling.batcher import Batcher
from app.sinks.delivery import Delivery

logger = logging.getLogger("flowgauge.telemetry")

_RATES_DAYS: Final = 7
_RATES_EVERY: Final = 300.0  # seconds; they count a week of rows


@dataclass(eq=False)  # collectors are keys of a dictionary
class Gauges(Collector):
    """Reads the parts of a service. One that fails leaves its own metrics out, and the others alone.

    Attributes:
        max_bytes: of the largest upload.
    """

    admission: Admission
    batcher: Batcher
    residency: Residency
    history: History
    deletions: DeletionGuard
    drift: Drift
    feed: Feed
    deliveries: Sequence[Delivery]
    max_bytes: int
    _failures: int = 0
    _rates: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    _rates_read: float = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Say nothing: the registry would read every value to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read every part."""
        metrics: list[Metric] = []
        for read in (self._work, self._models, self._history, self._error_rates, self._drift, self._events):
            try:
                metrics += read()
            # Whatever is wrong with one part, monitoring must hear of the others now more than ever.
            except Exception:
                self._failures += 1
                logger.exception("metrics cannot be read")
        said = "Parts that could not be read; the log has more."
        return [*metrics, _counter("telemetry_failures", said, self._failures)]

    def _work(self) -> Iterator[Metric]:
        admission, batcher = self.admission, self.batcher
        yield _gauge("held_images", "Images of requests not yet answered.", admission.images)
        yield _gauge("held_bytes", "Bytes held for requests not yet answered or taken.", admission.bytes)
        yield _gauge("pending_images", "Images that wait to be computed, or are.", batcher.pending)
        wait = "When one more image would be computed, from now."
        yield _gauge("expected_wait_seconds", wait, batcher.expected_wait())
        yield _counter("backbone_passes", "Passes of a backbone, one per batch.", batcher.passes)

    def _models(self) -> Iterator[Metric]:
        residency = self.residency
        yield _gauge("loaded_bytes", "Bytes of everything that is loaded, backbones too.", residency.nbytes)
        yield _gauge(
            "model_bytes",
            "Bytes of each loaded model; its backbone, which others may share, not counted.",
            residency.loaded(),
            "category",
            "version",
        )
        yield _counter(
            "model_loads",
            "Models loaded, and attempts to load one that failed.",
            {("loaded",): residency.loads, ("refused",): residency.refusals},
            "outcome",
        )
        if torch.cuda.is_available():
            yield _gauge("gpu_bytes", "Bytes of tensors on the GPU.", torch.cuda.memory_allocated())
            reserved = "Bytes of the GPU that this process has taken."
            yield _gauge("gpu_reserved_bytes", reserved, torch.cuda.memory_reserved())

    def _history(self) -> Iterator[Metric]:
        history = self.history
        yield _gauge("journal_bytes", "Bytes of inspections that wait to be filed.", history.backlog)
        yield _gauge(
            "history_failing", "1 while inspections cannot be filed.", float(history.failure is not None)
        )
        free = free_bytes(history.folder)
        yield _gauge("history_free_bytes", "Bytes free on the history's disk.", free)
        yield _gauge(
            "history_accepting",
            "1 while the largest upload would be kept; 0 while predictions may be refused for want of room, "
            "and from one that the disk did not take to the next that it takes.",
            float(history.accepts(self.max_bytes)),
        )
        held = {one.kind for one in self.deletions.held()}
        yield _gauge(
            "deletion_held",
            "1 while retention would delete so much that an administrator must confirm it.",
            {(kind,): float(kind in held) for kind in KINDS},
            "kind",
        )

    def _error_rates(self) -> Iterator[Metric]:
        now = time.monotonic()
        if now - self._rates_read >= _RATES_EVERY:
            # Also where it fails: it may have waited for a database that is gone.
            self._rates, self._rates_read = {}, now
            self._rates = _rates(self.history.database)
        yield _gauge(
            "error_rate",
            "Share of good parts rejected (overkill) and of defective ones passed (escape) in the last "
            f"{_RATES_DAYS} days, as far as reviews tell.",
            self._rates,
            "category",
            "kind",
        )

    def _drift(self) -> Iterator[Metric]:
        states = [(category, state) for category, all_ in self.drift.states().items() for state in all_]
        yield _gauge(
            "drift_alarm",
            "1 while the latest inspections differ from the calibration images.",
            {(category, state.station or ""): float(state.alarm) for category, state in states},
            "category",
            "station",
        )
        yield _gauge(
            "drift_distance",
            "Kolmogorov-Smirnov distance between the latest inspections and the calibration images.",
            {
                (category, state.station or "", comparison.name): comparison.distance
                for category, state in states
                for comparison in state.comparisons
            },
            *("category", "station", "statistic"),
        )

    def _events(self) -> Iterator[Metric]:
        feed = self.feed
        yield _gauge("event_readers", "Who listens to the events at present.", feed.readers)
        yield _counter("events_sent", "Events sent to readers.", feed.sent)
        yield _counter(
            "event_readers_dropped",
            "Readers of events sent away: too slow, or turned away because there were as many as may be.",
            {(reason,): count for reason, count in feed.dropped.items()},
            "reason",
        )
        deliveries = self.deliveries
        yield _counter(
            "sink_deliveries",
            "Events delivered, attempts that were repeated, events given up (failed), and lost to a sink "
            "that was behind by more than is kept.",
            {(one.sink.name, outcome): count for one in deliveries for outcome, count in one.counts.items()},
            "sink",
            "outcome",
        )
        lag = {(one.sink.name,): one.lag for one in deliveries}
        yield _gauge("sink_lag_events", "Events behind the newest one.", lag, "sink")
        failing = {(one.sink.name,): float(one.failing) for one in deliveries}
        yield _gauge("sink_failing", "1 while nothing can be delivered.", failing, "sink")


# One value; None for none at present; or a value by the values of its labels.
_Values = float | Mapping[Any, float] | None  # keys are tuples of strings, invariant in their types


def _gauge(name: str, documentation: str, values: _Values, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"flowgauge_{name}", documentation, labels=labels), values)


def _counter(name: str, documentation: str, values: _Values, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"flowgauge_{name}", documentation, labels=labels), values)


def _filled(metric: GaugeMetricFamily | CounterMetricFamily, values: _Values) -> Metric:
    if isinstance(values, Mapping):
        for key, value in values.items():
            metric.add_metric(list(key), value)
    elif values is not None:
        metric.add_metric([], values)
    return metric


def _rates(database: Database) -> dict[tuple[str, ...], float]:
    now = clock.now_ms()
    with database.read() as connection:
        span = complete(connection, Span(now - _RATES_DAYS * 24 * 60 * 60 * 1000, now))
        found = {one: counts(connection, one, span) for one in versions(connection, span, None)}
    rates = {
        (category, kind): rate(counted).value
        for category, counted in found.items()
        for kind, rate in (("overkill", overkill), ("escape", escape))
    }
    return {labels: value for labels, value in rates.items() if value is not None}
