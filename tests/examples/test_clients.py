"""The examples of clients, run as their users would, against a real service."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import aiomqtt
import pytest
from fastapi import FastAPI

from app.access import COMMAND_LINE, Role
from app.client import Client
from app.database.engine import Database
from app.keys import Keys
from app.main import create_app
from app.settings import Settings
from examples.children import reserved_port
from tests.app.conftest import serve_http as serve_http

ROOT = Path(__file__).parents[2]
Images = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def url(
    tiny_bundle_store: Path,
    serve_http: Callable[[FastAPI], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    history = tmp_path_factory.mktemp("examples") / "history"
    with serve_http(create_app(Settings(models=tiny_bundle_store, history=history))) as url:
        yield url


@pytest.fixture
def camera(tmp_path: Path, tiny_images: Images) -> Path:
    folder = tmp_path / "camera"
    folder.mkdir()
    (folder / "good.png").write_bytes(tiny_images["good"][0])
    (folder / "defect.png").write_bytes(tiny_images["defect"][0])
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def run(*command: str | Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLOWGAUGE_URL": url, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


class TestCurl:
    @pytest.fixture(autouse=True)
    def _curl(self) -> None:
        if shutil.which("curl") is None:
            pytest.skip("there is no curl; on Debian: apt-get install curl")

    def ask(self, picture: Path, url: str, category: str = "tiny") -> tuple[int, str, str]:
        done = run("sh", "examples/inspect.sh", picture, category, url=url)
        return done.returncode, done.stdout, done.stderr

    def test_the_decision_is_the_exit_code(self, camera: Path, url: str) -> None:
        with Client(url) as client:
            good = client.inspect("tiny", camera / "good.png", store=False).decision
        assert self.ask(camera / "good.png", url)[:2] == ({"PASS": 0, "REJECT": 20}[good], f"{good}\n")
        assert self.ask(camera / "defect.png", url)[:2] == (20, "REJECT\n")

    def test_what_was_not_inspected_is_none(self, camera: Path, url: str) -> None:
        for picture, category, said in (
            (camera / "bad.png", "tiny", "unsupported-media-type"),
            (camera / "good.png", "bottel", "unknown-model"),
        ):
            code, out, error = self.ask(picture, url, category)
            assert (code, out) == (22, "")
            assert said in error

    def test_an_address_may_end_in_a_slash(self, camera: Path, url: str) -> None:
        assert self.ask(camera / "defect.png", f"{url}/")[:2] == (20, "REJECT\n")

    @pytest.mark.parametrize("name", ["a,b;type=x.png", 'say "x".png', "back\\slash.png"])
    def test_any_name_is_a_picture(self, camera: Path, url: str, name: str) -> None:
        picture = (camera / "defect.png").rename(camera / name)
        assert self.ask(picture, url)[:2] == (20, "REJECT\n")

    def test_the_key_stands_in_no_command_line(
        self,
        camera: Path,
        tiny_bundle_store: Path,
        serve_http: Callable[[FastAPI], AbstractContextManager[str]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings = Settings(models=tiny_bundle_store, history=tmp_path / "history")
        database = Database(settings.database_url)
        database.upgrade()
        _, key = Keys(database).create(COMMAND_LINE, Role.LINE, "line 3")
        database.close()
        between = tmp_path / "bin" / "curl"
        between.parent.mkdir()
        between.write_text(
            f'#!/bin/sh\necho "$@" >>"{tmp_path}/called"\nexec "{shutil.which("curl")}" "$@"\n'
        )
        between.chmod(0o755)
        monkeypatch.setenv("PATH", f"{between.parent}:{os.environ['PATH']}")
        with serve_http(create_app(settings)) as url:
            assert "unauthenticated" in self.ask(camera / "defect.png", url)[2]
            monkeypatch.setenv("FLOWGAUGE_KEY", key)
            assert self.ask(camera / "defect.png", url)[:2] == (20, "REJECT\n")
        called = (tmp_path / "called").read_text()
        assert called.count("/v1/models/tiny/predict") == 2
        assert key not in called


def test_the_python_client(camera: Path, url: str) -> None:
    """As a script: its folder comes first among those that it imports from."""
    program = (sys.executable, "examples/inspect_part.py", "tiny")
    done = run(*program, "P-7", camera / "good.png", camera / "defect.png", url=url)
    assert done.returncode == 1, done.stderr
    assert "defect.png: REJECT, score " in done.stdout
    assert done.stdout.endswith("P-7: REJECT\n")
    assert (camera / "defect.png.overlay.png").read_bytes().startswith(b"\x89PNG")
    bad = run(*program, "P-8", camera / "bad.png", url=url)
    assert (bad.returncode, bad.stderr.startswith("unsupported-media-type: ")) == (2, True)
    away = run(*program[:2], "bottel", "P", camera / "good.png", url=url)
    assert (away.returncode, "bottel" in away.stderr) == (2, True)
    gone = run(*program, "P-9", camera / "gone.png", url=url)
    assert (gone.returncode, "gone.png" in gone.stderr) == (2, True)
    nowhere = run(*program, "P-9", camera / "good.png", url="127.0.0.1:8000")
    assert (nowhere.returncode, "Traceback" in nowhere.stderr) == (2, False)
    nothing = run(*program, url=url)
    assert (nothing.returncode, "P-000123 top.png" in nothing.stderr) == (2, True)


def test_the_python_client_needs_no_overlay_to_decide(camera: Path, url: str) -> None:
    (camera / "defect.png.overlay.png").mkdir()
    done = run(sys.executable, "examples/inspect_part.py", "tiny", "P-10", camera / "defect.png", url=url)
    assert (done.returncode, "no overlay: " in done.stdout) == (1, True)
    assert done.stdout.endswith("P-10: REJECT\n")


@contextmanager
def broker(port: int) -> Iterator[None]:
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        reason = "there is no mosquitto; on Debian: apt-get install mosquitto"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    process = subprocess.Popen([program, "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


async def exchange(port: int, payloads: list[bytes]) -> tuple[str, list[dict[str, object]]]:
    """Publish triggers when the gateway is there; gives what it says of itself, and its decisions."""
    async with aiomqtt.Client("127.0.0.1", port) as plc:
        await plc.subscribe("line-3/#", qos=1)
        decisions: list[dict[str, object]] = []
        state = ""
        async for message in plc.messages:
            assert isinstance(message.payload, bytes)
            if message.topic.matches("line-3/gateway"):
                state = message.payload.decode()
                if state == "online":
                    for payload in payloads:
                        await plc.publish("line-3/trigger", payload, qos=1)
            elif message.topic.matches("line-3/decision"):
                decisions.append(json.loads(message.payload))
                if len(decisions) == len(payloads):
                    break
        return state, decisions


@pytest.fixture
def port() -> Iterator[int]:
    holder, free = reserved_port()
    with holder:
        yield free


def test_a_plc_gets_a_decision_for_every_trigger(camera: Path, url: str, port: int) -> None:
    """Through a real broker, which goes away and comes back in between."""
    command = [sys.executable, "-m", "examples.plc_gateway", "--category", "tiny", "--pictures", str(camera)]
    command += ["--line", "line-3", "--port", str(port), "--url", url]
    (camera.parent / "secret.png").write_bytes((camera / "good.png").read_bytes())
    triggers = [
        {"part_id": "P-1", "file": "defect.png"},
        {"part_id": "P-1", "file": "defect.png"},  # delivered twice
        {"part_id": "P-2", "file": "bad.png"},
        {"part_id": "P-3", "file": "missing.png"},
        {"part_id": "P-4", "file": "../secret.png"},
    ]
    with broker(port):
        gateway = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        payloads = [*(json.dumps(one).encode() for one in triggers), b"nonsense"]
        state, decisions = asyncio.run(exchange(port, payloads))
    try:
        assert state == "online"
        assert [one["decision"] for one in decisions] == ["REJECT", "REJECT", *["UNKNOWN"] * 4]
        assert decisions[0] == decisions[1]
        assert [one["part_id"] for one in decisions] == ["P-1", "P-1", "P-2", "P-3", "P-4", None]
        assert "not in the folder" in str(decisions[4]["reason"])
        with Client(url) as client:
            client.inspection(str(decisions[0]["inspection_id"]))
            assert len(list(client.inspections(part_id="P-1"))) == 1
        with broker(port):
            again = exchange(port, [b'{"part_id": "P-5", "file": "defect.png"}'])
            _, decisions = asyncio.run(again)
        assert decisions[0]["decision"] == "REJECT"
    finally:
        gateway.send_signal(signal.SIGINT)
        said, _ = gateway.communicate(timeout=30)
    assert said.endswith("stopped\n")
    assert "the broker: " in said
