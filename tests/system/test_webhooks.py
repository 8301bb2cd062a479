"""Inspections reach receivers that refuse, stall, redirect or restart, over server kills."""

from pathlib import Path

import pytest
import yaml

from tests.support.receiver import Answer, Receiver
from tests.support.waiting import eventually
from tests.system.line import make_line

Images = dict[str, list[bytes]]
STATIONS = ["s1", "s2", "s3"]
SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.mark.slow  # tests/app/events/sinks/test_delivery.py shows each failure
def test_webhooks_lose_nothing_over_restarts_and_kills(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path: Path
) -> None:
    def sometimes(number: int, _: bytes) -> Answer:
        return (503, {"Retry-After": "0.1"}) if number % 7 == 3 else None if number % 7 == 5 else (204, {})

    receiver = Receiver(sometimes)
    file = tmp_path / "webhooks.yaml"
    webhook = {"name": "mes", "secret": SECRET, "url": receiver.url}
    file.write_text(yaml.safe_dump({"webhooks": [webhook]}))
    line = make_line(tiny_bundle_store, tiny_images, tmp_path, webhooks=str(file))
    server = line.server

    def expect_all() -> None:
        eventually(lambda: {message.id for message in receiver.accepted} >= line.all_ids)
        heard = [message.content["data"] | message.content for message in receiver.messages]
        line.expect_in_order(heard)

    with server, receiver:
        with line.inspecting(STATIONS, 20):
            eventually(lambda: line.count > 10)
            receiver.stop()
            eventually(lambda: line.count > 30)
            receiver.start()
        expect_all()

        with line.inspecting(STATIONS, 1000):
            eventually(lambda: line.count > 80)
            server.kill()
        server.start()
        with line.inspecting(STATIONS, 5):
            pass
        expect_all()
        assert SECRET not in server.log.read_text()
        eventually(lambda: server.metrics()['flowgauge_sink_lag_events{sink="webhook-mes"}'] == 0)
