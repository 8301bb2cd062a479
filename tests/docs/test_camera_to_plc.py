"""Every command of the tutorial for a line, run against a real server and a real broker."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.app.conftest import serve_http as serve_http  # the fixtures
from tests.docs.console import ROOT, Step, assert_output, console_steps, run_command
from tests.examples.conftest import curl as curl
from tests.examples.conftest import url as url
from tests.support.mosquitto import Mosquitto, Subscriber, subscribed
from tests.support.server import Server
from tests.support.waiting import eventually

PAGE = ROOT / "docs" / "tutorials" / "camera-to-plc.md"
STEPS = console_steps(PAGE)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "NO_PROXY": "*"}


@pytest.fixture
def folder(tmp_path: Path, tiny_images: dict[str, list[bytes]]) -> Path:
    """The folder that the first tutorial leaves, as far as this one needs it."""
    (tmp_path / "try").mkdir()
    (tmp_path / "try" / "broken.jpg").write_bytes(tiny_images["defect"][0])
    (tmp_path / "try" / "good.jpg").write_bytes(tiny_images["good"][1])
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(step: Step, folder: Path, url: str) -> None:
    """Run a step with the model of the tests, and compare its output where it has one."""
    printed = run_command(tiny(step.command, url), folder, FLOWGAUGE_URL=url)
    if step.output:
        assert_output(step, printed.replace(f"{folder}/", ""))


def tiny(command: str, url: str) -> str:
    command = command.replace("bottle", "tiny").replace("http://127.0.0.1:8000", url)
    return command.replace("flowgauge watch", f"flowgauge watch --url {url}")


def position(text: str) -> int:
    """Where the first step is whose command contains a text."""
    return next(i for i, step in enumerate(STEPS) if text in step.command)


@pytest.mark.usefixtures("curl")
def test_watched_folder_and_script(folder: Path, url: str) -> None:
    for step in STEPS[: position("P-000124")]:
        run(step, folder, url)
    run(STEPS[position("inspect.sh")], folder, url)


def test_watcher_waits_for_the_server(folder: Path, tiny_bundle_store: Path) -> None:
    copy, watch = STEPS[position("P-000124") :][:2]
    for name in ("camera", "inspected"):
        (folder / name).mkdir()
    server = Server(tiny_bundle_store, folder / "server")
    run(copy, folder, server.url)
    words = [sys.executable, "-m", *shlex.split(tiny(watch.command, server.url))]
    with subprocess.Popen(
        words, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as watcher:
        assert watcher.stdout is not None
        printed = watcher.stdout.readline()
        with server:
            eventually(lambda: (folder / "inspected" / "P-000124_top.jpg.json").is_file())
            watcher.send_signal(signal.SIGTERM)
            printed += watcher.stdout.read()
    assert_output(watch, printed.replace(str(server.port), "8000"))


def test_gateway_answers_the_plc(folder: Path, url: str, broker: Mosquitto) -> None:
    """The clients of mosquitto are not installed with the broker, so paho takes their place."""
    (folder / "camera").mkdir()
    start = STEPS[position("plc_gateway")]
    listener, copy, first, second = STEPS[position("mosquitto_sub") :][:4]
    [unknown] = re.findall(r"(?m)^line-3/decision .*UNKNOWN.*$", PAGE.read_text())
    words = [sys.executable, *shlex.split(tiny(start.command, url))[1:]]
    words += ["--port", str(broker.port), "--url", url]
    run(copy, folder, url)
    with (
        subscribed(broker, "line-3/#") as plc,
        subprocess.Popen(words, cwd=folder, env=ENVIRONMENT) as gateway,
    ):
        eventually(lambda: len(plc.messages) == 1)
        publish(broker, first)
        eventually(lambda: len(plc.messages) == 3)
        assert_output(listener, "\n".join(heard(plc)))
        publish(broker, second)
        eventually(lambda: len(plc.messages) == 5)
        assert_output(Step(second.command, unknown), heard(plc)[-1])
        gateway.send_signal(signal.SIGTERM)


def publish(broker: Mosquitto, step: Step) -> None:
    words = shlex.split(step.command)
    assert words[:5] == ["mosquitto_pub", "-q", "1", "-t", "line-3/trigger"]
    client = paho.Client(CallbackAPIVersion.VERSION2, "plc")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(words[4], words[6], qos=1).wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def heard(plc: Subscriber) -> list[str]:
    """Messages as `mosquitto_sub -v` prints them."""
    return [f"{topic} {payload.decode()}" for topic, payload, _ in plc.messages]


def test_exit_codes_and_decisions_of_the_page() -> None:
    script = (ROOT / "examples" / "inspect.sh").read_text()
    for decision, code in (("PASS", 0), ("REVIEW", 10), ("REJECT", 20)):
        assert f"{decision}) exit {code} ;;" in script
        assert f"{decision} is {code}" in PAGE.read_text()
    triggers = [shlex.split(step.command)[-1] for step in STEPS if step.command.startswith("mosquitto_pub")]
    assert [set(json.loads(one)) for one in triggers] == [{"part_id", "file"}] * 2
