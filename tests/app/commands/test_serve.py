"""What is refused at start, and the server as a process of its own, as a user starts it."""

import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.commands.serve import serve
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings, load_settings
from app.startup import setting_warnings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.support.bundles import copy_version
from tests.support.certificates import make_certificate
from tests.support.waiting import eventually
from tests.system.processes import first_key, greeting

PROGRAM = "import typer, app.commands.serve as s; cli = typer.Typer(); cli.command()(s.serve); cli()"
ROOT = Path(__file__).parents[3]
NETWORK = {"HOST": "0.0.0.0", "ALLOW_UNAUTHENTICATED_NETWORK": "true"}  # noqa: S104


def refused(code: int, *options: str, **env: str) -> str:
    """What the command says when it does not start."""
    cli = typer.Typer()
    cli.command()(serve)
    result = CliRunner().invoke(cli, options, env={f"FLOWGAUGE_{k}": v for k, v in env.items()})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("code", "env", "words"),
    [
        (1, {"MODELS": "absent"}, ["absent", "--models"]),
        (1, {"DEVICE": "cuda:99"}, ["'cuda:99'"]),
        (2, {"DEVICE": "tpu", "THREADS": "0"}, ["FLOWGAUGE_DEVICE", "FLOWGAUGE_THREADS", "'tpu'"]),
        (
            2,
            {"HOST": "0.0.0.0"},  # noqa: S104
            [
                "there are no keys",
                "flowgauge keys create --role admin",
                "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true",
            ],
        ),
        (1, {"DATABASE": "postgresql://me:secret@127.0.0.1:1/quality"}, ["FLOWGAUGE_DATABASE", "127.0.0.1"]),
        (2, {"DATABASE": "postgresql://me:se@cret:2@host/db"}, ["percent-encoded"]),
        (2, {"DATABASE": "postgresql://me:se@cret2@host/db"}, ["percent-encoded"]),
        (2, {"TLS_CERTIFICATE": "no.pem", "TLS_KEY": "no.key"}, ["No such file or directory", "no.pem"]),
        (2, {"MQTT_URL": "mqtt://user:secret@broker"}, ["FLOWGAUGE_MQTT_PASSWORD"]),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_line(
    store: Path, code: int, env: dict[str, str], words: list[str]
) -> None:
    complaint = refused(code, **{"MODELS": str(store), **env})
    assert [word for word in words if word not in complaint] == []
    assert "cret" not in complaint


def test_port_in_use_is_said(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        complaint = refused(1, "--port", port, MODELS=str(store))
    assert port in complaint
    assert "--port" in complaint


def test_history_in_use_is_said(store: Path) -> None:
    with TestClient(create_app(Settings(models=store))):
        assert "another server uses the history" in refused(1, "--port", "0", MODELS=str(store))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that runs in this process sends the log to a stream that is closed when it ends."""
    loggers = [logging.getLogger(name) for name in (None, "flowgauge", "uvicorn")]
    before = [(logger, logger.level, [*logger.handlers]) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@dataclass(frozen=True)
class Started:
    """A server that runs as a process of its own."""

    process: subprocess.Popen[str]
    log_file: Path
    said: str  # its first words
    verify: ssl.SSLContext | bool

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"(https?://\S+[0-9])(/docs)?\b", self.said)
        assert found is not None, self.said
        return found[1].replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, verify=self.verify, timeout=120, trust_env=False, **options)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        """What else it says before it has ended."""
        self.process.send_signal(how)
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log
        return said


@contextmanager
def starting(
    folder: Path, models: Path, settings: Mapping[str, str], verify: ssl.SSLContext | bool = True
) -> Iterator[Started]:
    """Start the server on a free port, with its history and log in a folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWGAUGE_")}
    env |= {"PYTHONUNBUFFERED": "1", "FLOWGAUGE_THREADS": "1", "FLOWGAUGE_ENGINE": "torch"}
    env |= {f"FLOWGAUGE_{name}": value for name, value in settings.items()}
    folders = ["--models", str(models), "--history", str(folder / "history")]
    command = [sys.executable, "-c", PROGRAM, *folders, "--port", "0", "--device", "cpu"]
    log = folder / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, cwd=ROOT, env=env
        ) as process,
    ):
        try:
            if settings.get("LOG_FORMAT") == "json":  # then it says nothing elsewhere
                eventually(lambda: "\n" in log.read_text() or process.poll() is not None)
                said = log.read_text().partition("\n")[0]
            else:
                said = greeting(process)
            yield Started(process, log, said, verify)
        finally:
            process.kill()


def test_serves_says_where_to_go_and_stops_cleanly(
    tmp_path: Path, store: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    (copy_version(store, "v1", "bad") / bundle.FLOW).write_bytes(b"damaged")
    models_folder.activate(store, "bad", "v1")
    with starting(tmp_path, store, {}) as started:
        assert f"curl -F file=@part.png {started.url}/v1/models/bad/predict" in started.said
        response = httpx.post(
            f"{started.url}/v1/models/tiny/predict",
            files={"file": tiny_images["good"][0]},
            headers={"X-Request-ID": "in-the-log"},
            timeout=120,
            trust_env=False,
        )
        assert response.status_code == 200
        started.stop(signal.SIGINT)  # Ctrl-C; other tests send SIGTERM
        log = started.log
    assert log.count("POST /v1/models/tiny/predict 200") == 1
    assert "id=in-the-log" in log
    assert "bad/v1 was refused" in log
    assert "sha256" in log
    assert log.count("flowgauge.loaded_models: loaded tiny/") == 1


def test_work_outlives_sigterm(tmp_path: Path, store: Path, tiny_images: dict[str, list[bytes]]) -> None:
    data = tiny_images["good"][0]
    with starting(tmp_path, store, {}) as started:

        def slowly() -> Iterator[bytes]:
            yield data[:100]
            eventually(lambda: "flowgauge_held_bytes 100.0" in started.get("/metrics").text)
            started.process.send_signal(signal.SIGTERM)
            time.sleep(1)
            yield data[100:]

        assert started.get("/health/live").status_code == 200
        response = httpx.post(
            f"{started.url}/v1/models/tiny/predict",
            content=slowly(),
            headers={"Content-Type": "image/png"},
            timeout=120,
            trust_env=False,
        )
        assert response.status_code == 200
        started.process.wait(timeout=60)
    assert started.process.returncode == 0, started.log
    assert started.log.count("flowgauge.loaded_models: loaded tiny/") == 1


def test_tls_and_client_addresses_from_a_trusted_proxy(tiny_bundle_store: Path, tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "IP:127.0.0.1")
    key = first_key(tmp_path / "history", Role.ADMIN)
    settings = {
        **NETWORK,
        "TLS_CERTIFICATE": str(made.certificate),
        "TLS_KEY": str(made.key),
        "TRUSTED_PROXIES": "10.0.0.5, 127.0.0.0/8",
        "PRELOAD": "false",
    }
    context = ssl.create_default_context(cafile=made.certificate)
    with starting(tmp_path, tiny_bundle_store, settings, context) as started:
        assert started.url.startswith("https://")
        assert started.get("/health/live").status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http{started.url.removeprefix('https')}/health/live", timeout=120, trust_env=False)
        assert "can be read on the network" not in started.log
        headers = {"X-Forwarded-For": "192.0.2.7"}
        assert started.get("/v1/session", headers=headers).status_code == 401
        assert started.get("/v1/session", headers={**headers, "X-API-Key": key}).status_code == 200
        # A line may come after the answer.
        eventually(lambda: started.log.count("client=192.0.2.7") == 2)


def test_warns_where_keys_can_be_read_on_the_way() -> None:
    network = load_settings(
        host="192.0.2.1", retention_reject_days=1, retention_review_days=1, retention_pass_days=1
    )
    [warning] = setting_warnings(network)
    assert "can be read on the network" in warning
    assert warning.endswith("192.0.2.1.")
    files = {"tls_certificate": Path("server.pem"), "tls_key": Path("server.key")}
    assert setting_warnings(network.model_copy(update=files)) == []
    assert setting_warnings(network.model_copy(update={"host": "127.0.0.1"})) == []


def test_json_log_has_the_settings_and_their_cost(tiny_bundle_store: Path, tmp_path: Path) -> None:
    settings = {**NETWORK, "LOG_FORMAT": "json", "MAX_BATCH": "5", "PRELOAD": "false"}
    with starting(tmp_path, tiny_bundle_store, settings) as started:
        assert started.get("/health/live").status_code == 200
        assert started.stop() == ""
        entries = [json.loads(line) for line in started.log.splitlines()]
    assert re.search(r"FlowGauge serves tiny .* at http://\S+", entries[0]["message"])
    assert entries[-1]["message"] == "stopped"
    assert {"uvicorn.error", "flowgauge.requests"} <= {entry["logger"] for entry in entries}
    [line] = [entry["message"] for entry in entries if entry["message"].startswith("settings: ")]
    said = json.loads(line.partition("settings: ")[2])
    assert set(said) == set(Settings.model_fields)
    assert (said["max_batch"], said["retention_bytes"], said["threads"]) == (5, None, 1)
    warned = [entry["message"] for entry in entries if entry["level"] == "WARNING"]
    for warning in ("nothing limits the history", "can be read on the network"):
        assert len([text for text in warned if warning in text]) == 1


def test_warns_of_a_history_that_nothing_limits() -> None:
    [warning] = setting_warnings(load_settings())
    assert "nothing limits the history" in warning
    some = {"retention_pass_days": 30, "retention_review_days": 90}
    [warning] = setting_warnings(load_settings(**some))
    assert warning.endswith("Set FLOWGAUGE_RETENTION_BYTES, or FLOWGAUGE_RETENTION_REJECT_DAYS.")
    [warning] = setting_warnings(load_settings(retention_bytes=1_000_000_000, **some))
    assert "nothing limits the database rows" in warning
    assert warning.endswith("Set FLOWGAUGE_RETENTION_REJECT_DAYS.")
    assert setting_warnings(load_settings(retention_reject_days=3650, **some)) == []


def test_help_names_every_setting() -> None:
    cli = typer.Typer()
    cli.command()(serve)
    said = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).stdout
    for name in Settings.model_fields:
        option, variable = f"--{name.replace('_', '-')}", f"FLOWGAUGE_{name.upper()}"
        assert option in said or variable in said, name
    assert "FLOWGAUGE_MALLOC" in said
