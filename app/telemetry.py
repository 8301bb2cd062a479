"""What monitoring is told: counters and histograms kept here, gauges read from the parts when asked for.

Labels are bounded: routes by their template and never by their path, problems by the table of types, and
categories only where a model of the category serves or has answered.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.problems import TYPES
from app.schemas.predict import Decision, Inspection

logger = logging.getLogger("flowgauge.telemetry")

# The time at which each counter began would be another series for each.
disable_created_metrics()  # type: ignore[no-untyped-call]

# One value; None for none at present; or a value for each label, or pair of labels.
# Mappings are invariant in their keys: each number of labels is a type of its own.
Reading = (
    float
    | None
    | Mapping[str, float]
    | Mapping[tuple[str, str], float]
    | Mapping[tuple[str, str, str], float]
)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORES: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0)
_P_VALUES: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Telemetry:
    """The metrics of one service, in a registry of its own. May be used from several threads at once.

    Args:
        version: FlowGauge's version, for `flowgauge_info`.
    """

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("flowgauge", "The program.", registry=self.registry).info({"version": version})
        self._requests = self._counter(
            "requests", "Requests by route template, method and status.", "route", "method", "status"
        )
        self._request_seconds = self._histogram(
            "request_seconds", "From a request's headers to the end of its answer.", _SECONDS, "route"
        )
        self._problems = self._counter("problems", "Answers that were errors, by their type.", "type")
        for name in TYPES:  # from 0 on, so that the first one is a rise
            self._problems.labels(name)
        self._decisions = self._counter("decisions", "Inspections by decision.", "category", "decision")
        self._scores = self._histogram("score", "Scores of inspected images.", _SCORES, "category")
        self._p_values = self._histogram(
            "p_value",
            "p-values of inspected images: uniform as long as the line is as it was calibrated.",
            _P_VALUES,
            "category",
        )
        self._stages = self._histogram("stage_seconds", "Seconds of inspections by stage.", _SECONDS, "stage")
        self._batch_images = self._histogram("batch_images", "Images computed together.", _IMAGES)
        self._batch_seconds = self._histogram("batch_seconds", "Seconds to compute a batch.", _SECONDS)
        self._batch_categories = self._histogram("batch_categories", "Categories in a batch.", _IMAGES)
        self._gauges = _Gauges()
        self.registry.register(self._gauges)

    def request_ended(
        self, route: str | None, method: str, status: int, seconds: float, problem: str | None
    ) -> None:
        """Count a request; called by `RequestContext` for each.

        Args:
            route: the route's template, such as /v1/models/{category}/predict; None where none was found.
            method: as it came; one that HTTP does not know counts as "other".
            status: of the answer, or 0 when the client left before there was one.
            seconds: until the end of the answer.
            problem: the type of the error that was answered, a row of `problems.TYPES`.
        """
        template = route or "none"
        self._requests.labels(
            template, method if method in _METHODS else "other", str(status or "left")
        ).inc()
        self._request_seconds.labels(template).observe(seconds)
        if problem is not None:
            self._problems.labels(problem).inc()

    def serves(self, category: str) -> None:
        """Count a category's decisions from now on, from 0, so that the first one is a rise."""
        for decision in get_args(Decision):
            self._decisions.labels(category, decision)

    def decided(self, inspection: Inspection) -> None:
        """Count an inspected image; to be called once for each, when its answer is sure.

        Args:
            inspection: the answer. Its category is that of the model that gave it, so nobody can invent one.
        """
        category = inspection.model.category
        self._decisions.labels(category, inspection.decision).inc()
        self._scores.labels(category).observe(inspection.score)
        self._p_values.labels(category).observe(inspection.p_value)
        for stage, milliseconds in inspection.timing_ms:
            self._stages.labels(stage).observe(milliseconds / 1000)

    def batch_done(self, size: int, seconds: float, categories: Collection[str]) -> None:
        """Count a batch, one pass of the backbone; the batcher's observer.

        Args:
            size: images in it.
            seconds: it took.
            categories: of its images; how many different ones there are is kept, not which.
        """
        self._batch_images.observe(size)
        self._batch_seconds.observe(seconds)
        self._batch_categories.observe(len(set(categories)))

    def watch(
        self,
        name: str,
        documentation: str,
        read: Callable[[], Reading],
        *,
        labels: tuple[str, ...] = (),
        kind: Literal["gauge", "counter"] = "gauge",
        every: float = 0.0,
    ) -> None:
        """Read a value from a part of the service whenever metrics are asked for.

        Watching a name again puts the new reader in the place of the one before: a service that is started
        again has new parts. A reader that fails leaves its metric out, and the others alone.

        Args:
            name: without the prefix flowgauge_, and without _total for a counter.
            documentation: a sentence.
            read: gives the value; called in a thread, never two at a time. With labels, a mapping whose keys
                are the label's values, or tuples of them.
            labels: their names.
            kind: counter for what only rises.
            every: seconds for which a reading is kept, for readers that cost something.
        """
        self._gauges.watches[name] = _Watch(name, documentation, read, labels, kind, every)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"flowgauge_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(
            f"flowgauge_{name}", documentation, labels, buckets=tuple(buckets), registry=self.registry
        )


@dataclass
class _Watch:
    name: str
    documentation: str
    read: Callable[[], Reading]
    labels: tuple[str, ...]
    kind: Literal["gauge", "counter"]
    every: float
    reading: Reading = None
    read_at: float = float("-inf")
    failed: bool = False

    def metric(self) -> Metric:
        now = time.monotonic()
        if now - self.read_at >= self.every:
            # One that fails is left alone for as long: it may have waited for a database that is gone.
            self.reading, self.read_at = None, now
            self.reading = self.read()
        family = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        metric = family(f"flowgauge_{self.name}", self.documentation, labels=self.labels)
        if isinstance(self.reading, Mapping):
            for key, value in self.reading.items():
                metric.add_metric([key] if isinstance(key, str) else list(key), value)
        elif self.reading is not None:
            metric.add_metric([], self.reading)
        return metric


class _Gauges(Collector):
    """Reads what is watched, when it is asked for."""

    def __init__(self) -> None:
        self.watches: dict[str, _Watch] = {}
        self._failures = 0
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Say nothing: the registry would read every value to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read every value."""
        with self._lock:
            metrics = [metric for watch in list(self.watches.values()) if (metric := self._read(watch))]
            failures = CounterMetricFamily(
                "flowgauge_telemetry_failures", "Values that could not be read; the log has more."
            )
            failures.add_metric([], self._failures)
        return [*metrics, failures]

    def _read(self, watch: _Watch) -> Metric | None:
        try:
            metric = watch.metric()
        # Whatever is wrong with one part, monitoring must hear of the others now more than ever.
        except Exception:
            self._failures += 1
            if not watch.failed:
                logger.exception("the metric %s cannot be read", watch.name)
            watch.failed = True
            return None
        watch.failed = False
        return metric
