"""What is wrong with the settings of a sink."""

from collections.abc import Iterator
from contextlib import contextmanager


class SinkError(ValueError):
    """A sink cannot be used as it was asked for; the message says why and what to do, without secrets."""


class Wrong:
    """All that is wrong, to be told at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Keep what is wrong, in words."""
        self._lines.append(line)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a SinkError for later."""
        try:
            yield
        except SinkError as error:
            self.add(str(error))

    def tell(self) -> None:
        """Raise SinkError, a line for everything, if there was anything."""
        if self._lines:
            raise SinkError("\n".join(self._lines))
