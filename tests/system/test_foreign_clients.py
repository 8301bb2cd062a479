"""Published clients of other services against this one, each in its own environment."""

import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.schemas.access import Role
from tests.support.fleet import Fleet
from tests.support.server import Server
from tests.system.processes import first_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRITON = """
import sys
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

url, key, category, good, bad = sys.argv[1:]
client = triton.InferenceServerClient(url.removeprefix("http://"))
headers = {"X-API-Key": key}  # the client writes into what it is given
assert client.is_server_live()
assert client.is_server_ready()
assert client.get_server_metadata(headers=dict(headers))["name"] == "flowgauge"
assert client.is_model_ready(category, headers=dict(headers))
assert not client.is_model_ready("bottel", headers=dict(headers))
metadata = client.get_model_metadata(category, headers=dict(headers))
assert metadata["inputs"][0] == {"name": "image", "datatype": "BYTES", "shape": [-1]}, metadata
data = [open(path, "rb").read() for path in (good, bad)]
image = triton.InferInput("image", [2], "BYTES")
image.set_data_from_numpy(np.array(data, dtype=np.object_))
plain = client.infer(category, [image], headers=dict(headers), request_id="42")
assert plain.get_response()["id"] == "42"
assert set(plain.as_numpy("decision")) <= {b"PASS", b"REVIEW", b"REJECT"}
score, p_value = plain.as_numpy("score"), plain.as_numpy("p_value")
assert score.dtype == np.float64 and score.shape == p_value.shape == (2,)
assert score[1] > score[0]
for binary in (True, False):
    pixels = triton.InferInput("pixels", [1, 64, 64, 3], "UINT8")
    pixels.set_data_from_numpy(np.zeros((1, 64, 64, 3), np.uint8), binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("map", "decision")]
    answer = client.infer(
        category, [pixels], model_version=metadata["versions"][0], outputs=wanted, headers=dict(headers)
    )
    assert answer.as_numpy("map").shape == (1, 64, 64)
    assert answer.as_numpy("map").dtype == np.float32
    assert answer.as_numpy("score") is None
try:
    image = triton.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([b"no image"], dtype=np.object_))
    client.infer(category, [image], headers=dict(headers))
except InferenceServerException as error:
    print(error)
"""


def run(folder: Path, requirements: list[str], code: str, *arguments: str | Path) -> str:
    """Install packages into an environment in a folder, and run a program there."""
    if not (folder / "bin").exists():
        venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    steps = ([python, "-m", "pip", "install", *requirements], [python, "-c", code, *arguments])
    for step in steps:
        done = subprocess.run(list(map(str, step)), env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def asked(small_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str | Path, ...]]:
    """Address, key, category, and the paths of a good and of a defective image."""
    folder = tmp_path_factory.mktemp("foreign")
    server = Server(small_fleet.models, folder)
    key = first_key(server.history, Role.LINE)
    (folder / "good.jpg").write_bytes(small_fleet.images[0])
    (folder / "bad.jpg").write_bytes(small_fleet.images[3])
    with server:
        yield server.url, key, small_fleet.categories[0], folder / "good.jpg", folder / "bad.jpg"


def test_tritonclient(asked: tuple[str | Path, ...], tmp_path: Path) -> None:
    said = run(tmp_path, ["tritonclient[http]"], TRITON, *asked)
    assert "unsupported-media-type" in said
