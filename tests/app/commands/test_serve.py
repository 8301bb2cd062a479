"""What is refused at start, and the server as a process of its own, as a user starts it."""

import json
import logging
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import typer
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from app.commands.serve import serve
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings, load_settings
from app.startup import setting_warnings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.support.bundles import copy_version
from tests.support.certificates import make_certificate
from tests.support.server import Server
from tests.support.waiting import eventually
from tests.system.processes import first_key

ANY = "0.0.0.0"  # noqa: S104
COMPUTING: dict[str, str | int] = {"threads": 1, "engine": "torch"}
NETWORK = COMPUTING | {"host": ANY, "allow_unauthenticated_network": "true", "preload": "false"}


def run(code: int, *options: str, **env: str) -> Result:
    """Run the command, which does not start."""
    cli = typer.Typer()
    cli.command()(serve)
    result = CliRunner().invoke(cli, options, env={f"FLOWGAUGE_{k}": v for k, v in env.items()})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


def refused(code: int, *options: str, **env: str) -> str:
    """What the command says when it does not start."""
    return run(code, *options, **env).stderr


@pytest.mark.parametrize(
    ("code", "env", "words"),
    [
        (1, {"MODELS": "absent"}, ["absent", "--models"]),
        (1, {"DEVICE": "cuda:99"}, ["'cuda:99'"]),
        (2, {"DEVICE": "tpu", "THREADS": "0"}, ["FLOWGAUGE_DEVICE", "FLOWGAUGE_THREADS", "'tpu'"]),
        (
            2,
            {"HOST": ANY},
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
        result = run(1, "--port", "0", MODELS=str(store))
    assert re.search(r"in a browser   http://127\.0\.0\.1:[1-9]\d*/", result.stdout)  # a port that is free
    assert "another server uses the history" in result.stderr


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


def test_serves_says_where_to_go_and_stops_cleanly(
    tmp_path: Path, store: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    (copy_version(store, "v1", "bad") / bundle.FLOW).write_bytes(b"damaged")
    models_folder.activate(store, "bad", "v1")
    server = Server(store, tmp_path, preload="false", **COMPUTING)
    with server, server.client() as client:
        assert client.post("/v1/models/bad/predict", content=tiny_images["good"][0]).status_code == 422
        response = client.post(
            "/v1/models/tiny/predict",
            files={"file": tiny_images["good"][0]},
            headers={"X-Request-ID": "in-the-log"},
        )
        assert response.status_code == 200
        server.stop(signal.SIGINT)  # Ctrl-C; other tests send SIGTERM
    log = server.log.read_text()
    assert f"curl -F file=@part.png {server.url}/v1/models/bad/predict" in log
    assert log.count("POST /v1/models/tiny/predict 200") == 1
    assert "id=in-the-log" in log
    assert "bad/v1 was refused" in log
    assert "sha256" in log
    assert log.count("flowgauge.loaded_models: loaded tiny/") == 1


def test_work_outlives_sigterm(tmp_path: Path, store: Path, tiny_images: dict[str, list[bytes]]) -> None:
    data = tiny_images["good"][0]
    server = Server(store, tmp_path, **COMPUTING)
    with server, server.client() as client, ThreadPoolExecutor(1) as pool:

        def slowly() -> Iterator[bytes]:
            yield data[:100]
            eventually(lambda: server.metrics()["flowgauge_held_bytes"] == 100)
            stopping.append(pool.submit(server.stop))
            time.sleep(1)
            yield data[100:]

        stopping: list[Future[None]] = []
        headers = {"Content-Type": "image/png"}
        response = client.post("/v1/models/tiny/predict", content=slowly(), headers=headers)
        assert response.status_code == 200
        stopping[0].result()
    assert server.log.read_text().count("flowgauge.loaded_models: loaded tiny/") == 1


def test_tls_and_client_addresses_from_a_trusted_proxy(tiny_bundle_store: Path, tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "IP:127.0.0.1")
    key = first_key(tmp_path / "history", Role.ADMIN)
    settings = {
        "tls_certificate": str(made.certificate),
        "tls_key": str(made.key),
        "trusted_proxies": "10.0.0.5, 127.0.0.0/8",
    }
    server = Server(tiny_bundle_store, tmp_path, **NETWORK, **settings)
    with server, server.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http{server.url.removeprefix('https')}/health/live", timeout=60, trust_env=False)
        headers = {"X-Forwarded-For": "192.0.2.7"}
        assert client.get("/v1/session", headers=headers).status_code == 401
        assert client.get("/v1/session", headers={**headers, "X-API-Key": key}).status_code == 200
        # A line may come after the answer.
        eventually(lambda: server.log.read_text().count("client=192.0.2.7") == 2)
    log = server.log.read_text()
    assert f"in a browser   {server.url.replace('127.0.0.1', ANY)}/" in log
    assert "can be read on the network" not in log


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
    server = Server(tiny_bundle_store, tmp_path, **NETWORK, log_format="json", max_batch=5)
    with server:
        pass
    entries = [json.loads(line) for line in server.log.read_text().splitlines()]  # nothing else was printed
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
