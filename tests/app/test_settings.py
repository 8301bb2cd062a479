import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import MIB, Settings, SettingsError, load_settings, unknown_variables

ROOT = Path(__file__).parents[2]
POSTGRESQL = "postgresql://flowgauge@localhost/flowgauge"


def test_default_host_is_loopback() -> None:
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.port == 8000
    assert settings.models == Path("models")
    assert not settings.allow_unauthenticated_network


def test_the_environment_sets_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGAUGE_MODELS", "/srv/models")
    monkeypatch.setenv("FLOWGAUGE_PORT", "9000")
    settings = Settings(port=9001)
    assert settings.models == Path("/srv/models")
    assert settings.port == 9001


def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """docker compose passes ${X:-} as an empty variable."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"FLOWGAUGE_{name.upper()}", "")
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert Settings().model_dump() == defaults


def test_unknown_variables_are_named() -> None:
    known = dict.fromkeys(["FLOWGAUGE_PORT", "flowgauge_host", "FLOWGAUGE_RUNS", "FLOWGAUGE_DEBUG", "X"], "")
    assert unknown_variables(known) == []
    assert unknown_variables({**known, "FLOWGAUGE_MODLES": "m", "flowgauge_qqq": ""}) == [
        "FLOWGAUGE_MODLES is not a setting and has no effect; did you mean FLOWGAUGE_MODELS?",
        "flowgauge_qqq is not a setting and has no effect",
    ]


@pytest.mark.parametrize("place", ["deploy/flowgauge.env", "docker-compose.yml", "Dockerfile"])
def test_shipped_files_set_only_known_variables(place: str) -> None:
    names = re.findall(r"FLOWGAUGE_[A-Z_]*[A-Z]", (ROOT / place).read_text())
    assert names
    assert unknown_variables(dict.fromkeys(names, "")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("DEVICE", "tpu"),
        ("THREADS", "0"),
        ("UPLOAD_IDLE_SECONDS", "0"),
        ("UPLOAD_IDLE_SECONDS", "nan"),
        ("MAX_BATCH", "257"),
        ("MAX_ITEMS", "0"),
        ("DEADLINE_MS", "0"),
        ("JOURNAL_BYTES", "0"),
        ("RETENTION_PASS_DAYS", "0"),
        ("RETENTION_BYTES", "0"),
        ("DRIFT_WINDOW", "19"),
        ("REQUESTS_PER_MINUTE", "0"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "10.0.0.5/24"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_setting_out_of_range_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FLOWGAUGE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize(
    "device", ["", "tpu", "cuda:", "cuda:x", "cuda0", "CPU", "cpu:0", "cuda:999", "auto\n"]
)
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="match pattern"):
        Settings(device=device)


def test_decisions_without_an_age_are_unlimited() -> None:
    names = [f"FLOWGAUGE_RETENTION_{decision}_DAYS" for decision in ("PASS", "REVIEW", "REJECT")]
    assert Settings().unlimited_retention == Settings(retention_bytes=1).unlimited_retention == names
    assert Settings(retention_review_days=1).unlimited_retention == [names[0], names[2]]
    assert (
        Settings(retention_pass_days=1, retention_review_days=1, retention_reject_days=1).unlimited_retention
        == []
    )


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"queue_bytes": 100 * MIB}, "no room for one image"),
        ({"queue_images": 31}, r"max_items 32 .* set FLOWGAUGE_MAX_ITEMS to 31 or less"),
        ({"tls_key": "file.pem"}, "TLS needs both"),
        ({"tls_certificate": "file.pem"}, "TLS needs both"),
        ({"store": "file:///mnt/plant"}, "needs FLOWGAUGE_DATABASE=postgresql"),
        ({"store": "file:///mnt/plant", "database": "sqlite:///x"}, "needs FLOWGAUGE_DATABASE=postgresql"),
        ({"store": "s4://plant", "database": POSTGRESQL}, "FLOWGAUGE_STORE: s4:// is no file system"),
    ],
)
def test_inconsistent_settings_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Settings(**given)


def test_message_shows_no_password_of_a_store() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(store="s3://key:hunter2@plant", database=POSTGRESQL)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_settings_that_just_fit_are_accepted() -> None:
    settings = Settings(queue_bytes=32 * MIB + 30_000_000, max_pixels=10_000_000, queue_images=32)
    assert settings.max_request_bytes == 32 * MIB
    assert Settings(queue_bytes=1024 * MIB).max_request_bytes == 512 * MIB
