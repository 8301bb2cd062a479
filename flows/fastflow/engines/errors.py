"""What goes wrong with engines."""


class EngineError(ValueError):
    """The engine asked for is not there, or cannot compute this model."""
