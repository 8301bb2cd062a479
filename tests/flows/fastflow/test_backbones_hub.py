"""Fetching weights, with the real client of the hub against a stand-in that speaks the hub's protocol.

In processes of their own, since the client reads its settings once, when it is imported.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypedDict

import pytest
import timm
import torch
from safetensors.torch import save

from flows.fastflow import backbones

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "resnet18"
PATH = "/timm/resnet18.a1_in1k/resolve/main/model.safetensors"


@dataclass
class Hub:
    """What the stand-in has, and what it was asked."""

    files: dict[str, bytes]
    requests: list[str] = field(default_factory=list)
    url: str = ""


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """The part of the hub's protocol that a download needs."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            data = hub.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            if data is None:
                known = any(path.startswith(self.path.split("/resolve/")[0]) for path in hub.files)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data is not None:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    return Handler


@pytest.fixture(scope="module")
def state() -> backbones.State:
    """Weights that only the stand-in has."""
    torch.manual_seed(1)
    return dict(timm.create_model(MODEL, pretrained=False).state_dict())


@pytest.fixture(scope="module")
def hub(state: backbones.State) -> Iterator[Hub]:
    """A hub with the weights of resnet18, and under the name of another model weights that do not fit it."""
    other = {"conv1.weight": torch.zeros(3)}
    hub = Hub({PATH: save(state), "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors": save(other)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


class Result(TypedDict):
    """What one attempt came to."""

    ok: str
    error: str
    message: str
    seconds: float


ATTEMPTS = """
import json, sys, time
from pathlib import Path
from flows.fastflow import backbones

folder = Path(sys.argv[1])
results = []
for name in sys.argv[2:]:
    kind, _, model = name.partition(":")
    started, result = time.monotonic(), {"ok": "", "error": "", "message": ""}
    try:
        if kind == "pull":
            result["ok"] = str(backbones.pull(model, folder))
        else:
            result["ok"] = backbones.find_weights(model, folder=folder / "none").source
    except Exception as error:
        result |= {"error": type(error).__name__, "message": str(error)}
    results.append(result | {"seconds": time.monotonic() - started})
print(json.dumps(results))
"""


def attempt(url: str, home: Path, folder: Path, *attempts: str) -> tuple[list[Result], str]:
    """Pull or find in a new process; its results, and what it said on stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(folder), *attempts],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    results: list[Result] = json.loads(done.stdout.splitlines()[-1])
    return results, done.stderr


@dataclass(frozen=True)
class Online:
    """What happened while there was a hub."""

    results: list[Result]
    folder: Path
    home: Path


@pytest.fixture(scope="module")
def online(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Online:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("models") / "backbones"
    attempts = (f"pull:{MODEL}", f"pull:{MODEL}", f"find:{MODEL}", "pull:test_resnet", "pull:test_vit")
    results, _ = attempt(hub.url, home, folder, *attempts)
    return Online(results, folder, home)


def test_pull_fetches_the_weights_once(online: Online, hub: Hub, state: backbones.State) -> None:
    first, second, *_ = online.results
    path = online.folder / f"{MODEL}-{backbones.digest(state)[:12]}.safetensors"
    assert first["ok"] == second["ok"] == str(path)
    assert hub.requests.count(f"GET {PATH}") == 1
    assert list(online.folder.iterdir()) == [path]


def test_what_was_pulled_is_found_where_there_is_no_hub(online: Online, state: backbones.State) -> None:
    found = backbones.find_weights(MODEL, folder=online.folder, sha256=backbones.digest(state))
    assert found.source == str(online.folder / f"{MODEL}-{found.sha256[:12]}.safetensors")
    assert all(torch.equal(found.state[key], state[key]) for key in state)
    assert [s.found for s in backbones.weight_sources(MODEL, online.folder)] == [True]


def test_training_can_go_to_the_hub_itself(online: Online) -> None:
    assert online.results[2]["ok"] == "timm hub"


@pytest.mark.parametrize("index", [3, 4], ids=["weights of another model", "no such repository"])
def test_a_hub_without_the_weights_is_an_error(online: Online, index: int) -> None:
    result = online.results[index]
    assert result["error"] == "WeightsNotFoundError"
    assert "the timm hub gave no weights for 'test_" in result["message"]
    assert "Is this machine online" in result["message"]


def test_without_a_hub_the_answer_is_prompt_and_clear(online: Online, tmp_path: Path) -> None:
    """The hub's client alone would try for most of a minute, with a line of warning each time."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: nobody else takes the port
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        attempts = ("find:test_vit", "pull:test_vit", f"find:{MODEL}")
        (find, pull, kept), said = attempt(url, online.home, tmp_path, *attempts)
    assert find["error"] == pull["error"] == "WeightsNotFoundError"
    assert find["message"].startswith("no weights found for the backbone test_vit. Ways to get them:")
    assert "flowgauge backbones pull test_vit" in find["message"]
    assert "Is this machine online" in pull["message"]
    assert max(find["seconds"], pull["seconds"]) < 5
    assert "Retrying" not in said
    # What the client fetched before is still there for it.
    assert kept["ok"] == "timm hub"
    assert list(tmp_path.iterdir()) == []
