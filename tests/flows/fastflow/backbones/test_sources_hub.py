"""Fetching weights, with the real client of the hub against a stand-in that speaks the hub's protocol.

In processes of their own, since the client reads its settings once, when it is imported.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flows.fastflow.backbones.weights import State, weights_digest
from tests.support import stand_in_hub
from tests.support.stand_in_hub import Hub, path_of

MODEL = "resnet18"
PATH = path_of(MODEL)


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    return dict(timm.create_model(MODEL, pretrained=False).state_dict())


@pytest.fixture(scope="module")
def server(state: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with the weights of resnet18, under another name weights that do not fit, and closed doors."""
    with stand_in_hub.serve(tmp_path_factory.mktemp("hub")) as server:
        server.put(MODEL, state)
        server.put("test_resnet", {"conv1.weight": torch.zeros(3)})
        server.refused = {
            "/timm/test_vit2.r160_in1k": (401, "GatedRepo"),
            "/timm/test_vit3.r160_in1k": (403, ""),
            "/timm/test_convnext.r160_in1k": (401, "RepoNotFound"),
        }
        yield server


Result = dict[str, Any]


ATTEMPTS = """
import json, sys, time
from pathlib import Path
from flows.fastflow.backbones import sources as backbones

folder = Path(sys.argv[1])
results = []
for name in sys.argv[2:]:
    kind, _, model = name.partition(":")
    started, result = time.monotonic(), {"ok": "", "error": "", "message": ""}
    try:
        if kind == "pull":
            result["ok"] = str(backbones.pull_weights(model, folder))
        else:
            result["ok"] = backbones.find_weights(model, folder=folder / "none").source
    except Exception as error:
        result |= {"error": type(error).__name__, "message": str(error)}
    results.append(result | {"seconds": time.monotonic() - started})
print(json.dumps(results))
"""


def attempt(server: Hub, home: Path, folder: Path, *attempts: str) -> tuple[list[Result], str]:
    """Pull or find in a new process; its results, and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(folder), *attempts],
        env=server.environment(home),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    results: list[Result] = json.loads(done.stdout.splitlines()[-1])
    return results, done.stderr


@dataclass(frozen=True)
class Online:
    results: list[Result]
    folder: Path
    home: Path


@pytest.fixture(scope="module")
def online(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Online:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("models") / "backbones"
    attempts = (
        *(f"pull:{MODEL}", f"pull:{MODEL}", f"find:{MODEL}", "pull:test_resnet", "pull:test_vit"),
        *("pull:test_vit2", "pull:test_vit3", "pull:test_convnext", "find:test_vit2"),
    )
    results, _ = attempt(server, home, folder, *attempts)
    return Online(results, folder, home)


def test_pull_fetches_the_weights_once(online: Online, server: Hub, state: State) -> None:
    first, second, *_ = online.results
    path = online.folder / f"{MODEL}-{weights_digest(state)[:12]}.safetensors"
    assert first["ok"] == second["ok"] == str(path)
    assert server.requests.count(f"GET {PATH}") == 1
    assert list(online.folder.iterdir()) == [path]


@pytest.mark.parametrize("index", [3, 4], ids=["weights of another model", "no such repository"])
def test_hub_without_the_weights_is_an_error(online: Online, index: int) -> None:
    result = online.results[index]
    assert result["error"] == "WeightsNotFoundError"
    assert "the timm hub returned no weights for 'test_" in result["message"]
    assert "Is this machine online" in result["message"]


@pytest.mark.parametrize("index", [5, 6], ids=["gated", "forbidden"])
def test_weights_behind_a_licence_say_how_to_get_them(online: Online, index: int) -> None:
    result, name = online.results[index], f"test_vit{index - 3}"
    assert result["error"] == "WeightsNotFoundError"
    assert f"an accepted licence for the weights of '{name}'" in result["message"]
    assert f"https://huggingface.co/timm/{name}.r160_in1k" in result["message"]
    assert "HF_TOKEN" in result["message"]
    hidden = "no repository timm/test_convnext.r160_in1k for 'test_convnext', or hides it"
    assert hidden in online.results[7]["message"]


def test_without_a_hub_the_answer_is_prompt_and_clear(online: Online, tmp_path: Path) -> None:
    """The hub's client alone would try for most of a minute, with a line of warning each time."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: nobody else takes the port
        nobody = Hub(tmp_path, url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        attempts = ("find:test_vit", "pull:test_vit", f"find:{MODEL}")
        (find, pull, kept), said = attempt(nobody, online.home, tmp_path, *attempts)
    assert find["error"] == pull["error"] == "WeightsNotFoundError"
    assert find["message"].startswith("no weights found for the backbone test_vit. Ways to get them:")
    assert "flowgauge backbones pull test_vit" in find["message"]
    assert "Is this machine online" in pull["message"]
    assert max(find["seconds"], pull["seconds"]) < 5
    assert "Retrying" not in said
    # What the client fetched before is still there for it.
    assert kept["ok"] == "timm hub"
    assert list(tmp_path.iterdir()) == []
