import asyncio
import uuid
from pathlib import Path

import pytest
import yaml

from app.database.engine import Database
from app.feed.feed import Feed
from app.settings import Settings
from app.sinks.errors import SinkError
from app.sinks.sinks import Sinks, describe

SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.fixture
def webhooks(tmp_path: Path) -> Path:
    path = tmp_path / "webhooks.yaml"
    webhook = {"name": "mes", "url": "https://mes.plant.example/x", "secret": SECRET}
    path.write_text(yaml.safe_dump({"webhooks": [webhook]}))
    return path


def settings(**given: object) -> Settings:
    return Settings.model_validate(given)


def test_all_of_them_in_words(webhooks: Path) -> None:
    assert describe(Settings()) == []
    given = settings(mqtt_url="mqtts://broker", mqtt_user="u", mqtt_password="hunter2", webhooks=webhooks)  # noqa: S106
    assert describe(given) == [
        "MQTT to broker port 8883 with TLS, topic flowgauge/{station}/{category}/inspection",
        "webhook mes to mes.plant.example",
    ]
    assert "hunter2" not in given.model_dump_json()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mqtt_url": "broker"}, "must look like"),
        ({"mqtt_url": "mqtt://u:hunter2@broker"}, "FLOWGAUGE_MQTT_PASSWORD"),
        ({"mqtt_user": "u"}, "FLOWGAUGE_MQTT_URL is not set"),
        ({"mqtt_url": "mqtt://broker", "mqtt_password": "hunter2"}, "needs FLOWGAUGE_MQTT_USER"),
        ({"mqtt_url": "mqtt://broker", "mqtt_ca": "ca.pem"}, "mqtts://"),
        ({"mqtt_url": "mqtts://broker", "mqtt_ca": "/nonexistent/ca.pem"}, "FLOWGAUGE_MQTT_CA"),
        ({"mqtt_url": "mqtt://broker", "mqtt_topic": "a/#"}, "FLOWGAUGE_MQTT_TOPIC"),
        ({"mqtt_url": "mqtt://broker", "mqtt_status_topic": "+"}, "FLOWGAUGE_MQTT_STATUS_TOPIC"),
        ({"webhooks": "/nonexistent/webhooks.yaml"}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, object], said: str) -> None:
    with pytest.raises(SinkError, match=said) as caught:
        describe(settings(**given))
    assert "hunter2" not in str(caught.value)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SinkError, match="pip install 'aiomqtt"):
        describe(settings(mqtt_url="mqtt://broker"))


@pytest.mark.parametrize(
    ("url", "password", "warned"),
    [
        ("mqtt://broker", "hunter2", True),
        ("mqtts://broker", "hunter2", False),
        ("mqtt://localhost", "hunter2", False),
    ],
)
def test_a_password_that_can_be_read_on_the_way_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, password: str | None, warned: bool
) -> None:
    given = settings(mqtt_url=url, mqtt_user="u", mqtt_password=password, history=tmp_path / "history")
    database = Database(given.database_url)

    async def do() -> None:
        sinks = Sinks(given, database, Feed(database, 1), str(uuid.uuid4()))
        assert [delivery.sink.name for delivery in sinks.deliveries] == ["mqtt"]

    asyncio.run(do())
    database.close()
    assert ("can be read on the way" in caplog.text) == warned
    assert "hunter2" not in caplog.text
