"""Pictures of a camera of 12 bits, which leaves the upper 4 of 16 empty, and a model that knows it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from flows.fastflow import images, models_folder
from tests.flows.fastflow.manifests import edit

Images = dict[str, list[bytes]]
ReadPng = Callable[[bytes], NDArray[np.uint8]]

PREDICT = "/v1/models/tiny/predict"


@pytest.fixture
def client(store: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service whose model expects 12 bits."""
    edit(models_folder.resolve(store, "tiny"), lambda document: document.update(sample_bits=12))
    with TestClient(create_app(Settings(models=store, history=tmp_path / "history"))) as client:
        yield client


def deep(data: bytes) -> bytes:
    """The picture as 16 bits a sample, of which the lower 12 hold the value."""
    samples = images.decode(data).astype(np.uint16) << 4 | 9
    return cv2.imencode(".png", samples[..., ::-1])[1].tobytes()


def post(client: TestClient, data: bytes) -> httpx2.Response:
    answer = client.post(PREDICT, content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    return answer


def test_12_bit_image_is_inspected_and_drawn_as_the_same_of_8_bits(
    client: TestClient, read_png: ReadPng, tiny_images: Images
) -> None:
    flat = tiny_images["defect"][0]
    seen = []
    for data in (flat, deep(flat)):
        answer = post(client, data).json()
        assert answer["image"]["sample_bits"] == 12
        drawn = client.get(answer["links"]["overlay"])
        shown = client.get(f"/inspections/{answer['inspection_id']}/picture.jpg")
        assert drawn.status_code == shown.status_code == 200
        # TurboJPEG and all before it are deterministic: the same pixels, the same bytes.
        seen.append((answer["score"], answer["regions"], read_png(drawn.content).tolist(), shown.content))
    assert seen[0] == seen[1]


def test_model_for_16_bits_sees_it_nearly_black(
    service: TestClient, client: TestClient, tiny_images: Images
) -> None:
    data = deep(tiny_images["good"][0])
    scores = [post(asked, data).json()["score"] for asked in (client, service)]
    assert scores[0] != pytest.approx(scores[1], rel=0.01)
    assert int(images.decode(data).max()) < 16
