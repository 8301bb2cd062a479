"""A gateway between a PLC that speaks MQTT and FlowGauge.

    pip install '.[mqtt]'          # in a checkout of FlowGauge, as the next line
    python -m examples.plc_gateway --category bottle --images /camera --line line-3

The camera writes an image; the PLC publishes `{"part_id": "P-000123", "file": "000123.png"}` to
`line-3/trigger`, and reads `{"part_id": "P-000123", "decision": "REJECT", ...}` from `line-3/decision`. Where
there is no decision, it is UNKNOWN with the reason, and the PLC does with the part what is safe. MQTT may
deliver a trigger or a decision twice. `line-3/gateway` says whether the gateway is there.
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


def decide(server: FlowGauge, given: argparse.Namespace, trigger: bytes, came: float) -> dict[str, Any]:
    """Inspect the image that a trigger names; the decision to publish."""
    part_id = None
    try:
        told = json.loads(trigger)
        part_id = require_part(told["part_id"])
        data = require_inside(given.images, told["file"]).read_bytes()
        require_time(came + given.timeout)
        # A trigger that comes twice is inspected once.
        key = hashlib.sha256(json.dumps([given.category, given.line, part_id]).encode() + data).hexdigest()
        found = server.inspect(given.category, data, part_id=part_id, station=given.line, idempotency_key=key)
    except (ValueError, KeyError, TypeError, OSError) as error:  # FlowGaugeError is a ValueError
        return {"part_id": part_id, "decision": "UNKNOWN", "reason": f"{type(error).__name__}: {error}"}
    return {"part_id": part_id, **found.model_dump(include={"decision", "score", "inspection_id"})}


def require_part(told: object) -> str:
    """A part's id: a text, or a whole number."""
    if not isinstance(told, str | int) or isinstance(told, bool):
        raise TypeError(f"{told!r} is no part's id")
    return str(told)


def require_inside(images: Path, name: str) -> Path:
    """The path of an image, which must be in the folder."""
    path = (images / name).resolve()
    if not path.is_relative_to(images.resolve()):
        raise ValueError(f"{name!r} is not in the folder of images")
    return path


def require_time(until: float) -> None:
    """Refuse a trigger that others have kept waiting for too long: its part is gone by now."""
    if time.monotonic() > until:
        raise TimeoutError("the triggers before it took too long")


def serve(server: FlowGauge, broker: Client, given: argparse.Namespace) -> None:
    """Answer triggers one after another, until interrupted; the library connects again by itself."""
    triggers: queue.Queue[tuple[float, bytes]] = queue.Queue()
    state = f"{given.line}/gateway"

    def greet(*_: Any) -> None:
        broker.subscribe(f"{given.line}/trigger", qos=1)
        broker.publish(state, "online", qos=1, retain=True)

    broker.will_set(state, "offline", qos=1, retain=True)
    broker.on_connect = greet
    broker.on_message = lambda _, __, message: triggers.put((time.monotonic(), bytes(message.payload)))
    broker.connect_async(given.broker, given.port)
    broker.loop_start()
    try:
        while True:
            came, trigger = triggers.get()
            answer = decide(server, given, trigger, came)
            broker.publish(f"{given.line}/decision", json.dumps(answer), qos=1)
            print(answer, flush=True)
    finally:
        with suppress(RuntimeError):  # there is no connection: the broker has published the will
            broker.publish(state, "offline", qos=1, retain=True).wait_for_publish(2)
        broker.disconnect()
        broker.loop_stop()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Answer a PLC's triggers over MQTT.")
    parser.add_argument("--category", required=True)
    parser.add_argument("--images", required=True, type=Path, help="where the camera writes")
    parser.add_argument("--line", default="line-1", help="beginning of the topics, and the station")
    parser.add_argument("--broker", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--user", help="at the broker; FLOWGAUGE_MQTT_PASSWORD is the password")
    parser.add_argument("--ca", type=Path, help="PEM file of the broker's authority: with it, TLS is used")
    parser.add_argument("--timeout", default=10.0, type=float, help="seconds in which a trigger is answered")
    parser.add_argument("--url", default=os.environ.get("FLOWGAUGE_URL", "http://127.0.0.1:8000"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = Client(CallbackAPIVersion.VERSION2, f"flowgauge-{given.line}", clean_session=False)
    broker.reconnect_delay_set(1, 5)
    broker.username_pw_set(given.user, os.environ.get("FLOWGAUGE_MQTT_PASSWORD"))
    if given.ca is not None:
        broker.tls_set(str(given.ca))
    half = given.timeout / 2  # for silence of the network, and for repeated attempts
    with FlowGauge(given.url, os.environ.get("FLOWGAUGE_KEY"), timeout=half, patience=half) as server:
        serve(server, broker, given)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
    print("stopped")
