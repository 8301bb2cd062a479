"""Creation and lifetime of the sinks in the settings."""

import asyncio
import importlib.util
from collections.abc import Sequence

from app.database.engine import Database
from app.events.feed import Feed
from app.events.sinks.broker import read_broker
from app.events.sinks.config import SinkError
from app.events.sinks.delivery import Delivery
from app.events.sinks.sink import Sink
from app.events.sinks.webhook import WebhookSink
from app.events.sinks.webhook_file import read_webhooks
from app.settings import Settings


class SinkManager:
    """The sinks of a service, each with its own task while this server leads.

    Attributes:
        deliveries: of the open sinks.

    Raises:
        SinkError: a setting is wrong.
    """

    def __init__(self, settings: Settings, database: Database, feed: Feed, identity: str) -> None:
        _build_sinks(settings, identity)
        self._settings = settings
        self._database = database
        self._feed = feed
        self._identity = identity
        self.deliveries: Sequence[Delivery] = ()

    async def open(self) -> None:
        """Start to deliver; may be repeated after `close`."""
        for sink in _build_sinks(self._settings, self._identity):
            delivery = Delivery(sink, self._database, self._feed)
            await delivery.open()
            self.deliveries = (*self.deliveries, delivery)

    async def close(self) -> None:
        """Stop within a few seconds."""
        deliveries, self.deliveries = self.deliveries, ()
        await asyncio.gather(*(delivery.close() for delivery in deliveries))


def describe_sinks(settings: Settings) -> list[str]:
    """Describe the sinks without connecting, or raise SinkError for a wrong setting."""
    return [sink.description for sink in _build_sinks(settings, identity="")]


def _build_sinks(settings: Settings, identity: str) -> list[Sink]:
    sinks: list[Sink] = []
    if (broker := read_broker(settings)) is not None:
        if importlib.util.find_spec("aiomqtt") is None:
            # Names the library: FlowGauge is on no package index, and its name there could be anybody's.
            raise SinkError("FLOWGAUGE_MQTT_URL needs the extra mqtt: pip install 'aiomqtt>=2.4'")
        from app.events.sinks.mqtt import MqttSink

        sinks.append(MqttSink(broker, identity))
    if settings.webhooks is not None:
        sinks += map(WebhookSink, read_webhooks(settings.webhooks))
    return sinks
