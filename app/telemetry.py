"""What monitoring is told of requests, inspections and batches: counters and histograms.

Labels are bounded: routes by their template and never by their path, problems by the table of types, and
categories only where a model of the category serves or has answered.
"""

import logging
from collections.abc import Collection, Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from app.problems import TYPES
from app.schemas.predict import Inspection

logger = logging.getLogger("flowgauge.telemetry")

# The time at which each counter began would be another series for each.
disable_created_metrics()  # type: ignore[no-untyped-call]

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

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"flowgauge_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(
            f"flowgauge_{name}", documentation, labels, buckets=tuple(buckets), registry=self.registry
        )
