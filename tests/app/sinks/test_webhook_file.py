from pathlib import Path

import pytest
import yaml

from app.sinks.errors import SinkError
from app.sinks.webhook_file import read_webhooks

SECRET = "whsec_" + "c2VjcmV0" * 6


def content(**changes: object) -> dict[str, object]:
    webhook = {"name": "mes", "url": "https://mes.plant.example/hook", "secret": SECRET, **changes}
    return {"hosts": ["mes.plant.example"], "webhooks": [webhook]}


def write(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "webhooks.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    data = content(secret_file=str(tmp_path / "secret"), decisions=["REJECT"], categories=["bottle"])
    del data["webhooks"][0]["secret"]  # type: ignore[index]
    file = read_webhooks(write(tmp_path, data | {"networks": ["10.0.0.0/8", "fd00::/8"]}))
    (webhook,) = file.webhooks
    assert (webhook.name, webhook.host, webhook.attempts) == ("mes", "mes.plant.example", 10)
    assert webhook.decisions == frozenset({"REJECT"})
    assert webhook.key() == b"secret" * 6
    assert len(file.networks) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "ftp://mes.plant.example"}, "must look like https"),
        ({"url": "https://user:pw@mes.plant.example/"}, "neither a user"),
        ({"url": "https://mes.plant.example:port/"}, "url"),
        ({"url": "https://other.example/"}, "not among `hosts`"),
        ({"url": "https://mes.plant.example@other.example/"}, "neither a user"),
        ({"name": "../x"}, "name"),
        ({"decisions": ["MAYBE"]}, "decisions"),
        ({"decisions": []}, "decisions"),
        ({"secret": None}, "either secret or secret_file"),
        ({"secret": "hunter2-hunter2"}, "secret of webhook mes"),
        ({"secret": {"hunter2": 1}}, "secret"),
        ({"secret": None, "secret_file": "/nonexistent/secret"}, "cannot be read"),
        ({"attempts": 0}, "attempts"),
        ({"timeout_seconds": ".inf"}, "timeout_seconds"),
        ({"retries": 3}, "retries"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(SinkError) as caught:
        read_webhooks(write(tmp_path, content(**changes)))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "data", ["", "a: [", "- 1", "hosts: []", "webhooks: []", "\tx", "hosts: [a]\nwebhooks: 1"]
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(SinkError, match="FLOWGAUGE_WEBHOOKS"):
        read_webhooks(write(tmp_path, data))


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    data = content()
    data["webhooks"] *= 2  # type: ignore[operator]
    with pytest.raises(SinkError, match="one name"):
        read_webhooks(write(tmp_path, data))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be read"):
        read_webhooks(tmp_path / "none.yaml")
    with pytest.raises(SinkError, match="cannot be read"):
        read_webhooks(tmp_path)
