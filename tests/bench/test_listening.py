"""How the bench and the system's tests read a stream of events."""

import pytest

from bench.service.listening import Heard, parse

STREAM = """\
retry: 2000

id: a
event: position
data: {}

: heartbeat

id: b
event: inspection
data: {"inspection_id": "1", "text": "a: b"}

id: c
event: inspection
data: {"inspection_id": "2"}
"""


def test_events_and_comments_in_their_order() -> None:
    assert list(parse(STREAM.splitlines())) == [
        Heard("position", "a", {}),
        Heard("comment", "", "heartbeat"),
        Heard("inspection", "b", {"inspection_id": "1", "text": "a: b"}),
        # The last one was cut off before its end.
    ]


def test_what_is_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        list(parse(["id: a", "event: inspection", "data: <html>", ""]))
