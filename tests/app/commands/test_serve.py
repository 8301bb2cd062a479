"""What is refused at start, and the server as a process of its own, as a user starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from app.commands.serve import serve
from app.settings import Settings
from flows.fastflow import bundle

Process = subprocess.Popen[str]
Start = Callable[[], AbstractContextManager[tuple[Process, str]]]

PROGRAM = "import typer, app.commands.serve as s; cli = typer.Typer(); cli.command()(s.serve); cli()"
ROOT = Path(__file__).parents[3]


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

    def test_the_network_without_permission(self, store: Path) -> None:
        complaint = self.refused(2, "--host", "0.0.0.0", MODELS=str(store))  # noqa: S104
        assert "does not authenticate" in complaint
        assert "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true" in complaint

    def test_a_folder_without_models(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "absent"):
            complaint = self.refused(2, "--models", str(folder))
            assert str(folder) in complaint
            assert "flowgauge train" in complaint

    def test_an_option_out_of_range(self, store: Path) -> None:
        complaint = self.refused(2, "--device", "tpu", "--threads", "0", MODELS=str(store))
        assert "--device or FLOWGAUGE_DEVICE" in complaint
        assert "--threads or FLOWGAUGE_THREADS" in complaint
        assert "'tpu'" in complaint

    def test_a_variable_out_of_range(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), PORT="99999")
        assert "FLOWGAUGE_PORT" in complaint
        assert "99999" in complaint

    def test_what_is_a_variable_alone_is_not_called_an_option(self, store: Path) -> None:
        complaint = self.refused(2, MODELS=str(store), MAX_BYTES="0")
        assert "FLOWGAUGE_MAX_BYTES: " in complaint
        assert "--max-bytes" not in complaint

    def test_a_device_that_is_not_there(self, store: Path) -> None:
        assert "'cuda:99'" in self.refused(2, "--device", "cuda:99", MODELS=str(store))


@pytest.fixture
def start(store: Path) -> Start:
    """Start the server on a free port; gives the process and its greeting."""

    @contextmanager
    def begin() -> Iterator[tuple[Process, str]]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWGAUGE_")}
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--models", str(store), "--port", "0", "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env | {"PYTHONUNBUFFERED": "1", "FLOWGAUGE_THREADS": "1"},
        ) as process:
            try:
                assert process.stdout is not None
                greeting = ""
                for line in process.stdout:
                    greeting += line
                    if line.startswith("Ctrl-C"):
                        break
                yield process, greeting
            finally:
                process.kill()

    return begin


def url_in(greeting: str) -> str:
    found = re.search(r"(http://\S+)/docs", greeting)
    assert found is not None, greeting
    return found[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_says_where_to_go_and_stops_cleanly(
    start: Start,
    store: Path,
    tiny_images: dict[str, list[bytes]],
    number: int,
    add_version: Callable[[Path, str, str], Path],
) -> None:
    (add_version(store, "bad", "v1") / bundle.FLOW).write_bytes(b"damaged")
    bundle.activate(store, "bad", "v1")
    with start() as (process, greeting):
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
        process.send_signal(number)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert log.count("POST /v1/models/tiny/predict 200") == 1
    assert "id=in-the-log" in log
    assert "bad/v1 was refused" in log
    assert "sha256" in log


def test_finishes_accepted_work_after_sigterm(start: Start, tiny_images: dict[str, list[bytes]]) -> None:
    data = tiny_images["good"][0]
    with start() as (process, greeting):
        url = url_in(greeting)

        def slowly() -> Iterator[bytes]:
            yield data[:100]
            time.sleep(1)  # the request has surely been taken up
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
