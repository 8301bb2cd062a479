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
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from app.access import COMMAND_LINE, Role
from app.commands.serve import serve, warnings_of
from app.database.engine import Database
from app.keys import Keys
from app.loader import Loader
from app.settings import Settings, settings_from
from flows.fastflow import bundle, models_folder
from tests.certificates import make_certificate
from tests.postgres import Postgres
from tests.waiting import eventually

Process = subprocess.Popen[str]
Start = Callable[..., AbstractContextManager[tuple[Process, str]]]

PROGRAM = "import typer, app.commands.serve as s; cli = typer.Typer(); cli.command()(s.serve); cli()"
# As on a processor that has no bfloat16.
WITHOUT_BFLOAT16 = (
    "import platform, torch; platform.machine = lambda: 'x86_64'; "
    "torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: False; "
)
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
        return result.stderr

    def test_a_port_in_use(self, store: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            complaint = self.refused(1, "--port", port, MODELS=str(store))
        assert port in complaint
        assert "--port" in complaint

    def test_an_address_of_another_machine(self, store: Path) -> None:
        options = ("--host", "192.0.2.1", "--port", "0", "--allow-unauthenticated-network")
        assert "192.0.2.1" in self.refused(1, *options, MODELS=str(store))

    def test_a_name_that_is_no_address(self, store: Path) -> None:
        options = ("--host", "no.such.host.invalid", "--allow-unauthenticated-network")
        assert "no.such.host.invalid" in self.refused(1, *options, MODELS=str(store))

    def test_the_network_without_keys(self, store: Path, tmp_path: Path) -> None:
        history = str(tmp_path / "history")
        complaint = self.refused(2, "--host", "0.0.0.0", MODELS=str(store), HISTORY=history)  # noqa: S104
        assert "there are no keys" in complaint
        assert "flowgauge keys create --role admin" in complaint
        assert "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true" in complaint

    def test_a_proxy_without_keys(self, store: Path, tmp_path: Path) -> None:
        history = str(tmp_path / "history")
        complaint = self.refused(2, MODELS=str(store), HISTORY=history, TRUSTED_PROXIES="127.0.0.1")
        assert "FLOWGAUGE_TRUSTED_PROXIES names 127.0.0.1" in complaint
        assert "flowgauge keys create --role admin" in complaint

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
    def test_a_database_that_is_away(self, store: Path, host: str) -> None:
        away = "postgresql://me:hunter2@127.0.0.1:1/quality"
        complaint = self.refused(1, "--host", host, MODELS=str(store), DATABASE=away)
        assert "FLOWGAUGE_DATABASE" in complaint
        assert "127.0.0.1" in complaint
        assert "hunter2" not in complaint

    def test_a_database_that_is_away_while_a_model_is_loading(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = "postgresql://me:hunter2@127.0.0.1:1/quality"
        begun: list[tuple[Loader, Path]] = []
        begin = Loader.begin

        def recording(self: Loader, folder: Path) -> None:
            begun.append((self, folder))
            begin(self, folder)

        monkeypatch.setattr(Loader, "begin", recording)
        complaint = self.refused(1, MODELS=str(store), DATABASE=away, ENGINE_CACHE=str(tmp_path))
        assert complaint.startswith("flowgauge serve: the database of the history does not answer")
        [(loader, folder)] = begun
        assert folder.parent == store / "tiny"
        assert not any(thread.is_alive() for thread in loader._turns._threads._threads)

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        complaint = self.refused(1, "--models", str(tmp_path / "absent"))
        assert str(tmp_path / "absent") in complaint
        assert "--models" in complaint

    def test_an_option_out_of_range(self, store: Path) -> None:
        complaint = self.refused(2, "--device", "tpu", "--threads", "0", MODELS=str(store))
        assert "FLOWGAUGE_DEVICE" in complaint
        assert "FLOWGAUGE_THREADS" in complaint
        assert "'tpu'" in complaint

    def test_a_variable_out_of_range(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), PORT="99999")
        assert "FLOWGAUGE_PORT" in complaint
        assert "99999" in complaint

    def test_a_device_that_is_not_there(self, store: Path) -> None:
        assert "'cuda:99'" in self.refused(1, "--device", "cuda:99", MODELS=str(store))

    def test_an_engine_that_does_not_compute_so(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), ENGINE="openvino", PRECISION="bfloat16")
        assert "openvino-bfloat16" in complaint

    def test_one_file_of_tls_without_the_other(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), TLS_KEY="server.key")
        assert "both FLOWGAUGE_TLS_CERTIFICATE and FLOWGAUGE_TLS_KEY" in complaint

    def test_files_of_tls_that_are_not_there(self, store: Path, tmp_path: Path) -> None:
        files = {"TLS_CERTIFICATE": str(tmp_path / "no.pem"), "TLS_KEY": str(tmp_path / "no.key")}
        complaint = self.refused(1, MODELS=str(store), **files)
        assert "cannot be read: No such file or directory" in complaint
        assert str(tmp_path / "no.pem") in complaint

    def test_files_of_tls_that_are_none(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "picture.pem").write_bytes(b"no certificate")
        file = str(tmp_path / "picture.pem")
        complaint = self.refused(2, MODELS=str(store), TLS_CERTIFICATE=file, TLS_KEY=file)
        assert "must be PEM files" in complaint

    def test_the_key_of_another_certificate(self, store: Path, tmp_path: Path) -> None:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
        one, other = (make_certificate(tmp_path / name, "DNS:localhost") for name in ("one", "other"))
        files = {"TLS_CERTIFICATE": str(one.certificate), "TLS_KEY": str(other.key)}
        assert "its own private key" in self.refused(2, MODELS=str(store), **files)

    def test_a_key_with_a_passphrase(self, store: Path, tmp_path: Path) -> None:
        made = make_certificate(tmp_path, "DNS:localhost")
        locked = tmp_path / "locked.key"
        command = ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"]
        subprocess.run([*command, "-in", made.key, "-out", locked], check=True, capture_output=True)
        files = {"TLS_CERTIFICATE": str(made.certificate), "TLS_KEY": str(locked)}
        assert "protected by a passphrase" in self.refused(2, MODELS=str(store), **files)

    def test_a_broker_that_is_none(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), MQTT_URL="mqtt://user:hunter2@broker")
        assert "FLOWGAUGE_MQTT_PASSWORD" in complaint
        assert "hunter2" not in complaint

    def test_a_file_of_webhooks_that_is_none(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "webhooks.yaml").write_text("webhooks: [{name: mes, secret: hunter2}]")
        complaint = self.refused(2, MODELS=str(store), WEBHOOKS=str(tmp_path / "webhooks.yaml"))
        assert complaint.count("FLOWGAUGE_WEBHOOKS") == 2  # no hosts, no url
        assert "hunter2" not in complaint

    def test_authorities_of_sinks_that_cannot_be_read_are_all_said(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "plant.pem").write_text("no certificate")
        secret = f"secret: whsec_{'c2VjcmV0' * 6}"
        (tmp_path / "webhooks.yaml").write_text(
            "hosts: [mes.example]\n"
            "webhooks:\n"
            f"- {{name: one, url: 'https://mes.example/1', {secret}, ca: {tmp_path}/plant.pem}}\n"
            f"- {{name: other, url: 'https://mes.example/2', {secret}, ca: {tmp_path}/none.pem}}\n"
        )
        files = {"MQTT_CA": str(tmp_path / "plant.pem"), "WEBHOOKS": str(tmp_path / "webhooks.yaml")}
        complaint = self.refused(2, MODELS=str(store), MQTT_URL="mqtts://broker", MQTT_TOPIC="#", **files)
        for said in ("FLOWGAUGE_MQTT_CA", "FLOWGAUGE_MQTT_TOPIC", "webhook one", "webhook other"):
            assert len([line for line in complaint.splitlines() if said in line]) == 1

    def test_a_database_of_another_kind(self, store: Path) -> None:
        assert "got 'mysql'" in self.refused(2, MODELS=str(store), DATABASE="mysql://host/name")

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


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start the server on a free port; gives the process and its greeting.

    Without models unless some are given: it starts in half the time.
    """
    empty = tmp_path / "empty"
    empty.mkdir()

    @contextmanager
    def begin(models: Path = empty, before: str = "", **settings: str) -> Iterator[tuple[Process, str]]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWGAUGE_")}
        env |= {"PYTHONUNBUFFERED": "1", "FLOWGAUGE_THREADS": "1", "FLOWGAUGE_ENGINE": "torch"}
        env |= {f"FLOWGAUGE_{name}": value for name, value in settings.items()}
        folders = ["--models", str(models), "--history", str(tmp_path / "history")]
        with subprocess.Popen(
            [sys.executable, "-c", before + PROGRAM, *folders, "--port", "0", "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                greeting = ""
                for line in process.stderr if settings.get("LOG_FORMAT") == "json" else process.stdout:
                    greeting += line
                    if line.startswith(("Ctrl-C", "{")):
                        break
                yield process, greeting
            finally:
                process.kill()

    return begin


def url_in(greeting: str) -> str:
    found = re.search(r"(https?://\S+)/docs", greeting)
    assert found is not None, greeting
    return found[1].replace("0.0.0.0", "127.0.0.1")  # noqa: S104


def test_serves_says_where_to_go_and_stops_cleanly(
    start: Start,
    store: Path,
    tiny_images: dict[str, list[bytes]],
    add_version: Callable[[Path, str, str], Path],
) -> None:
    (add_version(store, "bad", "v1") / bundle.FLOW).write_bytes(b"damaged")
    models_folder.activate(store, "bad", "v1")
    with start(store) as (process, greeting):
        url = url_in(greeting)
        assert f"curl -F file=@part.png {url}/v1/models/bad/predict" in greeting
        response = httpx.post(
            f"{url}/v1/models/tiny/predict",
            files={"file": tiny_images["good"][0]},
            headers={"X-Request-ID": "in-the-log"},
            timeout=120,
            trust_env=False,
        )
        assert response.status_code == 200
        process.send_signal(signal.SIGINT)  # Ctrl-C; other tests send SIGTERM
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert log.count("POST /v1/models/tiny/predict 200") == 1
    assert "id=in-the-log" in log
    assert "bad/v1 was refused" in log
    assert "sha256" in log


def test_the_first_model_is_loading_while_the_service_is_imported(
    start: Start, store: Path, tmp_path: Path
) -> None:
    """Only where there is a folder of what is compiled, and whatever is wrong with the first category."""
    begins = (
        "import sys; from app.loader import Loader; begin = Loader.begin; "
        "Loader.begin = lambda self, folder: ("
        "print('begins', folder.parent.name, 'fastapi' in sys.modules, file=sys.stderr), "
        "begin(self, folder)); "
    )
    engines = tmp_path / "engines"
    for state in ("nothing compiled", "compiled", "no active version"):
        if state == "compiled":
            engines.mkdir()
        if state == "no active version":
            (store / "tiny" / models_folder.ACTIVE).unlink()
        with start(store, begins, ENGINE_CACHE=str(engines)) as (process, greeting):
            url = url_in(greeting)

            def ready(url: str = url) -> bool:
                time.sleep(0.3)  # each is a line of the log, which nobody reads before the end
                return httpx.get(f"{url}/health/ready", trust_env=False, timeout=120).status_code == 200

            eventually(ready)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert log.count("begins tiny False") == log.count("begins") == (state == "compiled")
        assert log.count("flowgauge.residency: loaded tiny/") == (state != "no active version")


def test_where_there_are_keys_the_greeting_shows_one(start: Start, store: Path, tmp_path: Path) -> None:
    database = Database(Settings(history=tmp_path / "history").database_url)
    database.prepare()
    Keys(database).create(COMMAND_LINE, Role.LINE, "first")
    database.close()
    with start(store) as (_, greeting):
        assert f'curl -H "X-API-Key: $KEY" -F file=@part.png {url_in(greeting)}/v1/models/tiny' in greeting


def test_finishes_accepted_work_after_sigterm(
    start: Start, store: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    data = tiny_images["good"][0]
    with start(store) as (process, greeting):
        url = url_in(greeting)

        def slowly() -> Iterator[bytes]:
            yield data[:100]
            metrics = f"{url}/metrics"
            eventually(
                lambda: "flowgauge_held_bytes 100.0" in httpx.get(metrics, timeout=120, trust_env=False).text
            )
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            yield data[100:]

        assert httpx.get(f"{url}/health/live", timeout=120, trust_env=False).status_code == 200
        response = httpx.post(
            f"{url}/v1/models/tiny/predict",
            content=slowly(),
            headers={"Content-Type": "image/png"},
            timeout=120,
            trust_env=False,
        )
        assert response.status_code == 200
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def test_speaks_tls(start: Start, tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "IP:127.0.0.1")
    files = {"TLS_CERTIFICATE": str(made.certificate), "TLS_KEY": str(made.key)}
    with start(**NETWORK, **files) as (process, greeting):
        url = url_in(greeting)
        assert url.startswith("https://")
        context = ssl.create_default_context(cafile=made.certificate)
        response = httpx.get(f"{url}/health/live", verify=context, timeout=120, trust_env=False)
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http{url.removeprefix('https')}/health/live", timeout=120, trust_env=False)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(made.certificate)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health/live", verify=old, timeout=120, trust_env=False)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert log.count("can be read on the way") == 0, log


@pytest.mark.parametrize(
    ("proxies", "believed"),
    [
        ("", "127.0.0.1"),
        pytest.param("10.0.0.5", "127.0.0.1", marks=pytest.mark.slow),
        ("10.0.0.5, 127.0.0.0/8", "192.0.2.7"),
    ],
)
def test_only_proxies_that_are_named_say_where_requests_come_from(
    start: Start, tmp_path: Path, proxies: str, believed: str
) -> None:
    if proxies:  # which it takes with a key alone
        database = Database(Settings(history=tmp_path / "history").database_url)
        database.prepare()
        Keys(database).create(COMMAND_LINE, Role.ADMIN, "first")
        database.close()
    with start(TRUSTED_PROXIES=proxies) as (process, greeting):
        headers = {"X-API-Key": f"fg_{'0' * 16}_{'x' * 43}", "X-Forwarded-For": "192.0.2.7"}
        url = f"{url_in(greeting)}/v1/session"
        assert httpx.get(url, headers=headers, timeout=120, trust_env=False).status_code == 401
        # Where there are keys, one is asked for. Without any, nobody but this machine may come in.
        del headers["X-API-Key"]
        refused = httpx.get(url, headers=headers, timeout=120, trust_env=False)
        assert refused.status_code == (401 if proxies else 403)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert f"refused a request from {believed}:" in log
    told = re.findall(r"GET /v1/session ([0-9]+) [0-9.]+ ms ([a-z-]+) client=([^ ]+) id=", log)
    second = ("401", "unauthenticated") if proxies else ("403", "forbidden")
    assert told == [("401", "unauthenticated", believed), (*second, believed)]


def test_an_address_may_hold_half_of_the_connections(start: Start) -> None:
    with start(MAX_CONNECTIONS="4") as (process, greeting), ExitStack() as stack:
        url = url_in(greeting)
        port = int(url.rpartition(":")[2])
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
            httpx.get(f"{url}/health/live", timeout=120, trust_env=False)
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=transport, timeout=120) as other:
            assert other.get(f"{url}/health/live").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert log.count("connections turned away") == 1


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


def test_begins_without_models_and_says_how_to_get_one(start: Start) -> None:
    with start() as (_, greeting):
        assert "no model yet" in greeting
        assert "flowgauge train" in greeting
        url = url_in(greeting)
        assert httpx.get(f"{url}/health/live", timeout=120, trust_env=False).status_code == 200
        assert httpx.get(f"{url}/v1/models", timeout=120, trust_env=False).json() == {"models": []}


def test_logs_for_programs_are_json_to_the_last_line(start: Start, store: Path) -> None:
    with start(store, LOG_FORMAT="json") as (process, greeting):
        url = re.search(r"http://\S+", json.loads(greeting)["message"])
        assert url is not None
        assert httpx.get(f"{url[0]}/health/live", timeout=120, trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        said, log = process.communicate(timeout=60)
    assert said == ""
    assert "FlowGauge serves tiny" in json.loads(greeting)["message"]
    entries = [json.loads(line) for line in log.splitlines()]
    assert entries[-1]["message"] == "stopped"
    assert {"uvicorn.error", "flowgauge.requests"} <= {entry["logger"] for entry in entries}


def logged(start: Start, before: str = "", **settings: str) -> str:
    """What a server logs from its start to its end."""
    with start(before=before, **settings) as (process, greeting):
        url = url_in(greeting)
        assert httpx.get(f"{url}/health/live", timeout=120, trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        return process.communicate(timeout=60)[1]


def test_logs_what_is_set_and_where_that_is_slow(start: Start) -> None:
    log = logged(start, WITHOUT_BFLOAT16, **NETWORK, MAX_BATCH="5", PRECISION="bfloat16")
    [line] = [x for x in log.splitlines() if "serve: settings: " in x]
    said = json.loads(line.partition("settings: ")[2])
    assert set(said) == set(Settings.model_fields)
    assert (said["max_batch"], said["retention_bytes"], said["threads"]) == (5, None, 1)
    assert log.count("FLOWGAUGE_PRECISION: bfloat16 takes several times as long") == 1
    assert log.count("WARNING flowgauge.serve: nothing limits the history") == 1
    assert log.count("can be read on the way") == 1


def test_logs_no_password(start: Start, postgres: Postgres) -> None:
    with postgres.database() as url:
        user, _, rest = url.partition("@")
        secret = f"{user}:hush1@{rest}" + ("&" if "?" in rest else "?") + "password=hush2"
        log = logged(start, DATABASE=secret)
    assert rest.partition("?")[0] in log
    assert "hush" not in log


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


def test_a_history_in_use_is_said_in_a_line(start: Start, tmp_path: Path, store: Path) -> None:
    with start():
        options = ["--models", str(store), "--history", str(tmp_path / "history"), "--port", "0"]
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


def test_a_database_that_does_not_answer_is_said_in_a_line(tmp_path: Path, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = ["--models", str(store), "--history", str(tmp_path / "history"), "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "flowgauge", "serve", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"FLOWGAUGE_DATABASE": f"postgresql://me:secret@127.0.0.1:{port}/flowgauge"},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert "database" in done.stderr


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
