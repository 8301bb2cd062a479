"""Parts of mixed sizes, padded and tiled: equal scores, places in image pixels."""

import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import active_version, resolve
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import decode_image, read_image
from flows.fastflow.imaging.resizing import resize
from tests.conftest import picture, png
from tests.support.server import Server
from tests.system.processes import FlowGauge
from training.config.run_config import RunConfig
from training.data import mvtec
from training.evaluation.scoring import score_test_set
from training.run import train
from training.terminal.progress import Silent

GEOMETRIES = {"padded": {"fit": "pad", "margin": 4}, "tiled": {"fit": "tile", "overlap": 0.5, "scale": 1.0}}


def part(number: int, *, defect: bool = False) -> NDArray[np.uint8]:
    """Draw a wide or high image with one part and a piece of another; a defect is on the first."""
    other = picture(500 + number)
    wide = 64 + 12 * (number % 4)
    image = np.concatenate([picture(number, defect=defect), other[:, : wide - 64]], 1)
    return image if number % 2 else np.ascontiguousarray(image.transpose(1, 0, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    files = {
        "train/good": [part(i) for i in range(24)],
        "test/good": [part(100 + i) for i in range(4)],
        "test/scratch": [part(200 + i, defect=True) for i in range(4)],
    }
    for category in GEOMETRIES:
        for name, images in files.items():
            folder = root / category / name
            folder.mkdir(parents=True)
            for i, image in enumerate(images):
                (folder / f"{i}.png").write_bytes(png(image))
    return root


@pytest.mark.slow
def test_scores_agree_and_places_are_in_image_pixels(
    flowgauge: FlowGauge, data: Path, tiny_config: RunConfig
) -> None:
    models = flowgauge.cwd / "models"
    evaluated: dict[str, dict[Path, float]] = {}
    detectors: dict[str, Detector] = {}
    for category, geometry in GEOMETRIES.items():
        values = tiny_config.model_dump() | {"geometry": geometry}
        train(
            RunConfig.model_validate(values), data, category,
            models=models, runs=flowgauge.cwd / "runs", resume=False, progress=Silent(),
        )  # fmt: skip
        bundle = resolve(models, category)
        assert read_manifest(bundle).geometry.fit == geometry["fit"]
        assert read_manifest(bundle).data.n_fit == 17  # pictures, not tiles
        detectors[category] = Detector.load(bundle, device="cpu")
        samples = mvtec.test_samples(data, category)
        found = score_test_set(detectors[category], samples, lambda _: None)
        assert found.figures.image_auroc is not None
        assert found.figures.image_auroc > 0.8
        evaluated[category] = {row.path: row.score for row in found.rows}

    said = flowgauge.run("predict", data / "tiled/test", "--category", "tiled", "--json")
    locally = {
        data / "tiled/test" / line["file"]: line["score"] for line in map(json.loads, said.splitlines())
    }
    assert locally == pytest.approx(evaluated["tiled"], rel=1e-5)

    with Server(models, flowgauge.cwd) as server, server.client() as client:
        for category, scores in evaluated.items():
            assert posted(client, category, list(scores)) == pytest.approx(scores, rel=1e-5)
            expect_maps_of_the_picture(client, category, detectors[category], data)
            expect_region_in_the_pictures_pixels(client, category, data)
            assert active_version(models, category) is not None


def posted(client: httpx.Client, category: str, paths: list[Path]) -> dict[Path, float]:
    answers = {path: client.post(predict_url(category), content=path.read_bytes()) for path in paths}
    return {path: answer.raise_for_status().json()["score"] for path, answer in answers.items()}


def predict_url(category: str) -> str:
    return f"/v1/models/{category}/predict"


def expect_maps_of_the_picture(client: httpx.Client, category: str, detector: Detector, data: Path) -> None:
    path = data / category / "test/scratch/3.png"
    image = read_image(path)
    url = predict_url(category)
    answer = client.post(url, content=path.read_bytes(), headers={"Accept": "application/x-npy"})
    score_map = np.load(io.BytesIO(answer.content))
    [expected] = detector.predict([image])
    assert score_map.shape == detector.scorer.layout(image.shape[:2]).size
    np.testing.assert_allclose(score_map, expected.score_map, rtol=1e-4, atol=1e-5)

    found = client.post(url, content=path.read_bytes()).json()
    bright = (image.min(2) > 220).nonzero()
    x, y, width, height = found["regions"][0]["bbox"]
    assert x - 8 <= np.median(bright[1]) <= x + width + 8
    assert y - 8 <= np.median(bright[0]) <= y + height + 8
    kept = client.get(f"/v1/inspections/{found['inspection_id']}/map.npy")
    assert np.load(io.BytesIO(kept.content)).shape == score_map.shape
    overlay = client.get(f"/v1/inspections/{found['inspection_id']}/overlay.png")
    assert decode_image(overlay.content).shape == image.shape


def expect_region_in_the_pictures_pixels(client: httpx.Client, category: str, data: Path) -> None:
    path = data / category / "test/scratch/3.png"
    height, width, _ = read_image(path).shape
    half = [[0, 0], [width / 2, 0], [width / 2, height], [0, height]]
    area = {"image": {"width": width, "height": height}, "polygons": [half]}
    answer = client.put(f"/v1/models/{category}/region", json=area)
    assert answer.status_code == 200, answer.text
    assert answer.json()["share"] == pytest.approx(0.5, abs=0.02)
    for name in ("scratch/3.png", "good/2.png", "good/0.png"):
        content = (data / category / "test" / name).read_bytes()
        headers = {"Accept": "application/x-npy"}
        answer = client.post(f"/v1/models/{category}/predict", content=content, headers=headers)
        score_map = np.load(io.BytesIO(answer.content))
        h, w, _ = decode_image(content).shape
        inside = resize(np.arange(w, dtype=np.float32)[None].repeat(h, 0), score_map.shape) < w / 2 - 1
        assert score_map[inside].min() > 0
        assert not score_map[:, -(score_map.shape[1] // 2 - 1) :].any()
