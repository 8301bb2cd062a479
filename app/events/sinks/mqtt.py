"""The MQTT sink: QoS 1, topics by station and category, and a retained status topic."""

import asyncio
import hashlib
import json
import logging
import time
from contextlib import suppress
from typing import Final

import aiomqtt

from app.events.log import EventSelector, NumberedEvent
from app.events.sinks.broker import Broker, topic_of
from app.events.sinks.delivery import FIRST_DELAY
from app.events.sinks.sink import DeliveryError, Sink
from app.http.loopback import is_loopback

logger = logging.getLogger("flowgauge.sinks")

_QOS: Final = 1
# Time limits for each answer of the broker, and for the last message.
_ANSWER_SECONDS: Final = 10.0
_FAREWELL_SECONDS: Final = 2.0
_KEEPALIVE_SECONDS: Final = 30
_MAX_DELAY: Final = 15.0
_STEADY_SECONDS: Final = 10.0  # a connection that lasts this long resets the delay


class MqttSink(Sink):
    """A sink for an MQTT broker. It reconnects after a loss and sends unconfirmed events again.

    Args:
        broker: address, login and topics.
        identity: of the history. With the status topic it gives the client identifier, so that the broker
            ends a previous connection whose loss it has not noticed. Otherwise the will of that connection
            would follow `online`. Servers cloned from one disk share an identity and need different status
            topics.
    """

    name = "mqtt"
    events = EventSelector(kind=frozenset({"inspection"}))
    attempts = 1  # no attempt counts: a broker never refuses a message for good

    def __init__(self, broker: Broker, identity: str) -> None:
        self._broker = broker
        tls = "with TLS" if broker.tls else "without TLS"
        self.description = f"MQTT to {broker.host} port {broker.port} {tls}, topic {broker.topic}"
        # Every broker accepts 23 letters and digits (MQTT 3.1.1, section 3.1.3.1).
        digest = hashlib.sha256(f"{identity} {broker.status_topic}".encode()).hexdigest()
        self._client_id = f"flowgauge{digest[:14]}"
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        if self._broker.password and not self._broker.tls and not is_loopback(self._broker.host):
            logger.warning("the password of the MQTT broker can be read on the network: use mqtts://")
        self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        """Publish the status offline, within a few seconds, and disconnect."""
        self._closing = True
        while self._task is not None and not self._task.done():
            self._task.cancel()  # asyncio.wait_for, of Python 3.11, may swallow it
            await asyncio.wait((self._task,), timeout=3 * _FAREWELL_SECONDS)

    @property
    def is_ready(self) -> bool:
        """True while there is a connection."""
        return self._client is not None

    async def wait_ready(self) -> None:
        await self._connected.wait()

    async def deliver(self, event: NumberedEvent, redelivered: bool) -> None:
        """Publish an event and wait until the broker confirms it.

        Raises:
            DeliveryError: there is no connection, or it was lost.
        """
        client = self._client
        if client is None:
            raise DeliveryError("there is no connection to the broker")
        payload = json.loads(event.data) | {"redelivered": redelivered}
        topic = topic_of(self._broker.topic, event.station, event.category, event.decision)
        try:
            await client.publish(topic, json.dumps(payload), qos=_QOS, timeout=_ANSWER_SECONDS)
        except aiomqtt.MqttError as error:
            raise DeliveryError(f"the broker did not accept {topic!r}: {error}", reached=True) from error

    async def _stay_connected(self) -> None:
        broker, delay = self._broker, FIRST_DELAY
        while True:
            begun = time.monotonic()
            try:
                await self._session()
            except Exception as error:  # any error: this task must not end unnoticed
                if self._closing:  # an error of the last message replaced the cancellation
                    return
                was_steady = time.monotonic() - begun > _STEADY_SECONDS
                if was_steady or delay == FIRST_DELAY:
                    is_known = isinstance(error, aiomqtt.MqttError | OSError)
                    # As text: the error object would keep the socket of a failed handshake open.
                    message = "the MQTT broker %s port %d: %s; trying to connect again"
                    logger.warning(message, broker.host, broker.port, str(error), exc_info=not is_known)
                delay = FIRST_DELAY if was_steady else delay
            await asyncio.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY)

    async def _session(self) -> None:
        """Connect, and raise MqttError once the connection failed or was lost."""
        broker = self._broker
        async with aiomqtt.Client(
            broker.host,
            broker.port,
            identifier=self._client_id,
            username=broker.user,
            password=broker.password,
            will=aiomqtt.Will(broker.status_topic, _status("offline"), _QOS, retain=True),
            timeout=_ANSWER_SECONDS,
            keepalive=_KEEPALIVE_SECONDS,
            tls_context=broker.tls,
        ) as client:
            await client.publish(broker.status_topic, _status("online"), qos=_QOS, retain=True)
            logger.info("connected to the MQTT broker %s port %d", broker.host, broker.port)
            self._client = client
            self._connected.set()
            try:
                async for _ in client.messages:  # without subscriptions, it waits for the end
                    pass
            except asyncio.CancelledError:
                client.timeout = _FAREWELL_SECONDS
                with suppress(aiomqtt.MqttError):
                    await client.publish(broker.status_topic, _status("offline"), qos=_QOS, retain=True)
                raise
            finally:
                self._connected.clear()
                self._client = None


def _status(state: str) -> str:
    return json.dumps({"status": state})
