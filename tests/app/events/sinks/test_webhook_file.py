import base64
from pathlib import Path

import pytest
import yaml

from app.events.sinks.config import SinkError
from app.events.sinks.webhook_file import read_secret, read_webhooks

SECRET = "whsec_" + "c2VjcmV0" * 6


def content(**changes: object) -> dict[str, list[dict[str, object]]]:
    webhook = {"name": "mes", "url": "https://mes.plant.example/hook", "secret": SECRET, **changes}
    return {"webhooks": [webhook]}


def write(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "webhooks.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    data = content(secret_file=str(tmp_path / "secret"), decisions=["REJECT"], categories=["bottle"])
    del data["webhooks"][0]["secret"]
    (webhook,) = read_webhooks(write(tmp_path, data))
    assert (webhook.name, webhook.host, webhook.attempts) == ("mes", "mes.plant.example", 10)
    assert webhook.decisions == frozenset({"REJECT"})
    assert webhook.secret == b"secret" * 6
    assert "secretsecret" not in repr(webhook)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "ftp://mes.plant.example"}, "url"),
        ({"url": "https://user:pw@mes.plant.example/"}, "neither a user"),
        ({"url": "https://mes.plant.example:port/"}, "url"),
        ({"name": "../x"}, "name"),
        ({"decisions": ["MAYBE"]}, "decisions"),
        ({"secret": "hunter2-hunter2"}, "webhooks.0.secret: the secret must be"),
        ({"secret": None}, "webhooks.0.secret"),
        ({"secret_file": "/nonexistent/secret"}, "either secret or secret_file"),
        ({"attempts": 0}, "attempts"),
        ({"timeout_seconds": ".inf"}, "timeout_seconds"),
        ({"retries": 3}, "retries"),
    ],
)
def test_error_does_not_show_the_secret(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SinkError) as caught:
        read_webhooks(write(tmp_path, content(**changes)))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "data", ["", "a: [", "- 1", "webhooks: 1", yaml.safe_dump({"webhooks": content()["webhooks"] * 2})]
)
def test_unreadable_file_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(SinkError, match="FLOWGAUGE_WEBHOOKS"):
        read_webhooks(write(tmp_path, data))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"none.yaml cannot be read"):
        read_webhooks(tmp_path / "none.yaml")
    data = content(secret_file=str(tmp_path / "none.secret"))
    del data["webhooks"][0]["secret"]
    with pytest.raises(SinkError, match=r"none.secret cannot be read"):
        read_webhooks(write(tmp_path, data))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "hunter2",
        base64.b64encode(b"x" * 32).decode(),
        f"whsec_{base64.b64encode(b'x' * 23).decode()}",
        f"whsec_{base64.b64encode(b'x' * 65).decode()}",
        "whsec_not base64!",
        "whsec_äöü",
    ],
)
def test_wrong_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SinkError, match="openssl rand") as caught:
        read_secret(text)
    assert not text.removeprefix("whsec_") or text not in str(caught.value)
