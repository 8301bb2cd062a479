"""What is wrong with the settings of a sink."""


class SinkError(ValueError):
    """A sink cannot be used as it was asked for; the message says why and what to do, without secrets."""
