"""The PLC gateway as a program between a real broker and a real service, and invalid triggers."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from app.client import Client
from examples.plc_gateway import decide
from tests.support.certificates import make_certificate
from tests.support.mosquitto import Mosquitto, Subscriber, subscribed
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


@contextmanager
def gateway(camera: Path, url: str, broker: Mosquitto, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "examples.plc_gateway", "--category", "tiny", "--images", str(camera)]
    command += ["--line", "line-3", "--port", str(broker.port), "--url", url, *options]
    environment = {**os.environ, "FLOWGAUGE_MQTT_PASSWORD": "hunter2", "NO_PROXY": "*"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def payloads(plc: Subscriber, topic: str) -> list[bytes]:
    return [payload for name, payload, _ in list(plc.messages) if name == f"line-3/{topic}"]


def decisions(plc: Subscriber) -> list[dict[str, Any]]:
    return [json.loads(one) for one in payloads(plc, "decision")]


def publish(broker: Mosquitto, *triggers: object) -> None:
    """Publish triggers, and wait until the broker has them."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "plc")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    for trigger in triggers:
        client.publish("line-3/trigger", json.dumps(trigger), qos=1).wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def test_every_trigger_gets_a_decision(camera: Path, url: str, broker: Mosquitto) -> None:
    triggers = [
        {"part_id": "P-1", "file": "defect.png"},
        {"part_id": "P-1", "file": "defect.png"},  # delivered twice
        {"part_id": "P-2", "file": "bad.png"},
        {"part_id": 3, "file": "missing.png"},
        {"part_id": "P-4", "file": "../secret.png"},
        "nonsense",
    ]
    with subscribed(broker, "line-3/+") as plc, gateway(camera, url, broker) as process:
        eventually(lambda: payloads(plc, "gateway") == [b"online"])
        publish(broker, *triggers)
        eventually(lambda: len(decisions(plc)) == len(triggers))
        process.send_signal(signal.SIGTERM)
        eventually(lambda: payloads(plc, "gateway") == [b"online", b"offline"])
        output, _ = process.communicate(timeout=60)
    first, second, *others = decisions(plc)
    assert (first["decision"], first) == ("REJECT", second)
    assert [(one["part_id"], one["decision"]) for one in others] == [
        *(("P-2", "UNKNOWN"), ("3", "UNKNOWN"), ("P-4", "UNKNOWN"), (None, "UNKNOWN"))
    ]
    assert "is not in the folder" in others[2]["reason"]
    assert output.endswith("stopped\n")
    with Client(url) as client:
        client.inspection(first["inspection_id"])
        assert len(list(client.inspections(part_id="P-1"))) == 1


def test_gateway_reconnects_to_its_broker(camera: Path, url: str, broker: Mosquitto) -> None:
    """The broker is killed, and a trigger comes before the gateway is connected again."""
    with subscribed(broker, "line-3/+") as plc, gateway(camera, url, broker):
        eventually(lambda: payloads(plc, "gateway") == [b"online"])
        broker.kill()
        broker.start()
        publish(broker, {"part_id": "P-5", "file": "defect.png"})
        eventually(lambda: [one["part_id"] for one in decisions(plc)] == ["P-5"])


def test_broker_reports_a_killed_gateway_as_offline(camera: Path, url: str, broker: Mosquitto) -> None:
    with subscribed(broker, "line-3/gateway") as plc, gateway(camera, url, broker) as process:
        eventually(lambda: payloads(plc, "gateway") == [b"online"])
        process.kill()
        eventually(lambda: payloads(plc, "gateway") == [b"online", b"offline"])


def test_gateway_connects_with_tls(camera: Path, url: str, broker: Mosquitto, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "IP:127.0.0.1")
    broker.stop()
    broker.encrypt(certificate)
    broker.start()
    ca = str(certificate.certificate)
    with (
        subscribed(broker, "line-3/gateway", ca_certs=ca) as plc,
        gateway(camera, url, broker, "--user", "gateway", "--ca", ca),
    ):
        eventually(lambda: payloads(plc, "gateway") == [b"online"])


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        (b'{"part_id": "P", "file": "a\\u0000.png"}', "ValueError"),
        (b'{"part_id": "P", "file": 7}', "TypeError"),
        (b'{"part_id": null, "file": "defect.png"}', "None is no part's id"),
        (b'{"part_id": true, "file": "defect.png"}', "True is no part's id"),
        (b'{"file": "defect.png"}', "KeyError"),
        (b"[", "JSONDecodeError"),
    ],
)
def test_invalid_trigger_is_unknown(camera: Path, trigger: bytes, reason: str) -> None:
    options = Namespace(category="tiny", line="line-3", images=camera, timeout=60.0)
    with Client("http://127.0.0.1:9", patience=0) as nobody:
        answer = decide(nobody, options, trigger, time.monotonic())
    assert answer["decision"] == "UNKNOWN"
    assert reason in answer["reason"]


def test_late_trigger_is_not_sent(camera: Path, url: str) -> None:
    options = Namespace(category="tiny", line="line-3", images=camera, timeout=10.0)
    trigger = b'{"part_id": "P-late", "file": "defect.png"}'
    with Client(url) as client:
        answer = decide(client, options, trigger, time.monotonic() - 11)
        assert list(client.inspections(part_id="P-late")) == []
    assert (answer["part_id"], answer["decision"]) == ("P-late", "UNKNOWN")


def test_repeated_trigger_of_a_line_is_inspected_once(camera: Path, url: str) -> None:
    identifiers = []
    with Client(url) as client:
        for line in ("1", "1", "2"):
            options = Namespace(category="tiny", line=line, images=camera, timeout=60.0)
            trigger = b'{"part_id": "P-key", "file": "defect.png"}'
            identifiers.append(decide(client, options, trigger, time.monotonic())["inspection_id"])
    assert identifiers[0] == identifiers[1] != identifiers[2]
