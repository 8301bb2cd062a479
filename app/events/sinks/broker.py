"""Settings of the MQTT broker and its topics. Needs no MQTT library."""

import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from app.events.sinks.config import SinkError, tls_context
from app.settings import Settings

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_MAX_BYTES: Final = 1024  # of a topic template; MQTT allows 65535 bytes for the expanded topic


@dataclass(frozen=True)
class Broker:
    """An MQTT broker with its login and topics."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    user: str | None
    password: str | None
    topic: str
    status_topic: str


def read_broker(settings: Settings) -> Broker | None:
    """Read the broker's settings; None if no broker is set.

    Raises:
        SinkError: a setting is wrong, or requires another one.
    """
    password = settings.mqtt_password
    if settings.mqtt_url is None:
        if settings.mqtt_user is not None or password is not None or settings.mqtt_ca is not None:
            raise SinkError("FLOWGAUGE_MQTT_URL is not set, but other settings of MQTT need it")
        return None
    host, port, is_encrypted = _read_url(settings.mqtt_url)
    if settings.mqtt_ca is not None and not is_encrypted:
        raise SinkError("FLOWGAUGE_MQTT_CA is for TLS: FLOWGAUGE_MQTT_URL must begin with mqtts://")
    if password is not None and settings.mqtt_user is None:
        raise SinkError("FLOWGAUGE_MQTT_PASSWORD needs FLOWGAUGE_MQTT_USER")
    try:
        example = topic_of(settings.mqtt_topic, "line-3", "bottle", "PASS")
    except (LookupError, ValueError, AttributeError) as error:
        raise SinkError(
            "FLOWGAUGE_MQTT_TOPIC may contain {station}, {category} and {decision}, no other braces; got "
            f"{settings.mqtt_topic!r}"
        ) from error
    _validate_topic("FLOWGAUGE_MQTT_TOPIC", example)
    _validate_topic("FLOWGAUGE_MQTT_STATUS_TOPIC", settings.mqtt_status_topic)
    return Broker(
        host,
        port,
        tls_context(settings.mqtt_ca, "FLOWGAUGE_MQTT_CA") if is_encrypted else None,
        settings.mqtt_user,
        None if password is None else password.get_secret_value(),
        settings.mqtt_topic,
        settings.mqtt_status_topic,
    )


def topic_of(template: str, station: str | None, category: str, decision: str | None) -> str:
    """Build the topic of an inspection. Invalid characters of a level become _; no station becomes `none`."""
    return template.format(station=_level(station), category=_level(category), decision=_level(decision))


def _level(text: str | None) -> str:
    # / separates levels, + and # are wildcards, $ is reserved. Some brokers refuse unprintable characters.
    return "".join(c if c.isprintable() and c not in "/+#$" else "_" for c in text or "none")


def _read_url(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SinkError(f"FLOWGAUGE_MQTT_URL cannot be read: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise SinkError(
            "FLOWGAUGE_MQTT_URL contains a user or a password, which logs would show: set "
            "FLOWGAUGE_MQTT_USER and FLOWGAUGE_MQTT_PASSWORD"
        )
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SinkError("FLOWGAUGE_MQTT_URL must look like mqtt://HOST:1883, or mqtts://HOST:8883 with TLS")
    return parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts"


def _validate_topic(name: str, topic: str) -> None:
    """Raise SinkError unless a setting is a valid topic to publish to."""
    is_short = 0 < len(topic.encode(errors="replace")) <= _MAX_BYTES
    if not is_short or topic.startswith("$") or not topic.isprintable() or set(topic) & set("+#"):
        raise SinkError(f"{name} must be a topic without + and #, not starting with $; got {topic[:80]!r}")
