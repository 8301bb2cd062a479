"""Gateway between a PLC that speaks MQTT and FlowGauge.

    pip install '.[mqtt]'          # in a checkout of FlowGauge, as the next line
    python -m examples.plc_gateway --category bottle --images /camera --line line-3

The camera writes an image. The PLC publishes `{"part_id": "P-000123", "file": "000123.png"}` to
`line-3/trigger`, and reads `{"part_id": "P-000123", "decision": "REJECT", ...}` from `line-3/decision`. If
there is no decision, it is UNKNOWN with the reason, and the PLC must handle the part safely. MQTT may deliver
a trigger or a decision twice. `line-3/gateway` is `online` or `offline`.
"""

import argparse
import hashlib
import json
import os
import queue
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from app.client import Client as FlowGauge


def decide(server: FlowGauge, options: argparse.Namespace, trigger: bytes, received: float) -> dict[str, Any]:
    """Inspect the image that a trigger names, and return the decision to publish."""
    part_id = None
    try:
        message = json.loads(trigger)
        part_id = require_part_id(message["part_id"])
        data = require_inside(options.images, message["file"]).read_bytes()
        require_time(received + options.timeout)
        # A trigger that comes twice is inspected once.
        identity = json.dumps([options.category, options.line, part_id]).encode()
        answer = server.inspect(
            options.category,
            data,
            part_id=part_id,
            station=options.line,
            idempotency_key=hashlib.sha256(identity + data).hexdigest(),
        )
    except (ValueError, KeyError, TypeError, OSError) as error:  # FlowGaugeError is a ValueError
        return {"part_id": part_id, "decision": "UNKNOWN", "reason": f"{type(error).__name__}: {error}"}
    return {"part_id": part_id, **answer.model_dump(include={"decision", "score", "inspection_id"})}


def require_part_id(value: object) -> str:
    """Require a part's id: a text or an integer."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no part's id; send a text or an integer")
    return str(value)


def require_inside(images: Path, name: str) -> Path:
    """Require that an image is in the folder, and return its path."""
    path = (images / name).resolve()
    if not path.is_relative_to(images.resolve()):
        raise ValueError(f"{name!r} is not in the folder of images")
    return path


def require_time(deadline: float) -> None:
    """Refuse a trigger that waited too long behind others: its part is gone by now."""
    if time.monotonic() > deadline:
        raise TimeoutError("the triggers before it took too long")


def serve(server: FlowGauge, broker: Client, options: argparse.Namespace) -> None:
    """Answer triggers one after another until interrupted. The MQTT library reconnects by itself."""
    triggers: queue.Queue[tuple[float, bytes]] = queue.Queue()
    status_topic = f"{options.line}/gateway"

    def subscribe(*_: Any) -> None:
        broker.subscribe(f"{options.line}/trigger", qos=1)
        broker.publish(status_topic, "online", qos=1, retain=True)

    broker.will_set(status_topic, "offline", qos=1, retain=True)
    broker.on_connect = subscribe
    broker.on_message = lambda _, __, message: triggers.put((time.monotonic(), bytes(message.payload)))
    broker.connect_async(options.broker, options.port)
    broker.loop_start()
    try:
        while True:
            received, trigger = triggers.get()
            decision = decide(server, options, trigger, received)
            broker.publish(f"{options.line}/decision", json.dumps(decision), qos=1)
            print(decision, flush=True)
    finally:
        with suppress(RuntimeError):  # without a connection the broker has published the will
            broker.publish(status_topic, "offline", qos=1, retain=True).wait_for_publish(2)
        broker.disconnect()
        broker.loop_stop()


def main() -> None:
    """Read the command line and answer triggers."""
    parser = argparse.ArgumentParser(description="Answer a PLC's triggers over MQTT.")
    parser.add_argument("--category", required=True)
    parser.add_argument("--images", required=True, type=Path, help="folder that the camera writes to")
    parser.add_argument("--line", default="line-1", help="first level of the topics, and the station")
    parser.add_argument("--broker", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--user", help="user at the broker; its password is FLOWGAUGE_MQTT_PASSWORD")
    parser.add_argument("--ca", type=Path, help="PEM file of the broker's authority; turns TLS on")
    parser.add_argument("--timeout", default=10.0, type=float, help="seconds to answer a trigger")
    parser.add_argument("--url", default=os.environ.get("FLOWGAUGE_URL", "http://127.0.0.1:8000"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = Client(CallbackAPIVersion.VERSION2, f"flowgauge-{options.line}", clean_session=False)
    broker.reconnect_delay_set(1, 5)
    broker.username_pw_set(options.user, os.environ.get("FLOWGAUGE_MQTT_PASSWORD"))
    if options.ca is not None:
        broker.tls_set(str(options.ca))
    half = options.timeout / 2  # for a silent network, and for repeated attempts
    with FlowGauge(options.url, os.environ.get("FLOWGAUGE_KEY"), timeout=half, patience=half) as server:
        serve(server, broker, options)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
    print("stopped")
