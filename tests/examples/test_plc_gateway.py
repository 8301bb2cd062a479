"""What a gateway makes of strange triggers and of lost connections; with a server too: test_clients.py."""

import asyncio
import json
import os
import ssl
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from app.client import AsyncClient
from examples import plc_gateway
from examples.plc_gateway import Broker, Line, TriggerError, decide, read_trigger
from tests import mosquitto
from tests.certificates import make_certificate
from tests.waiting import until


def soon(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[aiomqtt.Client]:
    """Clients of brokers, in the order in which they were made."""
    found: list[aiomqtt.Client] = []

    class Client(aiomqtt.Client):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            found.append(self)

    monkeypatch.setattr(aiomqtt, "Client", Client)
    return found


@pytest.mark.parametrize(
    "payload", [b'{"part_id": "P", "file": "a\\u0000.png"}', b'{"part_id": "P", "file": 7}', 100_000 * b"["]
)
def test_a_trigger_that_names_no_picture_is_unknown_and_not_the_end(tmp_path: Path, payload: bytes) -> None:
    async def ask() -> dict[str, object]:
        async with AsyncClient("http://127.0.0.1:9") as client:
            return await decide(client, Line("line-3", "tiny", tmp_path), payload, soon())

    assert asyncio.run(ask())["decision"] == "UNKNOWN"


def test_a_decision_takes_no_longer_than_it_may_whatever_is_tried_meanwhile(tmp_path: Path) -> None:
    """A server that is busy at first, and then answers without an end."""
    asked: list[bytes] = []
    given_up, done = asyncio.Event(), asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) == 1:
            writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nConnection: close\r\n")
            busy = b'{"type": "queue-full", "title": "", "status": 503, "detail": "busy", "instance": "/", '
            busy += b'"request_id": "1"}'
            writer.write(b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n" % len(busy))
            writer.write(busy)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n")
            while not given_up.is_set():  # never silent for as long as a decision may take
                writer.write(b" ")
                await asyncio.sleep(0.1)
        writer.close()
        done.release()

    async def ask() -> dict[str, object]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, AsyncClient(f"http://127.0.0.1:{port}", timeout=60, patience=60) as client:
            line = Line("line-3", "tiny", tmp_path, timeout=5.0)
            answer = await decide(client, line, b'{"part_id": "P", "file": "a.png"}', soon(5.0))
            given_up.set()
            for _ in asked:
                await done.acquire()
            return answer

    (tmp_path / "a.png").write_bytes(b"picture")
    assert asyncio.run(ask()) == {
        "part_id": "P",
        "decision": "UNKNOWN",
        "reason": "no decision within 5 s",
    }
    assert len(asked) == 2


def test_a_share_that_hangs_holds_up_neither_other_triggers_nor_the_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hung.png")

    async def ask() -> list[str]:
        async with AsyncClient("http://127.0.0.1:9", patience=0) as client:
            line = Line("line-3", "tiny", tmp_path, timeout=0.3)
            return [
                (await decide(client, line, json.dumps({"part_id": "P", "file": name}).encode(), until))[
                    "reason"
                ]
                for name, until in (("hung.png", soon(0.3)), ("missing.png", soon()))
            ]

    hung, missing = asyncio.run(ask())
    assert hung == "no decision within 0.3 s"
    assert "No such file" in missing
    os.close(os.open(tmp_path / "hung.png", os.O_WRONLY))  # it comes back, too late


def test_what_waited_for_too_long_is_unknown_and_not_sent(
    broker: mosquitto.Mosquitto, tmp_path: Path, made: list[aiomqtt.Client]
) -> None:
    """Or parts that are long gone would be inspected first, once a server is well again."""
    asked: list[bytes] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()
        writer.close()

    async def play(plc: mosquitto.Subscriber) -> list[dict[str, Any]]:
        def told() -> list[bytes]:
            return [payload for topic, payload, _ in plc.messages if topic == "line-3/decision"]

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, AsyncClient(f"http://127.0.0.1:{port}", timeout=60, patience=0) as client:
            line = Line("line-3", "tiny", tmp_path, timeout=4.0)
            serving = asyncio.create_task(plc_gateway.serve(client, Broker("127.0.0.1", broker.port), line))
            await until(lambda: len(plc.messages) == 1)  # it is there
            gateway = made[0]
            async with aiomqtt.Client("127.0.0.1", broker.port) as sender:
                for number in range(5):
                    trigger = json.dumps({"part_id": f"P-{number}", "file": "a.png"})
                    await sender.publish("line-3/trigger", trigger, qos=1)
                await until(lambda: len(asked) == 1 and len(gateway.messages) == 4)
            # The first one's decision waits for the broker until the time of the last is up too.
            with broker.standing_still():
                await asyncio.sleep(line.timeout + 1)
            await until(lambda: len(told()) == 5)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        return [json.loads(one) for one in told()]

    (tmp_path / "a.png").write_bytes(b"picture")
    with mosquitto.subscribed(broker, "line-3/+") as plc:
        answers = asyncio.run(play(plc))
    assert [one["part_id"] for one in answers] == [f"P-{number}" for number in range(5)]
    assert {one["reason"] for one in answers} == {"no decision within 4 s"}
    assert len(asked) == 1


@pytest.mark.parametrize("frozen", [False, True])
def test_a_gateway_that_ends_in_order_says_so(
    broker: mosquitto.Mosquitto, tmp_path: Path, frozen: bool
) -> None:
    """And it ends, whether the broker answers or not."""

    async def play(plc: mosquitto.Subscriber) -> None:
        def said() -> list[bytes]:
            return [payload for _, payload, _ in plc.messages]

        async with AsyncClient("http://127.0.0.1:9") as client:
            line = Line("line-3", "tiny", tmp_path)
            serving = asyncio.create_task(plc_gateway.serve(client, Broker("127.0.0.1", broker.port), line))
            await until(lambda: said() == [b"online"])
            with broker.standing_still() if frozen else nullcontext():
                serving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await serving
            await until(lambda: said() == [b"online", b"offline"])

    with mosquitto.subscribed(broker, "line-3/gateway") as plc:
        asyncio.run(play(plc))


@pytest.mark.parametrize("call", ["__aenter__", "subscribe", "publish"])
def test_a_gateway_ends_though_its_connection_swallows_the_cancellation(
    broker: mosquitto.Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As asyncio.wait_for of Python 3.11 does when what it waits for comes at the same time."""
    theirs = getattr(aiomqtt.Client, call)
    swallowed: list[bool] = []

    async def swallow(client: aiomqtt.Client, *args: Any, **settings: Any) -> Any:
        result = await theirs(client, *args, **settings)
        task = asyncio.current_task()
        if not swallowed and task is not None:
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                swallowed.append(True)
        return result

    async def play(plc: mosquitto.Subscriber) -> None:
        async with AsyncClient("http://127.0.0.1:9") as client:
            line = Line("line-3", "tiny", tmp_path)
            serving = asyncio.create_task(plc_gateway.serve(client, Broker("127.0.0.1", broker.port), line))
            await until(serving.cancelled)
            await until(lambda: [payload for _, payload, _ in plc.messages] == [b"online", b"offline"])

    monkeypatch.setattr(aiomqtt.Client, call, swallow)
    with mosquitto.subscribed(broker, "line-3/gateway") as plc:
        asyncio.run(play(plc))
    assert swallowed == [True]


def test_the_same_part_is_asked_about_once_by_each_model_and_line(tmp_path: Path) -> None:
    """A gateway that was started again with another category may ask again."""
    keys: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        keys.append(head.partition("idempotency-key: ")[2].partition("\r\n")[0])
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, AsyncClient(f"http://127.0.0.1:{port}", patience=0) as client:
            for name, category in (("1", "tiny"), ("1", "tiny"), ("1", "cap"), ("2", "tiny")):
                line = Line(name, category, tmp_path, timeout=5.0)
                await decide(client, line, b'{"part_id": "P", "file": "a.png"}', soon())

    (tmp_path / "a.png").write_bytes(b"picture")
    asyncio.run(ask())
    assert all(keys)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "told",
    [
        {"part_id": None, "file": "a.png"},
        {"part_id": True, "file": "a.png"},
        {"part_id": ["P"], "file": "a.png"},
        {"part_id": "P", "file": None},
        {"part_id": "P", "file": {"name": "a.png"}},
        {"part_id": "P", "file": 7},
        "part_id, file",
    ],
)
def test_a_trigger_names_a_part_and_a_file(told: object) -> None:
    """Not the part None, of which there would be many."""
    with pytest.raises(TriggerError, match="a trigger is"):
        read_trigger(json.dumps(told).encode())


@pytest.mark.parametrize("part_id", ["P-1", 4711])
def test_a_part_may_have_a_number(part_id: str | int) -> None:
    payload = json.dumps({"part_id": part_id, "file": "a.png"}).encode()
    assert read_trigger(payload) == (str(part_id), "a.png")


def test_what_was_asked_is_answered_though_the_broker_goes_away_meanwhile(
    broker: mosquitto.Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[aiomqtt.Client]
) -> None:
    gate = asyncio.Event()

    async def slowly(client: AsyncClient, line: Line, payload: bytes, until: float) -> dict[str, Any]:
        await gate.wait()
        return {"part_id": json.loads(payload)["part_id"], "decision": "PASS"}

    parts = {f"P-{number}" for number in range(4)}

    async def play(plc: mosquitto.Subscriber) -> None:
        def told(topic: str) -> list[bytes]:
            return [payload for name, payload, _ in plc.messages if name == f"line-3/{topic}"]

        async with AsyncClient("http://127.0.0.1:9") as client:
            line = Line("line-3", "tiny", tmp_path)
            serving = asyncio.create_task(plc_gateway.serve(client, Broker("127.0.0.1", broker.port), line))
            await until(lambda: bool(told("gateway")))
            gateway = made[0]
            async with aiomqtt.Client("127.0.0.1", broker.port) as sender:
                for part in sorted(parts):
                    trigger = json.dumps({"part_id": part, "file": "x.png"})
                    await sender.publish("line-3/trigger", trigger, qos=1)
                # The first is being decided on; the broker has given the others away too.
                await until(lambda: len(gateway.messages) == len(parts) - 1)
            await asyncio.to_thread(broker.stop)
            gate.set()
            await asyncio.sleep(0.5)
            assert told("decision") == []
            await asyncio.to_thread(broker.start)
            await until(lambda: {json.loads(one)["part_id"] for one in told("decision")} == parts)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    monkeypatch.setattr(plc_gateway, "decide", slowly)
    monkeypatch.setattr(plc_gateway, "RECONNECT_SECONDS", 0.1)
    with mosquitto.subscribed(broker, "line-3/#") as plc:
        asyncio.run(play(plc))


def test_a_broker_with_passwords_and_tls(broker: mosquitto.Mosquitto, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "IP:127.0.0.1")
    broker.stop()
    broker.protect("gateway", "hunter2")
    broker.encrypt(certificate)
    broker.start()

    async def play() -> None:
        ca = certificate.certificate
        who = Broker("127.0.0.1", broker.port, "gateway", "hunter2", tls=True, ca=ca)
        async with AsyncClient("http://127.0.0.1:9", patience=0.1) as client:
            line = Line("line-4", "tiny", tmp_path)
            serving = asyncio.create_task(plc_gateway.serve(client, who, line))
            plc = aiomqtt.Client(
                "127.0.0.1",
                broker.port,
                username="gateway",
                password="hunter2",  # noqa: S106
                tls_context=ssl.create_default_context(cafile=ca),
            )
            async with asyncio.timeout(60), plc:
                await plc.subscribe("line-4/#", qos=1)
                async for message in plc.messages:
                    if message.topic.matches("line-4/gateway") and message.payload == b"online":
                        break
                await plc.publish("line-4/trigger", b'{"part_id": 7, "file": "none.png"}', qos=1)
                async for message in plc.messages:
                    if message.topic.matches("line-4/decision"):
                        assert isinstance(message.payload, bytes)
                        assert json.loads(message.payload)["decision"] == "UNKNOWN"
                        break
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(play())
