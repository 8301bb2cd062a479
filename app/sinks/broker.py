"""Where an MQTT broker is, and the topics there: the settings, checked. Needs no MQTT library."""

import re
import string
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from app.sinks.errors import SinkError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_PLACES: Final = frozenset({"station", "category", "decision"})
_MOST_BYTES: Final = 1024  # of the template; a topic may have 65535
# Code points that are no characters (Unicode, section 23.7): mosquitto takes none in a topic, it disconnects.
_LAST: Final = [chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF)]
_NONE: Final = "\ufdd0-\ufdef" + "".join(_LAST)
# What separates levels and what stands for many topics, and what brokers keep to themselves or refuse.
_RESERVED: Final = re.compile(rf"[/+#$\x00-\x1f\x7f-\x9f\ud800-\udfff{_NONE}]")
NO_STATION: Final = "none"


@dataclass(frozen=True)
class Broker:
    """An address of a broker."""

    host: str
    port: int
    tls: bool


def read_url(url: str) -> Broker:
    """Read mqtt://HOST:PORT, or mqtts:// for TLS.

    Raises:
        SinkError: it is not like that.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SinkError(f"FLOWGAUGE_MQTT_URL cannot be read: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise SinkError(
            "FLOWGAUGE_MQTT_URL holds a user or a password, which would be in logs: set FLOWGAUGE_MQTT_USER "
            "and FLOWGAUGE_MQTT_PASSWORD"
        )
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SinkError("FLOWGAUGE_MQTT_URL must look like mqtt://HOST:1883, or mqtts://HOST:8883 with TLS")
    return Broker(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts")


def expect_template(template: str) -> None:
    """Raise SinkError unless a text is a topic with places for station, category and decision."""
    try:
        places = list(string.Formatter().parse(template))
    except ValueError as error:
        raise SinkError(f"FLOWGAUGE_MQTT_TOPIC cannot be read: {error}") from error
    for _, name, form, conversion in places:
        if name is not None and (name not in _PLACES or form or conversion):
            raise SinkError(
                f"FLOWGAUGE_MQTT_TOPIC has a place {{{name}}}; there are {{station}}, {{category}} and "
                "{decision}"
            )
    expect_topic("FLOWGAUGE_MQTT_TOPIC", "".join(text for text, *_ in places))


def expect_topic(name: str, topic: str) -> None:
    """Raise SinkError unless a setting's text is a topic to publish to."""
    if (
        not topic
        or topic.startswith("$")
        or len(topic.encode()) > _MOST_BYTES
        or re.search(rf"[+#\x00{_NONE}]", topic)
    ):
        raise SinkError(f"{name} must be a topic without + and #, not beginning with $; got {topic[:80]!r}")


def topic_of(template: str, station: str | None, category: str, decision: str | None) -> str:
    """The topic of an inspection. What cannot be part of a level becomes _."""
    return template.format(station=_level(station), category=_level(category), decision=_level(decision))


def _level(text: str | None) -> str:
    return _RESERVED.sub("_", text) if text else NO_STATION
