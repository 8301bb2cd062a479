"""Gauges and counters that read the running service at each scrape."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import State

from app.database import clock
from app.database.engine import Database
from app.history.decision_counts import TimeSpan, count_versions, estimate_error_rates
from app.history.deletions import KINDS
from app.registry.free_disk import free_bytes

logger = logging.getLogger("flowgauge.telemetry")

_RATES_DAYS: Final = 7
_RATES_MAX_AGE: Final = 300.0  # seconds; counting a week of rows is slow
_DOCUMENTATION: Final = {
    "held_images": "Images of requests not yet answered.",
    "held_bytes": "Bytes held for requests not yet answered or taken.",
    "pending_images": "Images that wait to be computed, or are.",
    "expected_wait_seconds": "When one more image would be computed, from now.",
    "backbone_passes": "Passes of a backbone, one per batch.",
    "loaded_bytes": "Bytes of everything that is loaded, backbones too.",
    "model_bytes": "Bytes of each loaded model; its backbone, which others may share, not counted.",
    "model_loads": "Models loaded, and attempts to load one that failed.",
    "gpu_bytes": "Bytes of tensors on the GPU.",
    "gpu_reserved_bytes": "Bytes of the GPU that this process has taken.",
    "journal_bytes": "Bytes of inspections that wait to be filed.",
    "history_failing": "1 while inspections cannot be filed.",
    "history_free_bytes": "Bytes free on the history's disk.",
    "history_accepting": "1 while the largest upload would be kept; 0 while predictions may be refused for "
    "want of room, and from one that the disk did not take to the next that it takes.",
    "deletion_held": "1 while retention would delete so much that an administrator must confirm it.",
    "leader": "1 in the server that runs retention, sinks, drift monitoring and jobs; 0 in all others.",
    "error_rate": "Share of good parts rejected (overkill) and of defective ones passed (escape) in the last "
    f"{_RATES_DAYS} days, from all reviews or from the audit sample alone.",
    "drift_alarm": "1 while the latest inspections differ from the calibration images.",
    "drift_distance": "Kolmogorov-Smirnov distance of the latest inspections to the calibration images.",
    "event_readers": "Who listens to the events at present.",
    "events_sent": "Events sent to readers.",
    "event_readers_dropped": "Readers of events sent away: too slow, or there were as many as may be.",
    "sink_deliveries": "Events delivered, attempts that were repeated, events given up (failed), and lost to "
    "a sink that was behind by more than is kept.",
    "sink_lag_events": "Events behind the newest one.",
    "sink_failing": "1 while nothing can be delivered.",
    "telemetry_failures": "Parts that could not be read; the log has more.",
}


class Gauges(Collector):
    """Collector that reads the parts of a service. A failing part omits only its own metrics."""

    def __init__(self, parts: State) -> None:
        self._parts = parts
        self._failures = 0
        self._rates: Mapping[tuple[str, ...], float] = {}
        self._rates_read = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Return nothing; otherwise the registry would read all values to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        metrics: list[Metric] = []
        for read in (self._work, self._models, self._history, self._error_rates, self._drift, self._events):
            try:
                metrics += read()
            # A fault of one part must not hide the others from monitoring.
            except Exception:
                self._failures += 1
                logger.exception("metrics cannot be read")
        return [*metrics, _counter("telemetry_failures", self._failures)]

    def _work(self) -> Iterator[Metric]:
        admission, batcher = self._parts.admission, self._parts.batcher
        yield _gauge("held_images", admission.images)
        yield _gauge("held_bytes", admission.bytes)
        yield _gauge("pending_images", batcher.pending)
        yield _gauge("expected_wait_seconds", batcher.expected_wait())
        yield _counter("backbone_passes", batcher.passes)

    def _models(self) -> Iterator[Metric]:
        loaded_models = self._parts.loaded_models
        yield _gauge("loaded_bytes", loaded_models.nbytes)
        yield _gauge("model_bytes", loaded_models.model_sizes(), "category", "version")
        loads = {("loaded",): loaded_models.loads, ("refused",): loaded_models.refusals}
        yield _counter("model_loads", loads, "outcome")
        if torch.cuda.is_available():
            yield _gauge("gpu_bytes", torch.cuda.memory_allocated())
            yield _gauge("gpu_reserved_bytes", torch.cuda.memory_reserved())

    def _history(self) -> Iterator[Metric]:
        history = self._parts.history
        yield _gauge("journal_bytes", history.backlog)
        yield _gauge("history_failing", float(history.failure is not None))
        yield _gauge("history_free_bytes", free_bytes(history.folder))
        yield _gauge("history_accepting", float(history.accepts(self._parts.settings.max_bytes)))
        held = {one.kind for one in self._parts.deletions.held()}
        yield _gauge("leader", float(self._parts.leader.leads))
        yield _gauge("deletion_held", {(kind,): float(kind in held) for kind in KINDS}, "kind")

    def _error_rates(self) -> Iterator[Metric]:
        now = time.monotonic()
        if now - self._rates_read >= _RATES_MAX_AGE:
            # Also after a failure: the database may have been slow to fail.
            self._rates, self._rates_read = {}, now
            self._rates = _rates(self._parts.database)
        yield _gauge("error_rate", self._rates, "category", "kind", "source")

    def _drift(self) -> Iterator[Metric]:
        states = [
            ((category, state.station or ""), state)
            for category, stations in self._parts.drift.states().items()
            for state in stations
        ]
        alarms = {where: float(state.alarm) for where, state in states}
        yield _gauge("drift_alarm", alarms, "category", "station")
        distances = {(*where, one.name): one.distance for where, state in states for one in state.comparisons}
        yield _gauge("drift_distance", distances, "category", "station", "statistic")

    def _events(self) -> Iterator[Metric]:
        yield _gauge("event_readers", self._parts.feed.readers)
        yield _counter("events_sent", self._parts.feed.sent)
        dropped = {(reason,): count for reason, count in self._parts.feed.dropped.items()}
        yield _counter("event_readers_dropped", dropped, "reason")
        sinks = {(one.sink.name,): one for one in self._parts.sinks.deliveries}
        deliveries = {(*name, outcome): n for name, one in sinks.items() for outcome, n in one.counts.items()}
        yield _counter("sink_deliveries", deliveries, "sink", "outcome")
        yield _gauge("sink_lag_events", {name: one.lag for name, one in sinks.items()}, "sink")
        yield _gauge("sink_failing", {name: float(one.failing) for name, one in sinks.items()}, "sink")


# One value, None if there is none, or values by their labels.
_Values = float | Mapping[Any, float] | None  # keys are tuples of strings, invariant in their types


def _gauge(name: str, values: _Values, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"flowgauge_{name}", _DOCUMENTATION[name], labels=labels), values)


def _counter(name: str, values: _Values, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"flowgauge_{name}", _DOCUMENTATION[name], labels=labels), values)


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
        span = TimeSpan(now - _RATES_DAYS * 24 * 60 * 60 * 1000, now)
        found = {
            one: estimate_error_rates(connection, one, span) for one in count_versions(connection, span, None)
        }
    rates = {
        (category, kind, source): rate.value
        for category, every in found.items()
        for source, one in (("reviews", every), ("audit", every.audit))
        if one is not None
        for kind, rate in (("overkill", one.overkill), ("escape", one.escape))
    }
    return {labels: value for labels, value in rates.items() if value is not None}
