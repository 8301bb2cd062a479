"""Amazon Lookout for Vision's address, asked in the bytes that boto3 1.40.60 sends."""

import base64
import io
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.lookout import confidence
from app.main import create_app
from app.schemas.predict import Inspection
from app.settings import Settings
from tests.app.conftest import Keyed

Images = dict[str, list[bytes]]
ReadPng = Callable[[bytes], NDArray[np.uint8]]
Serve = Callable[[FastAPI], AbstractContextManager[str]]

DETECT = "/2020-11-20/projects/tiny/models/1/detect"
PNG = {"Content-Type": "image/png"}
# As it was sent, but for the host, the path, the length and the key.
WIRE = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: identity\r\nContent-Type: image/png\r\n"
    "User-Agent: Boto3/1.40.60 md/Botocore#1.40.60 ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.11.7 "
    "md/pyimpl#CPython m/e,b,D,N,Z cfg/retry-mode#legacy Botocore/1.40.60\r\nX-Amz-Date: 20261125T213700Z\r\n"
    "Authorization: AWS4-HMAC-SHA256 Credential=x/20261125/eu-west-1/lookoutvision/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date, "
    "Signature=2b30a0c5f0d258a2b1571e2cb8e903b5a7076924e5d37865611a443f7036b046\r\n"
    "amz-sdk-invocation-id: {call}\r\namz-sdk-request: attempt={attempt}\r\n"
    "Content-Length: {length}\r\nX-API-Key: {key}\r\n\r\n"
)


@pytest.fixture(scope="module")
def url(
    tiny_bundle_store: Path, serve_http: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    history = tmp_path_factory.mktemp("lookout") / "history"
    with serve_http(create_app(Settings(models=tiny_bundle_store, history=history))) as url:
        yield url


def send(url: str, data: bytes, call: str, attempt: int = 1, path: str = DETECT) -> tuple[int, str, Any]:
    """Send what boto3 would; gives status, head and body."""
    address = httpx.URL(url)
    head = WIRE.format(
        path=path, host=f"127.0.0.1:{address.port}", call=call, attempt=attempt, length=len(data), key=""
    ).replace("X-API-Key: \r\n", "Connection: close\r\n")
    with socket.create_connection(("127.0.0.1", address.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    answer, _, body = received.partition(b"\r\n\r\n")
    return int(answer.split(b" ")[1]), answer.decode().lower(), json.loads(body)


def test_the_bytes_that_boto3_sends(url: str, tiny_images: Images, read_png: ReadPng) -> None:
    status, head, body = send(url, tiny_images["defect"][0], "778bec4a-12f9-4e44-932a-c185dd34e4ff")
    assert status == 200
    assert "content-type: application/json" in head
    assert "x-amzn-requestid: " in head
    assert set(body) == {"DetectAnomalyResult"}
    result = body["DetectAnomalyResult"]
    assert set(result) == {"Source", "IsAnomalous", "Confidence", "Anomalies", "AnomalyMask"}
    assert result["Source"] == {"Type": "direct"}
    assert result["IsAnomalous"] is True
    assert 0.5 <= result["Confidence"] <= 1
    background, anomaly = result["Anomalies"]
    assert (background["Name"], background["PixelAnomaly"]["Color"]) == ("background", "#FFFFFF")
    assert (anomaly["Name"], anomaly["PixelAnomaly"]["Color"]) == ("anomaly", "#23A436")
    areas = [one["PixelAnomaly"]["TotalPercentageArea"] for one in result["Anomalies"]]
    assert sum(areas) == pytest.approx(1)
    mask = read_png(base64.b64decode(result["AnomalyMask"]))
    assert mask.shape == (64, 64, 3)
    colours = {tuple(int(v) for v in pixel) for pixel in mask.reshape(-1, 3)}
    assert colours == {(255, 255, 255), (0x23, 0xA4, 0x36)}
    assert (mask == (0x23, 0xA4, 0x36)).all(2).mean() == pytest.approx(areas[1])


def test_an_attempt_that_is_repeated_is_not_inspected_twice(url: str, tiny_images: Images) -> None:
    call = "11111111-12f9-4e44-932a-c185dd34e4ff"
    first = send(url, tiny_images["defect"][1], call)
    second = send(url, tiny_images["defect"][1], call, attempt=2)
    assert first[2] == second[2]
    assert "idempotency-replayed" not in first[1]
    assert "idempotency-replayed: true" in second[1]
    status, head, body = send(url, tiny_images["good"][1], call)
    assert (status, body["ResourceType"]) == (409, "MODEL")
    assert "x-amzn-errortype: conflictexception" in head


def test_it_says_what_predict_says(service: TestClient, tiny_images: Images) -> None:
    for data in (*tiny_images["good"], *tiny_images["defect"]):
        ours = Inspection.model_validate(
            service.post("/v1/models/tiny/predict?store=false", content=data, headers=PNG).json()
        )
        response = service.post(f"{DETECT}?store=false", content=data, headers=PNG)
        theirs = response.json()["DetectAnomalyResult"]
        assert theirs["IsAnomalous"] == (ours.decision != "PASS")
        assert theirs["Confidence"] == pytest.approx(confidence(ours))
        assert response.headers["X-Decision"] == ours.decision
        assert len(theirs["Anomalies"]) == (1 if ours.anomalous_area_fraction == 0 else 2)


def test_confidence_is_one_half_at_the_threshold_and_grows_away_from_it(
    service: TestClient, tiny_images: Images
) -> None:
    answer = service.post("/v1/models/tiny/predict?store=false", content=tiny_images["good"][0], headers=PNG)
    known = Inspection.model_validate(answer.json())
    target = known.threshold.target_fpr

    def of(decision: str, p_value: float) -> float:
        return confidence(known.model_copy(update={"decision": decision, "p_value": p_value}))

    passed = [of("PASS", p) for p in (target / 2, target, 2 * target, 0.5, 1.0)]
    assert passed == sorted(passed)
    assert passed[:2] == [0.5, 0.5]
    assert passed[-1] == 1 - target / 2
    assert of("REJECT", 0.004) == of("REVIEW", 0.004) == 0.996


@pytest.mark.parametrize("version", ["1", "27", "latest", "active"])
def test_the_names_of_the_active_version(service: TestClient, tiny_images: Images, version: str) -> None:
    path = f"/2020-11-20/projects/tiny/models/{version}/detect?store=false"
    assert service.post(path, content=tiny_images["good"][0], headers=PNG).status_code == 200


def test_a_version_of_ours(
    store: Path, tiny_images: Images, add_version: Callable[[Path, str, str], Path]
) -> None:
    add_version(store, "tiny", "other")
    with TestClient(create_app(Settings(models=store, preload=False))) as client:
        path = "/2020-11-20/projects/tiny/models/other/detect"
        answer = client.post(path, content=tiny_images["good"][0], headers=PNG)
        assert answer.status_code == 200
        kept = client.get(f"/v1/inspections/{answer.headers['X-Inspection-ID']}").json()
    assert kept["model"]["version"] == "other"


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "name"),
    [
        (DETECT, b"no image", PNG, 400, "ValidationException"),
        (DETECT, b"\x89PNG\r\n\x1a\n" + 50 * b"\0", PNG, 400, "ValidationException"),
        (DETECT, b"x", {"Content-Type": "text/plain"}, 400, "ValidationException"),
        (f"{DETECT}?timeout_ms=soon", b"x", PNG, 400, "ValidationException"),
        (f"{DETECT}?inline=overlay", b"x", PNG, 400, "ValidationException"),
        (DETECT.replace("tiny", "bottel"), b"x", PNG, 404, "ResourceNotFoundException"),
        (DETECT.replace("/1/", "/v0/"), b"x", PNG, 404, "ResourceNotFoundException"),
        ("/2020-11-20/projects", b"x", PNG, 404, "ResourceNotFoundException"),
    ],
)
def test_errors_are_lookouts(
    service: TestClient, path: str, content: bytes, headers: dict[str, str], status: int, name: str
) -> None:
    response = service.post(path, content=content, headers=headers)
    assert (response.status_code, response.headers["x-amzn-ErrorType"]) == (status, name)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["Message"]
    assert ("inline" in path) == ("'inline': there is none of this name" in response.json()["Message"])
    assert ("ResourceId" in response.json()) == (status == 404)


def test_a_deadline_and_a_full_queue(tiny_bundle_store: Path, tiny_images: Images, tmp_path: Path) -> None:
    settings = Settings(models=tiny_bundle_store, history=tmp_path / "h", journal_bytes=1)
    with TestClient(create_app(settings)) as client:
        full = client.post(DETECT, content=tiny_images["good"][0], headers=PNG)
        assert (full.status_code, full.headers["x-amzn-ErrorType"]) == (503, "InternalServerException")
        assert full.headers["Retry-After"]
        late = client.post(f"{DETECT}?timeout_ms=1&store=false", content=tiny_images["good"][0], headers=PNG)
        assert (late.status_code, late.headers["x-amzn-ErrorType"]) == (504, "InternalServerException")


def test_keys(keyed: Keyed) -> None:
    for headers, status in (({}, 403), (keyed.show("viewer"), 403), (keyed.show("line"), 404)):
        response = keyed.client.post(DETECT, content=b"x", headers={**PNG, **headers})
        assert response.status_code == status
        name = {403: "AccessDeniedException", 404: "ResourceNotFoundException"}[status]
        assert response.headers["x-amzn-ErrorType"] == name


def test_too_large(tiny_bundle_store: Path, tmp_path: Path) -> None:
    settings = Settings(models=tiny_bundle_store, history=tmp_path / "h", max_bytes=100)
    with TestClient(create_app(settings)) as client:
        response = client.post(DETECT, content=io.BytesIO(101 * b"x"), headers=PNG)
    assert (response.status_code, response.headers["x-amzn-ErrorType"]) == (400, "ValidationException")


def test_the_mask_of_an_inspection_that_was_made_before_retention_took_its_map(
    store: Path, tmp_path: Path, tiny_images: Images
) -> None:
    headers = {**PNG, "Idempotency-Key": "k"}
    with TestClient(create_app(Settings(models=store, history=tmp_path / "h"))) as client:
        identifier = client.post(DETECT, content=tiny_images["good"][0], headers=headers).headers[
            "X-Inspection-ID"
        ]
        client.get(f"/v1/inspections/{identifier}")  # filed
        shutil.rmtree(tmp_path / "h" / "maps")
        again = client.post(DETECT, content=tiny_images["good"][0], headers=headers)
    assert (again.status_code, again.headers["x-amzn-ErrorType"]) == (404, "ResourceNotFoundException")
