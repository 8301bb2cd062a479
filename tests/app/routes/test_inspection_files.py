import base64
import io
import logging
from collections.abc import Callable

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from flows.fastflow.imaging import decoder
from tests.app.conftest import history_of, remove_files
from tests.app.support.guard import assert_problem
from tests.conftest import picture, png

Images = dict[str, list[bytes]]
ReadPng = Callable[[bytes], NDArray[np.uint8]]

PREDICT = "/v1/models/tiny/predict"
NAMES = ("overlay.png", "heatmap.png", "source", "map.npy")
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "BMP": "image/bmp", "TIFF": "image/tiff"}
FORMATS |= {"WEBP": "image/webp"}


def predict(client: TestClient, data: bytes, query: str = "", **headers: str) -> httpx2.Response:
    response = client.post(PREDICT + query, content=data, headers={"Content-Type": "image/png", **headers})
    assert response.status_code == 200, response.text
    return response


def inspected(client: TestClient, data: bytes, **headers: str) -> str:
    """The path of an inspection made just now."""
    path: str = predict(client, data, **headers).json()["links"]["inspection"]
    return path


def remove_pictures(client: TestClient) -> None:
    """Let retention remove every picture that it may."""
    remove_files(history_of(client))


def expect_alike(drawn: NDArray[np.uint8], given: NDArray[np.uint8]) -> None:
    """The map is kept as float16: a few pixels may have the next one of the 256 colours."""
    difference = np.abs(drawn.astype(int) - given)
    assert difference.max() <= 6
    assert (difference > 0).mean() < 0.1


class TestContent:
    @pytest.mark.parametrize("name", ["overlay", "heatmap"])
    @pytest.mark.parametrize("kind", ["good", "defect"])
    def test_pictures_are_those_of_the_answer(
        self, service: TestClient, tiny_images: Images, read_png: ReadPng, kind: str, name: str
    ) -> None:
        large = np.repeat(np.repeat(decoder.decode_image(tiny_images[kind][0]), 3, 0), 2, 1)[:100]
        answer = predict(service, png(large), f"?inline={name}").json()
        response = service.get(answer["links"][name])
        assert response.headers["content-type"] == "image/png"
        given = read_png(base64.b64decode(answer["inline"][name], validate=True))
        assert given.shape == (100, 128, 3)
        expect_alike(read_png(response.content), given)

    def test_the_map_is_that_of_an_answer_in_npy_in_half_precision(
        self, service: TestClient, tiny_images: Images
    ) -> None:
        given = predict(service, tiny_images["defect"][0], Accept="application/x-npy")
        response = service.get(f"/v1/inspections/{given.headers['X-Inspection-ID']}/map.npy")
        assert response.headers["content-type"] == "application/x-npy"
        assert int(response.headers["content-length"]) == len(response.content)
        expected = np.load(io.BytesIO(given.content), allow_pickle=False)
        score_map = np.load(io.BytesIO(response.content), allow_pickle=False)
        assert score_map.dtype == np.float16
        np.testing.assert_array_equal(score_map, expected.astype(np.float16))

    @pytest.mark.parametrize("kind", FORMATS)
    def test_the_source_is_the_upload_byte_for_byte(
        self, service: TestClient, read_png: ReadPng, kind: str
    ) -> None:
        file = io.BytesIO()
        Image.fromarray(picture(77)[:, :40]).save(file, kind)
        data = file.getvalue() + b"what follows the picture"
        path = inspected(service, data, **{"Content-Type": "image/x-whatever"})
        response = service.get(f"{path}/source")
        assert response.content == data
        assert response.headers["content-type"] == FORMATS[kind]
        assert response.headers["content-length"] == str(len(data))
        assert response.headers["x-content-type-options"] == "nosniff"
        assert read_png(service.get(f"{path}/overlay.png").content).shape == (64, 40, 3)

    def test_pictures_stand_as_the_upload_was_turned(self, service: TestClient, read_png: ReadPng) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        file = io.BytesIO()
        Image.fromarray(picture(78)[:, :40]).save(file, "JPEG", exif=exif)
        path = inspected(service, file.getvalue())
        for name in ("overlay.png", "heatmap.png"):
            assert read_png(service.get(f"{path}/{name}").content).shape == (40, 64, 3)
        assert service.get(f"{path}/source").content == file.getvalue()


class TestCaching:
    @pytest.mark.parametrize("name", NAMES)
    def test_who_has_it_already_is_told_so(self, service: TestClient, tiny_images: Images, name: str) -> None:
        path = f"{inspected(service, tiny_images['good'][0])}/{name}"
        first = service.get(path)
        assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert first.headers["vary"] == "Cookie"
        again = service.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = service.get(path, headers={"If-None-Match": '"x"'})
        assert (other.status_code, other.content) == (200, first.content)


class TestGone:
    def test_what_retention_has_removed(self, client: TestClient, tiny_images: Images) -> None:
        path = inspected(client, tiny_images["good"][0])
        tags = [client.get(f"{path}/{name}").headers["etag"] for name in NAMES]
        remove_pictures(client)
        for name, tag in zip(NAMES, tags, strict=True):
            for headers in ({}, {"If-None-Match": tag}):
                response = client.get(f"{path}/{name}", headers=headers)
                assert "Retention" in assert_problem(response, 404, "unknown-inspection")
        kept = client.get(path)
        assert (kept.status_code, kept.json()["has_pictures"]) == (200, False)

    @pytest.mark.one_server("damages files of the history folder")
    @pytest.mark.parametrize(("lost", "whole"), [("source", "map.npy"), ("map.npy", "source")])
    def test_a_file_that_the_disk_has_lost(
        self, client: TestClient, tiny_images: Images, lost: str, whole: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody has removed it, so it is no 404, and nothing is shown that was not kept."""
        answer = predict(client, tiny_images["good"][0]).json()
        path = answer["links"]["inspection"]
        tag = client.get(f"{path}/{lost}").headers["etag"]
        pictures = history_of(client).files
        file = pictures.image_path(answer["image"]["sha256"])
        if lost == "map.npy":
            file = pictures.map_path(answer["inspection_id"])
        file.unlink()
        for name in ("overlay.png", "heatmap.png", lost):
            caplog.clear()
            response = client.get(f"{path}/{name}")
            assert (response.status_code, response.json()["type"]) == (410, "files-lost")
            assert "Retry-After" not in response.headers
            assert file.name not in response.json()["detail"]
            lines = [line for line in caplog.records if line.name == "flowgauge.history"]
            assert answer["inspection_id"] in lines[-1].message
            assert lines[-1].levelno == logging.ERROR
        assert client.get(f"{path}/{whole}").status_code == 200
        # Who has the true bytes may keep them; and a picture is mended when it comes again.
        assert client.get(f"{path}/{lost}", headers={"If-None-Match": tag}).status_code == 304
        if lost == "source":
            assert client.get(inspected(client, tiny_images["good"][0])).status_code == 200
            assert client.get(f"{path}/source").content == tiny_images["good"][0]

    @pytest.mark.parametrize("identifier", ["x", "0" * 36, "..%2f..%2fhistory.sqlite"])
    @pytest.mark.parametrize("name", NAMES)
    def test_what_never_was(self, service: TestClient, identifier: str, name: str) -> None:
        response = service.get(f"/v1/inspections/{identifier}/{name}")
        assert response.status_code == 404
        assert response.json()["type"] in ("unknown-inspection", "not-found")
