from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import MIB, Settings


def test_defaults_listen_on_this_machine_alone() -> None:
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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "line-pc.example", ""])  # noqa: S104
def test_refuses_the_network_and_says_what_to_do(host: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(host=host)
    message = str(caught.value)
    assert repr(host) in message
    assert "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true" in message


def test_the_network_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK", "true")
    assert Settings(host="0.0.0.0").host == "0.0.0.0"  # noqa: S104


def test_refuses_a_queue_without_room_for_one_image() -> None:
    with pytest.raises(ValidationError, match="no room for one image"):
        Settings(queue_bytes=100 * MIB)
    assert Settings(queue_bytes=100 * MIB, max_pixels=10_000_000).queue_bytes == 100 * MIB


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("DEVICE", "tpu"),
        ("THREADS", "0"),
        ("MAX_BYTES", "0"),
        ("MAX_PIXELS", "0"),
        ("QUEUE_IMAGES", "0"),
        ("DECODE_THREADS", "0"),
        ("UPLOAD_IDLE_SECONDS", "0"),
        ("UPLOAD_IDLE_SECONDS", "inf"),
        ("UPLOAD_IDLE_SECONDS", "nan"),
        ("EXTRA_VERSIONS", "0"),
    ],
)
def test_refuses_values_out_of_range(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FLOWGAUGE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(device: str) -> None:
    assert Settings(device=device).device == device


@pytest.mark.parametrize(
    "device", ["", "tpu", "cuda:", "cuda:x", "cuda0", "CPU", "cpu:0", "cuda:999", "auto\n"]
)
def test_refuses_what_is_no_device(device: str) -> None:
    with pytest.raises(ValidationError, match="must be auto, cpu, cuda or cuda:N"):
        Settings(device=device)


def test_the_documentation_has_every_setting_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| FLOWGAUGE_")]
    assert rows == [
        f"| FLOWGAUGE_{name.upper()} | {as_in_the_environment(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def as_in_the_environment(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_cannot_be_changed_while_running() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]
