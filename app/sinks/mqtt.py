"""Inspections to an MQTT broker: QoS 1, topics by station and category, and a retained one of the state."""

import asyncio
import hashlib
import json
import logging
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiomqtt

from app.feed.log import Event, Wanted
from app.sinks.broker import read_url, topic_of
from app.sinks.delivery import FIRST_DELAY, LONGEST_DELAY, Undelivered
from app.sinks.tls import trusting

logger = logging.getLogger("flowgauge.sinks")

_QOS: Final = 1
# For each answer of the broker, and at the end.
_ANSWER_SECONDS: Final = 10.0
_FAREWELL_SECONDS: Final = 2.0
_KEEPALIVE_SECONDS: Final = 30
_STEADY_SECONDS: Final = 10.0  # a connection that lasted so long was none that is refused again and again


class MqttSink:
    """A broker. The connection is made again whenever it is lost; what is on its way then is sent again.

    Args:
        url: mqtt://HOST:PORT or mqtts://HOST:PORT.
        topic: with places for {station}, {category} and {decision}.
        status_topic: retained: online, and offline as the last will.
        identity: of the history. The client identifier is made of it and the status topic, so that the broker
            ends the connection before, which it may not have seen to be lost: its will would come after
            `online`. Servers made from one image have one identity, but need a status topic each.
        user: to log in with, or None.
        password: its password, or None.
        ca: PEM file of the authority that signed the broker's certificate; None for those the system trusts.

    Raises:
        SinkError: the URL or the file is not usable.
    """

    name = "mqtt"
    wanted = Wanted(kinds=frozenset({"inspection"}))
    attempts = 1  # none counts: a broker refuses no message for good

    def __init__(
        self,
        url: str,
        topic: str,
        status_topic: str,
        identity: str,
        user: str | None = None,
        password: str | None = None,
        ca: Path | None = None,
    ) -> None:
        self._broker = read_url(url)
        self._topic = topic
        self._status_topic = status_topic
        # Every broker takes 23 letters and digits (MQTT 3.1.1, section 3.1.3.1).
        digest = hashlib.sha256(f"{identity} {status_topic}".encode()).hexdigest()
        self._client_id = f"flowgauge{digest[:14]}"
        self._user = user
        self._password = password
        self._tls: ssl.SSLContext | None = None
        if self._broker.tls:
            self._tls = trusting(ca, "FLOWGAUGE_MQTT_CA")
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        """Say that this server is offline, if the broker takes it within seconds, and disconnect."""
        self._closing = True
        while self._task is not None and not self._task.done():
            self._task.cancel()  # asyncio.wait_for, of Python 3.11, may swallow it
            await asyncio.wait((self._task,), timeout=3 * _FAREWELL_SECONDS)

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    async def ready(self) -> None:
        """Wait for a connection."""
        await self._connected.wait()

    async def deliver(self, event: Event, redelivered: bool) -> None:
        """Publish an event, and wait until the broker has it.

        Raises:
            Undelivered: there is no connection, or it was lost meanwhile.
        """
        client = self._client
        if client is None:
            raise Undelivered("there is no connection to the broker")
        payload = json.loads(event.data) | {"redelivered": redelivered}
        topic = topic_of(self._topic, event.station, event.category, event.decision)
        try:
            await client.publish(topic, json.dumps(payload), qos=_QOS, timeout=_ANSWER_SECONDS)
        except aiomqtt.MqttError as error:
            raise Undelivered(f"the broker did not take {topic!r}: {error}", reached=True) from error

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        delay, complained = 0.0, False
        while True:
            begun = loop.time()
            try:
                await self._session()
            except Exception as error:  # whatever it was: if this task ended, nobody would hear of it
                if self._closing:  # it did not hear the farewell, and its error took the cancellation's place
                    return
                if not complained:
                    is_known = isinstance(error, aiomqtt.MqttError | OSError)
                    logger.warning(
                        "the MQTT broker %s port %d: %s; connecting again and again",
                        self._broker.host,
                        self._broker.port,
                        str(error),  # the error itself would keep the socket of a failed handshake
                        exc_info=not is_known,
                    )
                complained = loop.time() - begun < _STEADY_SECONDS
            delay = min(max(2 * delay, FIRST_DELAY), LONGEST_DELAY / 4)
            if loop.time() - begun > _STEADY_SECONDS:
                delay = FIRST_DELAY
            await asyncio.sleep(delay)

    async def _session(self) -> None:
        """Connect, and stay so until that is lost.

        Raises:
            MqttError: there is no connection, or no longer.
        """
        will = aiomqtt.Will(self._status_topic, _status("offline"), _QOS, retain=True)
        async with aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=self._client_id,
            username=self._user,
            password=self._password,
            will=will,
            timeout=_ANSWER_SECONDS,
            keepalive=_KEEPALIVE_SECONDS,
            tls_context=self._tls,
        ) as client:
            await client.publish(self._status_topic, _status("online"), qos=_QOS, retain=True)
            logger.info("connected to the MQTT broker %s port %d", self._broker.host, self._broker.port)
            self._client = client
            self._connected.set()
            try:
                async for _ in client.messages:  # none is subscribed to: it waits for the end
                    pass
            except asyncio.CancelledError:
                client.timeout = _FAREWELL_SECONDS
                with suppress(aiomqtt.MqttError):
                    await client.publish(self._status_topic, _status("offline"), qos=_QOS, retain=True)
                raise
            finally:
                self._connected.clear()
                self._client = None


def _status(state: str) -> str:
    return json.dumps({"status": state})
