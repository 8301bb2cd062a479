"""A client of /v1/events."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Heard:
    """A received event. A comment has the kind "comment" and its text as data."""

    kind: str
    id: str
    data: Any


class EventReader:
    """Parser that assembles events from the lines of a stream."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def take(self, line: str) -> Heard | None:
        """Take a line without its line end; return the event that it completes, if any."""
        if line.startswith(":"):
            return Heard("comment", "", line[1:].strip())
        if line:
            name, _, value = line.partition(": ")
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        return Heard(fields["event"], fields["id"], json.loads(fields["data"])) if "event" in fields else None


def parse(lines: Iterable[str]) -> Iterator[Heard]:
    """Events and comments of a stream, from its lines without their ends."""
    reader = EventReader()
    for line in lines:
        if (heard := reader.take(line)) is not None:
            yield heard


@contextmanager
def listening(client: httpx.Client, last: str | None = None, **wanted: Any) -> Iterator[Iterator[Heard]]:
    """Listen to events after the last received `id`, until the stream ends."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    with client.stream("GET", "/v1/events", params=wanted, headers=headers) as answer:
        if answer.status_code != 200:
            answer.read()
            answer.raise_for_status()
        yield parse(answer.iter_lines())
