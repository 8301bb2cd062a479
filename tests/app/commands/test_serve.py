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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from app.access import Role
from app.commands.serve import serve
from app.settings import Settings, settings_from
from app.startup import warnings_of
from flows.fastflow import bundle, models_folder
from tests.support.certificates import make_certificate
from tests.support.waiting import eventually
from tests.system.processes import first_key, greeting

PROGRAM = "import typer, app.commands.serve as s; cli = typer.Typer(); cli.command()(s.serve); cli()"
# As on a processor that has no bfloat16.
ROOT = Path(__file__).parents[3]
NETWORK = {"HOST": "0.0.0.0", "ALLOW_UNAUTHENTICATED_NETWORK": "true"}  # noqa: S104


class TestRefusals:
    @staticmethod
    def refused(code: int, *options: str, **env: str) -> str:
        cli = typer.Typer()
        cli.command()(serve)
        result: Result = CliRunner().invoke(cli, options, env={f"FLOWGAUGE_{k}": v for k, v in env.items()})
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr

    def test_a_port_in_use(self, store: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            complaint = self.refused(1, "--port", port, MODELS=str(store))
        assert port in complaint
        assert "--port" in complaint

    def test_the_network_without_keys(self, store: Path, tmp_path: Path) -> None:
        history = str(tmp_path / "history")
        complaint = self.refused(2, "--host", "0.0.0.0", MODELS=str(store), HISTORY=history)  # noqa: S104
        assert "there are no keys" in complaint
        assert "flowgauge keys create --role admin" in complaint
        assert "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true" in complaint

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
    def test_a_database_that_is_away(self, store: Path, host: str) -> None:
        away = "postgresql://me:hunter2@127.0.0.1:1/quality"
        complaint = self.refused(1, "--host", host, MODELS=str(store), DATABASE=away)
        assert "FLOWGAUGE_DATABASE" in complaint
        assert "127.0.0.1" in complaint
        assert "hunter2" not in complaint

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        complaint = self.refused(1, "--models", str(tmp_path / "absent"))
        assert str(tmp_path / "absent") in complaint
        assert "--models" in complaint

    def test_an_option_out_of_range(self, store: Path) -> None:
        complaint = self.refused(2, "--device", "tpu", "--threads", "0", MODELS=str(store))
        assert "FLOWGAUGE_DEVICE" in complaint
        assert "FLOWGAUGE_THREADS" in complaint
        assert "'tpu'" in complaint

    def test_a_device_that_is_not_there(self, store: Path) -> None:
        assert "'cuda:99'" in self.refused(1, "--device", "cuda:99", MODELS=str(store))

    def test_files_of_tls_that_are_not_there(self, store: Path, tmp_path: Path) -> None:
        files = {"TLS_CERTIFICATE": str(tmp_path / "no.pem"), "TLS_KEY": str(tmp_path / "no.key")}
        complaint = self.refused(2, MODELS=str(store), **files)
        assert "passphrase: No such file or directory" in complaint
        assert str(tmp_path / "no.pem") in complaint

    def test_a_broker_that_is_none(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), MQTT_URL="mqtt://user:hunter2@broker")
        assert "FLOWGAUGE_MQTT_PASSWORD" in complaint
        assert "hunter2" not in complaint

    @pytest.mark.parametrize("url", ["postgresql://me:hun@ter:2@host/db", "postgresql://me:hun@ter2@host/db"])
    def test_a_password_of_the_database_that_is_not_encoded(self, store: Path, url: str) -> None:
        complaint = self.refused(2, MODELS=str(store), DATABASE=url)
        assert "percent-encoded" in complaint
        assert not [part for part in ("hun", "ter2", "2@", "ter:") if part in complaint]


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
    folder: Path
    said: str  # that is its greeting, where its log is for people
    verify: ssl.SSLContext | bool

    @property
    def history(self) -> Path:
        return self.folder / "history"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

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
    folder: Path,
    models: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
    *,
    verify: ssl.SSLContext | bool = True,
) -> Iterator[Started]:
    """Start the server on a free port.

    Args:
        folder: of its history and its log, empty but for what the test has put there.
        models: none unless some are given.
        settings: variables of the environment, without FLOWGAUGE_.
        verify: as for httpx.
    """
    if models is None:
        models = folder / "empty"
        models.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWGAUGE_")}
    env |= {"PYTHONUNBUFFERED": "1", "FLOWGAUGE_THREADS": "1", "FLOWGAUGE_ENGINE": "torch"}
    env |= {f"FLOWGAUGE_{name}": value for name, value in settings.items()}
    folders = ["--models", str(models), "--history", str(folder / "history")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *folders, "--port", "0", "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=env,
        ) as process,
    ):
        try:
            yield Started(process, folder, _first_words(process, folder / "log", settings), verify)
        finally:
            process.kill()


def _first_words(process: subprocess.Popen[str], log: Path, settings: Mapping[str, str]) -> str:
    if settings.get("LOG_FORMAT") == "json":  # then it says nothing elsewhere
        eventually(lambda: "\n" in log.read_text() or process.poll() is not None)
        return log.read_text().partition("\n")[0]
    return greeting(process)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server without models and without keys; for tests that leave it as it is."""
    with starting(tmp_path_factory.mktemp("bare")) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server with keys, TLS and proxies that it trusts; for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("guarded")
    made = make_certificate(folder, "IP:127.0.0.1")
    first_key(folder / "history", Role.ADMIN)
    settings = {
        **NETWORK,
        "TLS_CERTIFICATE": str(made.certificate),
        "TLS_KEY": str(made.key),
        "TRUSTED_PROXIES": "10.0.0.5, 127.0.0.0/8",
        "PRELOAD": "false",
    }
    context = ssl.create_default_context(cafile=made.certificate)
    with starting(folder, tiny_bundle_store, settings, verify=context) as started:
        yield started


@dataclass(frozen=True)
class Ended:
    """What a server has said that has ended."""

    said: str
    log: str


@pytest.fixture(scope="module")
def logged_json(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A server with much to warn of, whose log is for programs."""
    settings = {**NETWORK, "LOG_FORMAT": "json", "MAX_BATCH": "5", "PRELOAD": "false"}
    folder = tmp_path_factory.mktemp("logged_json")
    with starting(folder, tiny_bundle_store, settings) as started:
        assert started.get("/health/live").status_code == 200
        return Ended(started.stop(), started.log)


def test_serves_says_where_to_go_and_stops_cleanly(
    tmp_path: Path,
    store: Path,
    tiny_images: dict[str, list[bytes]],
    add_version: Callable[[Path, str, str], Path],
) -> None:
    (add_version(store, "bad", "v1") / bundle.FLOW).write_bytes(b"damaged")
    models_folder.activate(store, "bad", "v1")
    with starting(tmp_path, store) as started:
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
    assert log.count("flowgauge.residency: loaded tiny/") == 1


def test_work_outlives_sigterm(tmp_path: Path, store: Path, tiny_images: dict[str, list[bytes]]) -> None:
    data = tiny_images["good"][0]
    (tmp_path / "engines").mkdir()  # of torch, nothing more need be there
    with starting(tmp_path, store, {"ENGINE_CACHE": str(tmp_path / "engines")}) as started:

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
    assert started.log.count("flowgauge.residency: loaded tiny/") == 1


def test_speaks_tls(guarded: Started) -> None:
    assert guarded.url.startswith("https://")
    assert guarded.get("/health/live").status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http{guarded.url.removeprefix('https')}/health/live", timeout=120, trust_env=False)
    assert guarded.log.count("can be read on the way") == 0, guarded.log


def expect_to_come_from(started: Started, client: str, *, keyed: bool) -> None:
    """What a server takes requests to come from that say that they are passed on for 192.0.2.7."""
    headers = {"X-API-Key": f"fg_{'0' * 16}_{'x' * 43}", "X-Forwarded-For": "192.0.2.7"}
    assert started.get("/v1/session", headers=headers).status_code == 401
    # Where there are keys, one is asked for. Without any, nobody but this machine may come in.
    del headers["X-API-Key"]
    assert started.get("/v1/session", headers=headers).status_code == (401 if keyed else 403)

    def told() -> list[tuple[str, str, str]]:
        line = r"GET /v1/session ([0-9]+) [0-9.]+ ms ([a-z-]+) client=([^ ]+) id="
        return re.findall(line, started.log)

    eventually(lambda: len(told()) == 2)  # a line may come after the answer
    second = ("401", "unauthenticated") if keyed else ("403", "forbidden")
    assert told() == [("401", "unauthenticated", client), (*second, client)]
    assert f"refused a request from {client}:" in started.log


def test_a_proxy_that_is_named_says_where_requests_come_from(guarded: Started) -> None:
    expect_to_come_from(guarded, "192.0.2.7", keyed=True)


def test_warns_where_keys_can_be_read_on_the_way() -> None:
    network = settings_from(
        host="192.0.2.1", retention_reject_days=1, retention_review_days=1, retention_pass_days=1
    )
    [warning] = warnings_of(network)
    assert "can be read on the way" in warning
    assert warning.endswith("192.0.2.1.")
    files = {"tls_certificate": Path("server.pem"), "tls_key": Path("server.key")}
    assert warnings_of(network.model_copy(update=files)) == []
    assert warnings_of(network.model_copy(update={"host": "127.0.0.1"})) == []


def test_logs_for_programs_are_json_to_the_last_line(logged_json: Ended) -> None:
    assert logged_json.said == ""
    entries = [json.loads(line) for line in logged_json.log.splitlines()]
    assert re.search(r"FlowGauge serves tiny .* at http://\S+", entries[0]["message"])
    assert entries[-1]["message"] == "stopped"
    assert {"uvicorn.error", "flowgauge.requests"} <= {entry["logger"] for entry in entries}


def test_logs_what_is_set_and_what_it_will_cost(logged_json: Ended) -> None:
    entries = [json.loads(line) for line in logged_json.log.splitlines()]
    [line] = [entry["message"] for entry in entries if entry["message"].startswith("settings: ")]
    said = json.loads(line.partition("settings: ")[2])
    assert set(said) == set(Settings.model_fields)
    assert (said["max_batch"], said["retention_bytes"], said["threads"]) == (5, None, 1)
    warned = [x["message"] for x in entries if (x["level"], x["logger"]) == ("WARNING", "flowgauge.serve")]
    for warning in (
        "nothing limits the history",
        "can be read on the way",
    ):
        assert len([text for text in warned if warning in text]) == logged_json.log.count(warning) == 1


def test_warns_of_a_history_that_nothing_limits() -> None:
    [warning] = warnings_of(settings_from())
    assert "nothing limits the history" in warning
    some = {"retention_pass_days": 30, "retention_review_days": 90}
    [warning] = warnings_of(settings_from(**some))
    assert warning.endswith("Set FLOWGAUGE_RETENTION_BYTES, or FLOWGAUGE_RETENTION_REJECT_DAYS.")
    [warning] = warnings_of(settings_from(retention_bytes=1_000_000_000, **some))
    assert "nothing limits the rows of the history" in warning
    assert warning.endswith("Set FLOWGAUGE_RETENTION_REJECT_DAYS.")
    assert warnings_of(settings_from(retention_reject_days=3650, **some)) == []


def test_a_history_in_use_is_said_in_a_line(bare: Started, store: Path) -> None:
    options = ["--models", str(store), "--history", str(bare.history), "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "flowgauge", "serve", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "another server uses the history" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_fast_and_teaches() -> None:
    code = f"import sys\ntry:\n {PROGRAM}\nfinally:\n sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200", "TERMINAL_WIDTH": "200"},
    )
    assert done.returncode == 0
    for name in Settings.model_fields:
        option, variable = f"--{name.replace('_', '-')}", f"FLOWGAUGE_{name.upper()}"
        assert option in done.stdout or variable in done.stdout, name
    assert "FLOWGAUGE_MALLOC" in done.stdout
