"""Errors of metrics."""


class MetricError(ValueError):
    """A metric is not defined for these images."""
