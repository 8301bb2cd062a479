import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.events.log import NumberedEvent
from app.events.sinks.broker import read_broker
from app.events.sinks.config import SinkError
from app.events.sinks.mqtt import MqttSink
from app.events.sinks.sink import DeliveryError
from app.settings import Settings
from tests.support.certificates import make_certificate
from tests.support.mosquitto import Mosquitto, Subscriber, subscribed
from tests.support.waiting import until

TOPIC = "flowgauge/{station}/{category}/inspection"
STATUS = "flowgauge/status"

pytestmark = pytest.mark.anyio


def event(number: int, station: str | None = "line-3") -> NumberedEvent:
    return NumberedEvent(
        "inspection", "bottle", station, "REJECT", json.dumps({"inspection_id": str(number)}), number
    )


def make(address: Mosquitto | str, **given: Any) -> MqttSink:
    """Make a sink, by default of a local broker without TLS."""
    url = address if isinstance(address, str) else f"mqtt://127.0.0.1:{address.port}"
    settings = {"mqtt_url": url, "mqtt_topic": TOPIC, **given}
    broker = read_broker(Settings.model_validate(settings))
    assert broker is not None
    return MqttSink(broker, identity="01a21baa-a872-7000-8895-50f2a9d91ee3")


@asynccontextmanager
async def opened(sink: MqttSink) -> AsyncIterator[MqttSink]:
    await sink.open()
    try:
        async with asyncio.timeout(60):
            yield sink
    finally:
        await sink.close()


async def deliver_one(sink: MqttSink) -> None:
    async with opened(sink):
        await sink.wait_ready()
        await sink.deliver(event(1), redelivered=False)


async def be_refused(sink: MqttSink, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(sink):
        await until(lambda: "trying to connect again" in caplog.text)
        assert not sink.is_ready


def states(subscriber: Subscriber) -> list[tuple[str, bool]]:
    return [
        (json.loads(payload)["status"], retained)
        for topic, payload, retained in subscriber.messages
        if topic == STATUS
    ]


async def test_event_is_published_and_status_retained(broker: Mosquitto) -> None:
    with subscribed(broker) as subscriber:
        async with opened(make(broker)) as sink:
            await sink.wait_ready()
            assert sink.is_ready
            await sink.deliver(event(1), redelivered=False)
            await sink.deliver(event(2, "hall/3"), redelivered=True)
        await until(lambda: len(subscriber.messages) == 4)
        assert states(subscriber) == [("online", False), ("offline", False)]
        assert [(topic, json.loads(payload)) for topic, payload, _ in subscriber.messages[1:3]] == [
            ("flowgauge/line-3/bottle/inspection", {"inspection_id": "1", "redelivered": False}),
            ("flowgauge/hall_3/bottle/inspection", {"inspection_id": "2", "redelivered": True}),
        ]
    assert not sink.is_ready


async def test_close_does_not_wait_for_a_silent_broker(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.sinks.mqtt._FAREWELL_SECONDS", 0.2)
    before = asyncio.all_tasks()
    sink = make(broker)
    await sink.open()
    async with asyncio.timeout(60):
        await sink.wait_ready()
        with broker.standing_still():
            await sink.close()
    assert asyncio.all_tasks() <= before
    with subscribed(broker) as subscriber:
        await until(lambda: states(subscriber) == [("offline", True)])


async def test_sink_connects_when_the_broker_starts(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker.kill()
    caplog.set_level(logging.WARNING)
    async with opened(make(broker)) as sink:
        with pytest.raises(DeliveryError) as caught:
            await sink.deliver(event(1), redelivered=False)
        assert not caught.value.reached
        await until(lambda: "trying to connect again" in caplog.text)
        await asyncio.to_thread(broker.start)
        await sink.wait_ready()
        await sink.deliver(event(1), redelivered=False)
        # Lost: it is noticed, and made again.
        await asyncio.to_thread(broker.kill)
        await until(lambda: not sink.is_ready)
        await asyncio.to_thread(broker.start)
        await sink.wait_ready()
        await sink.deliver(event(2), redelivered=False)


async def test_two_servers_can_share_a_broker(broker: Mosquitto) -> None:
    """Servers cloned from one disk share the identity of the history."""
    one, other = (make(broker, mqtt_status_topic=f"{name}/status") for name in ("one", "other"))
    with subscribed(broker) as subscriber:
        async with opened(one), opened(other):
            await one.wait_ready()
            await other.wait_ready()
            for number, sink in enumerate((one, other, one)):
                assert sink.is_ready
                await sink.deliver(event(number), redelivered=False)
        await until(lambda: len(subscriber.messages) == 7)


async def test_login_with_user_and_password(broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    broker.stop()
    broker.protect("flowgauge", "hunter2")
    broker.start()
    await deliver_one(make(broker, mqtt_user="flowgauge", mqtt_password="hunter2"))  # noqa: S106
    assert "trying to connect again" not in caplog.text
    await be_refused(make(broker, mqtt_user="flowgauge", mqtt_password="hunter3"), caplog)  # noqa: S106
    assert "hunter" not in caplog.text


# Of a handshake that fails, paho leaves the socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls(broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate = make_certificate(tmp_path, "DNS:localhost", "IP:127.0.0.1")
    broker.stop()
    broker.encrypt(certificate)
    broker.start()
    url = f"mqtts://127.0.0.1:{broker.port}"
    await deliver_one(make(url, mqtt_ca=certificate.certificate))
    assert "trying to connect again" not in caplog.text
    await be_refused(make(url), caplog)  # an authority that nobody knows
    gc.collect()
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(SinkError, match="FLOWGAUGE_MQTT_CA"):
        make(url, mqtt_ca=tmp_path / "empty.pem")


@pytest.mark.parametrize(
    ("url", "warned"), [("mqtt://0.0.0.0", True), ("mqtts://0.0.0.0", False), ("mqtt://localhost", False)]
)
async def test_password_without_tls_is_warned_of(
    caplog: pytest.LogCaptureFixture, url: str, warned: bool
) -> None:
    await be_refused(make(f"{url}:1", mqtt_user="u", mqtt_password="hunter2"), caplog)  # noqa: S106
    assert ("can be read on the network" in caplog.text) == warned
    assert "hunter2" not in caplog.text
