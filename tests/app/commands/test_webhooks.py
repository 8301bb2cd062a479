import base64
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from app.commands.webhooks import app
from app.database import clock
from app.database.engine import Database
from app.events import log
from app.events.log import NewEvent
from app.events.sinks import positions
from app.events.sinks.config import SinkError
from app.settings import load_settings

SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_failed_deliveries_are_listed_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "webhooks.yaml"
    webhook = {"name": "mes", "url": "http://127.0.0.1:9/hook", "secret": SECRET}
    file.write_text(yaml.safe_dump({"webhooks": [webhook]}))
    monkeypatch.setenv("FLOWGAUGE_WEBHOOKS", str(file))
    monkeypatch.setattr(clock, "now_ms", lambda: 1_764_000_000_123)
    database = Database(load_settings().database_url)
    database.upgrade()
    assert json.loads(run("list", "--json").stdout) == [{"name": "mes", "host": "127.0.0.1", "failed": []}]
    with database.write() as connection:
        log.append(connection, [NewEvent("inspection", "bottle", None, "PASS", '{"inspection_id": "a"}')])
        positions.give_up(connection, "webhook-mes", 1, "answers 410")
        positions.give_up(connection, "mqtt", 1, "another sink")
    database.close()
    failed = {"inspection_id": "a", "failed_at": "2025-11-24T16:00:00.123Z", "reason": "answers 410"}
    found = run("list", "--json")
    assert json.loads(found.stdout) == [{"name": "mes", "host": "127.0.0.1", "failed": [failed]}]
    first, second = run("list").stdout.splitlines()
    assert first.split() == ["mes", "127.0.0.1", "failed", "deliveries:", "1"]
    assert second.split() == ["2025-11-24T16:00:00.123Z", "a", "answers", "410"]
    assert SECRET not in found.output


def test_without_webhooks_the_setting_is_named() -> None:
    assert isinstance(error := run("list").exception, SinkError)
    assert "FLOWGAUGE_WEBHOOKS" in str(error)
