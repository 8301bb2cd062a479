"""A gateway between a PLC that speaks MQTT and FlowGauge.

    pip install '.[mqtt]'          # in a checkout of FlowGauge, as the next line
    python -m examples.plc_gateway --category bottle --pictures /camera --line line-3

The camera writes a picture; the PLC publishes to `line-3/trigger`

    {"part_id": "P-000123", "file": "000123.png"}

and reads from `line-3/decision`

    {"part_id": "P-000123", "decision": "REJECT", "score": 4.21, "inspection_id": "..."}

Where there is none, because a file is missing or the server does not answer in time, it is UNKNOWN with the
reason, and the PLC does with the part what is safe. What was asked stays with the gateway until its decision
is with the broker, over lost connections too; then one may come twice. If the gateway itself ends, that
is lost: the PLC must wait for a limited time alone, and then do what is safe too.
`line-3/gateway` tells whether the gateway is there: it says so itself, and the broker knows when it vanishes.

FLOWGAUGE_URL and FLOWGAUGE_KEY say where the server is and who asks, FLOWGAUGE_MQTT_PASSWORD is that of
`--user` at the broker. Triggers are answered one after another, each within `--timeout` seconds of its
arrival: one that had to wait for others for so long is UNKNOWN, and its picture is not sent any more.
"""

import argparse
import asyncio
import hashlib
import json
import os
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt

from app.client import AsyncClient, FlowGaugeError

RECONNECT_SECONDS = 2.0
FAREWELL_SECONDS = 2.0
PATIENCE_SECONDS = 2.0
_TRIGGER = 'a trigger is {"part_id": "...", "file": "..."}; the part may be a whole number'


class TriggerError(ValueError):
    """A trigger that names no picture."""


@dataclass(frozen=True)
class Line:
    """A line.

    Attributes:
        name: of its topics and its station.
        category: whose model inspects its parts.
        pictures: where its camera writes.
        timeout: seconds from a trigger's arrival in which it is answered.
    """

    name: str
    category: str
    pictures: Path
    timeout: float = 10.0


@dataclass(frozen=True)
class Broker:
    """A broker: where it is, as whom, and for TLS whose certificate it has.

    Attributes:
        host: name or address.
        port: of TLS, where that is used.
        user: for whom it has a password; None is nobody.
        password: of that user.
        tls: whether it wants TLS.
        ca: PEM of the authority of its certificate; None is those that the machine knows.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None


async def decide(client: AsyncClient, line: Line, payload: bytes, until: float) -> dict[str, Any]:
    """What to publish for a trigger, until then by the event loop's clock."""
    part_id = None
    try:
        part_id, name = read_trigger(payload)
        path = find(line.pictures, name)
        try:
            async with asyncio.timeout_at(until):  # over all attempts of the client
                data = await read(path)
                # MQTT may deliver a trigger twice; a part with the same picture is inspected once by a model.
                asked = json.dumps([line.category, line.name, part_id]).encode()
                key = hashlib.sha256(asked + data).hexdigest()
                found = await client.inspect(
                    line.category, data, part_id=part_id, station=line.name, idempotency_key=key
                )
        except TimeoutError as error:
            raise TimeoutError(f"no decision within {line.timeout:g} s") from error
    # ValueError: TriggerError, and texts that are no name or no Unicode. OSError: TimeoutError is one.
    except (ValueError, OSError, FlowGaugeError) as error:
        return {"part_id": part_id, "decision": "UNKNOWN", "reason": str(error)}
    return {
        "part_id": part_id,
        "decision": found.decision,
        "score": found.score,
        "inspection_id": found.inspection_id,
    }


def read_trigger(payload: bytes) -> tuple[str, str]:
    """Part id and name of the picture.

    Raises:
        TriggerError: it is not as it should be.
    """
    try:
        told = json.loads(payload)
        part_id, file = told["part_id"], told["file"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TriggerError(_TRIGGER) from error
    # In Python a truth value is a number.
    if not isinstance(part_id, str | int) or isinstance(part_id, bool) or not isinstance(file, str):
        raise TriggerError(_TRIGGER)
    return str(part_id), file


def find(pictures: Path, name: str) -> Path:
    """A picture by its name.

    Raises:
        TriggerError: the name leads out of the folder.
    """
    path = (pictures / name).resolve()
    if not path.is_relative_to(pictures.resolve()):
        raise TriggerError(f"{name!r} is not in the folder of pictures")
    return path


async def read(path: Path) -> bytes:
    """The bytes of a picture. A share that hangs holds up neither other triggers nor the end of the program.

    Raises:
        OSError: it cannot be read.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def tell(data: bytes | None, error: OSError | None) -> None:
        if not done.done():
            done.set_result(data or b"") if error is None else done.set_exception(error)

    def work() -> None:
        data, failed = None, None
        try:
            data = path.read_bytes()
        except OSError as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, data, failed)

    threading.Thread(target=work, daemon=True).start()
    return await done


async def serve(client: AsyncClient, broker: Broker, line: Line) -> None:
    """Answer triggers until cancelled; a broker that goes away is waited for."""
    loop = asyncio.get_running_loop()
    came: deque[float] = deque()  # when each that waits has come

    class Arrivals(asyncio.Queue[aiomqtt.Message]):
        def _put(self, item: aiomqtt.Message) -> None:
            came.append(loop.time())
            super()._put(item)

    gone = aiomqtt.Will(f"{line.name}/gateway", "offline", qos=1, retain=True)
    # One for all connections: what has come waits in it, for the broker, which gave it away, has it no more.
    mqtt = aiomqtt.Client(
        broker.host,
        broker.port,
        identifier=f"flowgauge-{line.name}",
        clean_session=False,
        will=gone,
        username=broker.user,
        password=broker.password,
        tls_context=ssl.create_default_context(cafile=broker.ca) if broker.tls else None,
        queue_type=Arrivals,
    )
    trigger: aiomqtt.Message | None = None  # until the broker has its decision
    until = 0.0
    while True:
        try:
            async with mqtt, announced(mqtt, line):
                while True:
                    if trigger is None:
                        trigger = await anext(mqtt.messages)
                        until = came.popleft() + line.timeout
                    payload = trigger.payload if isinstance(trigger.payload, bytes) else b""
                    answer = await decide(client, line, payload, until)
                    await mqtt.publish(f"{line.name}/decision", json.dumps(answer), qos=1)
                    trigger = None
                    print(answer, flush=True)
                    expect_to_go_on()  # the wait for the broker may have swallowed it
        except aiomqtt.MqttError as error:
            expect_to_go_on()  # a farewell that was not heard took its place
            print(f"the broker: {error}; again in {RECONNECT_SECONDS:g} s", flush=True)
            await asyncio.sleep(RECONNECT_SECONDS)


def expect_to_go_on() -> None:
    """Raise CancelledError where this task has been cancelled."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@asynccontextmanager
async def announced(mqtt: aiomqtt.Client, line: Line) -> AsyncIterator[None]:
    """Say that the gateway is there, and at its end that it is not: the will is for one that vanishes."""
    await mqtt.subscribe(f"{line.name}/trigger", qos=1)
    await mqtt.publish(f"{line.name}/gateway", "online", qos=1, retain=True)
    print(f"waiting for {line.name}/trigger", flush=True)
    try:
        expect_to_go_on()  # connecting, or one of the two calls, may have swallowed it
        yield
    except asyncio.CancelledError:
        mqtt.timeout = FAREWELL_SECONDS
        with suppress(aiomqtt.MqttError):
            await mqtt.publish(f"{line.name}/gateway", "offline", qos=1, retain=True)
        raise


async def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Answer a PLC's triggers over MQTT.")
    parser.add_argument("--category", required=True)
    parser.add_argument("--pictures", required=True, type=Path, help="where the camera writes")
    parser.add_argument("--line", default="line-1", help="beginning of the topics, and the station")
    parser.add_argument("--broker", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="1883, or 8883 with TLS")
    parser.add_argument("--user", help="at the broker; FLOWGAUGE_MQTT_PASSWORD is the password")
    parser.add_argument("--tls", action="store_true", help="the broker wants TLS")
    parser.add_argument("--ca", type=Path, help="PEM of its authority, for TLS")
    parser.add_argument("--timeout", default=10.0, type=float, help="seconds in which a trigger is answered")
    parser.add_argument("--url", default=os.environ.get("FLOWGAUGE_URL", "http://127.0.0.1:8000"))
    given = parser.parse_args()
    key = os.environ.get("FLOWGAUGE_KEY")
    tls = given.tls or given.ca is not None
    password = os.environ.get("FLOWGAUGE_MQTT_PASSWORD")
    port = given.port or (8883 if tls else 1883)
    broker = Broker(given.broker, port, given.user, password, tls, given.ca)
    patience = min(PATIENCE_SECONDS, given.timeout)
    async with AsyncClient(given.url, key, timeout=given.timeout, patience=patience) as client:
        line = Line(given.line, given.category, given.pictures, given.timeout)
        await serve(client, broker, line)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped")
