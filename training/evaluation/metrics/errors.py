"""What goes wrong when something is measured."""


class MetricError(ValueError):
    """A metric is not defined for these images."""
