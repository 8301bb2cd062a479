"""docs/how-to/receive-events.md: its receiver verifies our messages, its files can be read."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.events.sinks.webhook import sign
from app.events.sinks.webhook_file import read_secret, read_webhooks
from app.schemas.events import InspectionEvent
from tests.support.certificates import make_certificate

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "receive-events.md"
SECRET = "whsec_" + "c2VjcmV0" * 6


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def verify() -> Callable[[str, dict[str, str], bytes], bool]:
    names: dict[str, Any] = {}
    exec(compile(block("python"), str(PAGE), "exec"), names)  # noqa: S102  (our own page)
    receiver: Callable[[str, dict[str, str], bytes], bool] = names["verify"]
    return receiver


def test_receiver_accepts_only_our_messages(verify: Callable[[str, dict[str, str], bytes], bool]) -> None:
    key, body, now = read_secret(SECRET), b'{"type": "inspection"}', int(time.time())
    headers = sign(key, "0193a6b2", now, body)
    assert verify(SECRET, headers, body)
    assert verify(SECRET, headers | {"webhook-signature": f"v1,AAAA {headers['webhook-signature']}"}, body)
    assert not verify(SECRET, headers, body + b" ")
    assert not verify(SECRET, headers | {"webhook-id": "0193a6b3"}, body)
    assert not verify(SECRET, headers | {"webhook-signature": "v1,AAAA"}, body)
    assert not verify("whsec_" + "b3RoZXIh" * 6, headers, body)
    assert not verify(SECRET, sign(key, "0193a6b2", now - 3600, body), body)


def test_webhook_file_is_valid(tmp_path: Path) -> None:
    (tmp_path / "mes.secret").write_text(SECRET)
    make_certificate(tmp_path, "DNS:mes.plant.example").certificate.rename(tmp_path / "plant.pem")
    text = block("yaml").replace("/etc/flowgauge", str(tmp_path))
    (tmp_path / "webhooks.yaml").write_text(text)
    (webhook,) = read_webhooks(tmp_path / "webhooks.yaml")
    assert webhook.name == "mes"


def test_event_has_the_documented_fields() -> None:
    [data] = re.findall(r'^data: (\{"inspection_id".+\})$', block("text"), re.MULTILINE)
    assert set(json.loads(data)) == set(InspectionEvent.model_fields)
