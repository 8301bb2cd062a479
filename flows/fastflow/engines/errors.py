"""Errors of engines."""


class EngineError(ValueError):
    """The requested engine is not available, or cannot compute this model."""
