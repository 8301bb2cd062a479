"""All sinks of a service, as its settings have them."""

import asyncio
import importlib.util
import logging
from collections.abc import Sequence

from app.database.engine import Database
from app.feed.feed import Feed
from app.loopback import is_loopback
from app.settings import Settings
from app.sinks.broker import expect_template, expect_topic, read_url
from app.sinks.delivery import Delivery, Sink
from app.sinks.errors import SinkError, Wrong
from app.sinks.tls import trusting
from app.sinks.webhook import WebhookSink
from app.sinks.webhook_file import Webhook, read_webhooks

logger = logging.getLogger("flowgauge.sinks")


class Sinks:
    """The sinks, each with a task of its own.

    Args:
        settings: of the service.
        database: of the history.
        feed: says when there is something new.
        identity: of the history.

    Raises:
        SinkError: a setting is wrong.
    """

    def __init__(self, settings: Settings, database: Database, feed: Feed, identity: str) -> None:
        self.deliveries: Sequence[Delivery] = [
            Delivery(sink, database, feed) for sink in _make(settings, identity)
        ]

    async def open(self) -> None:
        """Begin to deliver."""
        for delivery in self.deliveries:
            await delivery.open()

    async def close(self) -> None:
        """End, within a few seconds."""
        await asyncio.gather(*(delivery.close() for delivery in self.deliveries))


def describe(settings: Settings) -> list[str]:
    """The sinks in words, checked: nothing is connected to.

    Raises:
        SinkError: a line for everything that is wrong.
    """
    lines = []
    wrong = Wrong()
    if settings.mqtt_url is not None:
        with wrong.collected():
            _check_mqtt(settings)
            broker = read_url(settings.mqtt_url)
            tls = "with TLS" if broker.tls else "without TLS"
            lines.append(f"MQTT to {broker.host} port {broker.port} {tls}, topic {settings.mqtt_topic}")
    elif settings.mqtt_user is not None or settings.mqtt_password is not None or settings.mqtt_ca is not None:
        wrong.add("FLOWGAUGE_MQTT_URL is not set, but other settings of MQTT are")
    with wrong.collected():
        lines += [f"webhook {one.name} to {one.host}" for one in _webhooks(settings)]
    wrong.tell()
    return lines


def _make(settings: Settings, identity: str) -> list[Sink]:
    sinks: list[Sink] = []
    if settings.mqtt_url is not None:
        _check_mqtt(settings)
        from app.sinks.mqtt import MqttSink

        password = settings.mqtt_password
        broker = read_url(settings.mqtt_url)
        if password is not None and not broker.tls and not is_loopback(broker.host):
            logger.warning("the password of the MQTT broker can be read on the way: use mqtts://")
        sinks.append(
            MqttSink(
                settings.mqtt_url,
                settings.mqtt_topic,
                settings.mqtt_status_topic,
                identity,
                settings.mqtt_user,
                None if password is None else password.get_secret_value(),
                settings.mqtt_ca,
            )
        )
    sinks += map(WebhookSink, _webhooks(settings))
    return sinks


def _check_mqtt(settings: Settings) -> None:
    if importlib.util.find_spec("aiomqtt") is None:
        # By the library's name: FlowGauge's own is on no package index, and could be anybody's there.
        raise SinkError("FLOWGAUGE_MQTT_URL needs what the extra mqtt brings: pip install 'aiomqtt>=2.4'")
    wrong = Wrong()
    with wrong.collected():
        broker = read_url(settings.mqtt_url or "")
        if settings.mqtt_ca is not None and not broker.tls:
            raise SinkError("FLOWGAUGE_MQTT_CA is for TLS: FLOWGAUGE_MQTT_URL must begin with mqtts://")
        trusting(settings.mqtt_ca, "FLOWGAUGE_MQTT_CA")
    with wrong.collected():
        expect_template(settings.mqtt_topic)
    with wrong.collected():
        expect_topic("FLOWGAUGE_MQTT_STATUS_TOPIC", settings.mqtt_status_topic)
    if settings.mqtt_password is not None and settings.mqtt_user is None:
        wrong.add("FLOWGAUGE_MQTT_PASSWORD needs FLOWGAUGE_MQTT_USER")
    wrong.tell()


def _webhooks(settings: Settings) -> Sequence[Webhook]:
    return () if settings.webhooks is None else read_webhooks(settings.webhooks)
