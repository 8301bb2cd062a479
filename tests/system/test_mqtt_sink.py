"""Inspections reach a real MQTT broker over restarts and kills; nothing is lost."""

import json
from pathlib import Path
from typing import Any

from tests.support.mosquitto import Mosquitto, Subscriber, subscribed
from tests.support.waiting import eventually
from tests.system.line import make_line

Images = dict[str, list[bytes]]
STATIONS = ["s1", "s2", "s3"]


def inspections(subscriber: Subscriber) -> list[dict[str, Any]]:
    messages = list(subscriber.messages)
    return [json.loads(payload) for topic, payload, _ in messages if topic.endswith("/inspection")]


def test_nothing_is_lost_while_the_broker_is_away(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path: Path, broker: Mosquitto
) -> None:
    line = make_line(tiny_bundle_store, tiny_images, tmp_path, mqtt_url=f"mqtt://127.0.0.1:{broker.port}")
    server = line.server
    with subscribed(broker) as subscriber, server:
        assert json.loads(subscriber.messages[0][1]) == {"status": "online"}
        with line.inspecting(STATIONS, 10):
            eventually(lambda: line.count > 5)
            broker.kill()
            eventually(lambda: line.count > 15)
            broker.start()
        assert line.count == 30
        eventually(lambda: {message["inspection_id"] for message in inspections(subscriber)} >= line.all_ids)
        line.expect_in_order(inspections(subscriber))
        eventually(lambda: server.metrics()['flowgauge_sink_lag_events{sink="mqtt"}'] == 0)
    with subscribed(broker, "flowgauge/status") as late:
        eventually(lambda: bool(late.messages))
        assert late.messages == [("flowgauge/status", b'{"status": "offline"}', True)]
