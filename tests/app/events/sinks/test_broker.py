from typing import Any

import pytest

from app.events.sinks.broker import Broker, read_broker, topic_of
from app.events.sinks.config import SinkError
from app.settings import Settings


def read(**given: Any) -> Broker | None:
    return read_broker(Settings.model_validate({f"mqtt_{name}": value for name, value in given.items()}))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", ("broker", 1883, False)),
        ("mqtts://Broker.plant.example/", ("broker.plant.example", 8883, True)),
        ("mqtt://10.0.0.5:1884", ("10.0.0.5", 1884, False)),
    ],
)
def test_addresses(url: str, address: tuple[str, int, bool]) -> None:
    broker = read(url=url, user="u", password="hunter2")  # noqa: S106
    assert broker is not None
    assert (broker.host, broker.port, broker.tls is not None) == address
    assert (broker.user, broker.password) == ("u", "hunter2")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "broker:1883"}, "must look like"),
        ({"url": "http://broker"}, "must look like"),
        ({"url": "mqtt://"}, "must look like"),
        ({"url": "mqtt://broker/topic"}, "must look like"),
        ({"url": "mqtt://broker:99999"}, "cannot be read"),
        ({"url": "mqtt://user:hunter2@broker"}, "FLOWGAUGE_MQTT_PASSWORD"),
        ({"user": "u"}, "FLOWGAUGE_MQTT_URL is not set"),
        ({"url": "mqtt://broker", "password": "hunter2"}, "needs FLOWGAUGE_MQTT_USER"),
        ({"url": "mqtt://broker", "ca": "ca.pem"}, "mqtts://"),
        ({"url": "mqtts://broker", "ca": "/nonexistent/ca.pem"}, "FLOWGAUGE_MQTT_CA"),
        *(
            ({"url": "mqtt://broker", "topic": topic}, "FLOWGAUGE_MQTT_TOPIC")
            for topic in ("a/#", "+/{station}", "{part_id}", "{}", "{station.x}", "{")
        ),
        *(
            ({"url": "mqtt://broker", "status_topic": topic}, "STATUS_TOPIC must be a topic")
            for topic in ("a/+", "#", "$SYS/x", "x" * 1025, "a\0b")
        ),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SinkError, match=said) as caught:
        read(**given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("station", "topic"),
    [
        ("line-3", "f/line-3/bottle/PASS"),
        ("Halle 3", "f/Halle 3/bottle/PASS"),
        (None, "f/none/bottle/PASS"),
        ("", "f/none/bottle/PASS"),
        ("a/b+c#d$e\n\ufdd0\U0001fffe", "f/a_b_c_d_e___/bottle/PASS"),
        ("{category}", "f/{category}/bottle/PASS"),
    ],
)
def test_topics(station: str | None, topic: str) -> None:
    assert topic_of("f/{station}/{category}/{decision}", station, "bottle", "PASS") == topic
