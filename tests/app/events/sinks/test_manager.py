from pathlib import Path

import pytest
import yaml

from app.events.sinks.config import SinkError
from app.events.sinks.manager import describe_sinks
from app.settings import Settings


def test_sinks_are_described(tmp_path: Path) -> None:
    assert describe_sinks(Settings()) == []
    webhook = {"name": "mes", "url": "https://mes.plant.example/x", "secret": "whsec_" + "c2VjcmV0" * 6}
    (tmp_path / "webhooks.yaml").write_text(yaml.safe_dump({"webhooks": [webhook]}))
    given = {"mqtt_url": "mqtts://broker", "mqtt_user": "u", "mqtt_password": "hunter2"}
    settings = Settings.model_validate({**given, "webhooks": tmp_path / "webhooks.yaml"})
    assert describe_sinks(settings) == [
        "MQTT to broker port 8883 with TLS, topic flowgauge/{station}/{category}/inspection",
        "webhook mes to mes.plant.example",
    ]
    assert "hunter2" not in settings.model_dump_json()


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SinkError, match="pip install 'aiomqtt"):
        describe_sinks(Settings(mqtt_url="mqtt://broker"))
