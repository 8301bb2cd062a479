"""Prometheus counters and histograms of requests, inspections and batches.

Labels are bounded: routes by template, never by path; problems by the table of types; categories only if a
model of the category serves or has served.
"""

from collections.abc import Collection
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from app.errors.problems import TYPES
from app.schemas.predict import Inspection

# Without this, each counter would have a second series with its time of creation.
disable_created_metrics()  # type: ignore[no-untyped-call]

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SCORES: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0)
_P_VALUES: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Telemetry:
    """The metrics of one service, in a registry of its own. Safe to use from several threads."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("flowgauge", "The program.", registry=self.registry).info({"version": version})
        counter = partial(Counter, namespace="flowgauge", registry=self.registry)
        histogram = partial(Histogram, namespace="flowgauge", registry=self.registry)
        requests = "Requests by route template, method and status."
        self._requests = counter("requests", requests, ["route", "method", "status"])
        seconds = "From a request's headers to the end of its answer."
        self._request_seconds = histogram("request_seconds", seconds, ["route"], buckets=_SECONDS)
        self._problems = counter("problems", "Answers that were errors, by their type.", ["type"])
        for name in TYPES:  # start at 0, so that the first problem is an increase
            self._problems.labels(name)
        self._decisions = counter("decisions", "Inspections by decision.", ["category", "decision"])
        self._scores = histogram("score", "Scores of inspected images.", ["category"], buckets=_SCORES)
        p_values = "p-values of inspected images: uniform as long as the line is as it was calibrated."
        self._p_values = histogram("p_value", p_values, ["category"], buckets=_P_VALUES)
        stages = "Seconds of inspections by stage."
        self._stages = histogram("stage_seconds", stages, ["stage"], buckets=_SECONDS)
        self._batch_images = histogram("batch_images", "Images computed together.", buckets=_IMAGES)
        self._batch_seconds = histogram("batch_seconds", "Seconds to compute a batch.", buckets=_SECONDS)
        self._batch_categories = histogram("batch_categories", "Categories in a batch.", buckets=_IMAGES)

    def count_request(
        self, route: str | None, method: str, status: int, seconds: float, problem: str | None
    ) -> None:
        """Count a request.

        Args:
            route: the route's template, such as /v1/models/{category}/predict; None if no route matched.
            method: as sent; an unknown one counts as "other".
            status: of the response; 0 if the client left before it.
            seconds: from the headers to the end of the response.
            problem: the problem type of the response, if any.
        """
        template = route or "none"
        known = method if method in _METHODS else "other"
        self._requests.labels(template, known, str(status or "left")).inc()
        self._request_seconds.labels(template).observe(seconds)
        if problem is not None:
            self._problems.labels(problem).inc()

    def count_inspection(self, inspection: Inspection) -> None:
        """Count an inspection once its answer is final."""
        category = inspection.model.category
        self._decisions.labels(category, inspection.decision).inc()
        self._scores.labels(category).observe(inspection.score)
        self._p_values.labels(category).observe(inspection.p_value)
        for stage, milliseconds in inspection.timing_ms:
            self._stages.labels(stage).observe(milliseconds / 1000)

    def count_batch(self, size: int, seconds: float, categories: Collection[str]) -> None:
        """Count a batch: one pass of the backbone over `size` images of several categories."""
        self._batch_images.observe(size)
        self._batch_seconds.observe(seconds)
        self._batch_categories.observe(len(set(categories)))
