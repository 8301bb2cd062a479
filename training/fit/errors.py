"""Errors of a training run."""


class FitError(ValueError):
    """The fit cannot start or continue."""
