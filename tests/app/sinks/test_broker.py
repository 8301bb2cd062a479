import pytest

from app.sinks.broker import Broker, expect_template, expect_topic, read_url, topic_of
from app.sinks.errors import SinkError


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://broker", Broker("broker", 1883, tls=False)),
        ("mqtts://Broker.plant.example/", Broker("broker.plant.example", 8883, tls=True)),
        ("mqtt://10.0.0.5:1884", Broker("10.0.0.5", 1884, tls=False)),
    ],
)
def test_addresses(url: str, broker: Broker) -> None:
    assert read_url(url) == broker


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("broker:1883", "must look like"),
        ("http://broker", "must look like"),
        ("mqtt://", "must look like"),
        ("mqtt://broker/topic", "must look like"),
        ("mqtt://broker:99999", "cannot be read"),
        ("mqtt://broker:port", "cannot be read"),
        ("mqtt://user:hunter2@broker", "FLOWGAUGE_MQTT_PASSWORD"),
        ("mqtt://user@broker", "FLOWGAUGE_MQTT_USER"),
    ],
)
def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(SinkError, match=said) as caught:
        read_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["", "a/#", "+/{station}", "{part_id}", "{station!r}", "{station:>9}", "{", "$SYS/{station}"],
)
def test_what_is_no_template_is_refused(template: str) -> None:
    expect_template("{{x}}/{station}/{category}/{decision}")
    with pytest.raises(SinkError, match="FLOWGAUGE_MQTT_TOPIC"):
        expect_template(template)


def test_what_is_no_topic_is_refused() -> None:
    expect_topic("NAME", "flowgauge/status")
    for topic in ("", "a/+", "#", "$SYS/x", "x" * 1025, "a\0b"):
        with pytest.raises(SinkError, match="NAME must be a topic"):
            expect_topic("NAME", topic)


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
