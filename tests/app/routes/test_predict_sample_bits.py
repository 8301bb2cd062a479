"""Pictures of a camera of 12 bits, which leaves the upper 4 of 16 empty, and a model that knows it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import update
from starlette.testclient import TestClient

from app.database.tables import inspections
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


def test_it_is_inspected_and_drawn_as_the_same_picture_of_8_bits(
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


def test_another_model_would_see_it_nearly_black(
    service: TestClient, client: TestClient, tiny_images: Images
) -> None:
    data = deep(tiny_images["good"][0])
    scores = [post(asked, data).json()["score"] for asked in (client, service)]
    assert scores[0] != pytest.approx(scores[1], rel=0.01)
    assert int(images.decode(data).max()) < 16


def test_what_was_kept_before_there_was_a_choice_is_drawn_as_it_was_seen(
    client: TestClient, read_png: ReadPng, tiny_images: Images
) -> None:
    answer = post(client, deep(tiny_images["good"][0])).json()
    drawn = [read_png(client.get(answer["links"]["overlay"]).content)]
    del answer["image"]["sample_bits"]
    app: Any = client.app
    with app.state.history.database.write() as connection:
        connection.execute(update(inspections).values(answer=json.dumps(answer)))
    drawn.append(read_png(client.get(answer["links"]["overlay"]).content))
    assert drawn[1].mean() < drawn[0].mean() / 1.5
