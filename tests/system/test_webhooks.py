"""Inspections at real receivers: refusing, slow, redirecting, restarted; and the server killed on the way."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.support.receiver import Answer, Message, Receiver
from tests.support.waiting import eventually
from tests.system.line import Line, first_of_each, make_line

Images = dict[str, list[bytes]]
STATIONS = ["s1", "s2", "s3"]
SECRET = "whsec_" + "c2VjcmV0" * 6


def write(tmp_path: Path, **webhooks: dict[str, object]) -> Path:
    path = tmp_path / "webhooks.yaml"
    listed = [{"name": name, "secret": SECRET, **values} for name, values in webhooks.items()]
    path.write_text(yaml.safe_dump({"webhooks": listed}))
    return path


def all_ids(line: Line) -> set[str]:
    return {identifier for ids in line.ids.values() for identifier in ids}


def expect_order(line: Line, messages: Sequence[Message]) -> None:
    """In order by station, and what came twice says so."""
    seen: set[str] = set()
    for message in messages:
        assert message.content["redelivered"] or message.id not in seen
        seen.add(message.id)
    for station, ids in line.ids.items():
        came = [m.id for m in messages if m.content["data"]["station"] == station]
        known = set(ids)
        assert [identifier for identifier in first_of_each(came) if identifier in known] == ids


def test_nothing_is_lost_whoever_is_restarted_or_killed(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path: Path
) -> None:
    def sometimes(number: int, _: bytes) -> Answer:
        return (503, {"Retry-After": "0.1"}) if number % 7 == 3 else None if number % 7 == 5 else (204, {})

    receiver = Receiver(sometimes)
    file = write(tmp_path, mes={"url": receiver.url})
    line = make_line(tiny_bundle_store, tiny_images, tmp_path, webhooks=str(file))
    server = line.server

    def arrived() -> bool:
        return {message.id for message in receiver.accepted} >= all_ids(line)

    with server, receiver:
        with line.inspecting(STATIONS, 20):
            eventually(lambda: line.count > 10)
            receiver.stop()
            eventually(lambda: line.count > 30)
            receiver.start()
        eventually(arrived)
        expect_order(line, receiver.messages)

        with line.inspecting(STATIONS, 1000):
            eventually(lambda: line.count > 80)
            server.kill()
        server.start()
        with line.inspecting(STATIONS, 5):
            pass
        eventually(arrived)
        expect_order(line, receiver.messages)
        assert SECRET not in server.log.read_text()
        eventually(lambda: server.metrics()['flowgauge_sink_lag_events{sink="webhook-mes"}'] == 0)
