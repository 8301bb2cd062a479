"""The Open Inference Protocol in bytes; tests/system/test_foreign_clients.py has a real client of it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.errors.problems import Problem
from app.main import create_app
from app.open_inference import response_body
from app.open_inference.response_body import LENGTH
from app.scheduling.admission import Reservation
from app.settings import Settings
from flows.fastflow.bundle import models_folder
from flows.fastflow.imaging import decoder
from tests.app.conftest import Keyed
from tests.app.support.services import predict

Images = dict[str, list[bytes]]
ReadPng = Callable[[bytes], NDArray[np.uint8]]
INFER = "/v2/models/tiny/infer"


def body(tensor: dict[str, Any], binary: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    tensor = {**tensor, "parameters": {"binary_data_size": len(binary)}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + binary, {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}


def files(*data: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    elements = b"".join(len(file).to_bytes(4, "little") + file for file in data)
    return body({"name": "image", "datatype": "BYTES", "shape": [len(data)]}, elements, **more)


def read(response: Any) -> dict[str, Any]:
    """The outputs as arrays or lists of bytes."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(LENGTH, len(response.content)))
    told, rest = json.loads(response.content[:length]), response.content[length:]
    found: dict[str, Any] = {}
    for tensor in told["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[tensor["name"]] = tensor["data"]
            continue
        data, rest = rest[:size], rest[size:]
        if tensor["datatype"] == "BYTES":
            elements = []
            while data:
                count = int.from_bytes(data[:4], "little")
                elements.append(data[4 : 4 + count])
                data = data[4 + count :]
            found[tensor["name"]] = elements
        else:
            kind = {"FP32": "<f4", "FP64": "<f8"}[tensor["datatype"]]
            found[tensor["name"]] = np.frombuffer(data, kind).reshape(tensor["shape"])
    assert rest == b""
    return found


def test_health_metadata_and_versions(
    service: TestClient, tiny_bundle_store: Path, tiny_images: Images
) -> None:
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    version = models_folder.active_version(tiny_bundle_store, "tiny")
    for path in ("/v2/models/tiny", f"/v2/models/tiny/versions/{version}"):
        assert service.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}
        metadata = service.get(path).json()
        assert (metadata["name"], metadata["versions"]) == ("tiny", [version])
        assert [one["name"] for one in metadata["inputs"]] == ["image", "pixels"]
        assert {one["name"] for one in metadata["outputs"]} >= {"decision", "score", "p_value", "map"}
        content, headers = files(tiny_images["good"][0])
        answer = service.post(f"{path}/infer?store=false", content=content, headers=headers)
        assert answer.json()["model_version"] == version
    assert service.get("/v2/health/ready").json() == {"ready": True}


def test_files_in_json_are_inspected_as_by_predict(service: TestClient, tiny_images: Images) -> None:
    data = [tiny_images["good"][0], tiny_images["defect"][0]]
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [2],
        "data": [base64.b64encode(one).decode() for one in data],
    }
    response = service.post(INFER, json={"id": "42", "inputs": [tensor], "parameters": {"part_id": "P-v2"}})
    told = response.json()
    assert (told["model_name"], told["id"]) == ("tiny", "42")
    found = read(response)
    assert set(found) == {"decision", "score", "p_value", "inspection_id"}
    for index, one in enumerate(data):
        ours = predict(service, one)
        assert found["decision"][index] == ours["decision"]
        assert found["score"][index] == pytest.approx(ours["score"], rel=1e-5)
        assert found["p_value"][index] == ours["p_value"]
    kept = service.get(f"/v1/inspections/{found['inspection_id'][1]}").json()
    assert (kept["part_id"], kept["decision"]) == ("P-v2", found["decision"][1])


def test_pixels_are_inspected_as_their_picture(service: TestClient, tiny_images: Images) -> None:
    pictures = np.stack([decoder.decode_image(data) for data in tiny_images["defect"][:2]])
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pictures.shape)}
    content, headers = body(tensor, pictures.tobytes(), parameters={"binary_data_output": True})
    found = read(service.post(INFER, content=content, headers=headers))
    for index, data in enumerate(tiny_images["defect"][:2]):
        ours = predict(service, data)
        assert found["decision"][index] == ours["decision"].encode()
        assert found["score"][index] == pytest.approx(ours["score"], rel=1e-5)
    identifier = found["inspection_id"][0].decode()
    source = service.get(f"/v1/inspections/{identifier}/source")
    assert source.headers["content-type"] == "image/png"
    assert np.array_equal(decoder.decode_image(source.content), pictures[0])


def test_pixels_are_limited_by_their_number_alone(tiny_bundle_store: Path, tmp_path: Path) -> None:
    """What the server makes a file of is no upload: of noise it has more bytes than that may have."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 100, 100, 3), dtype=np.uint8)
    settings = Settings(models=tiny_bundle_store, history=tmp_path / "h", max_bytes=20_000, max_pixels=10_000)
    with TestClient(create_app(settings)) as client:
        tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(noise.shape)}
        outputs = [{"name": "overlay"}, {"name": "inspection_id"}]
        content, headers = body(tensor, noise.tobytes(), outputs=outputs)
        found = read(client.post(INFER, content=content, headers=headers))
        path = f"/v1/inspections/{found['inspection_id'][0]}"
        source = client.get(f"{path}/source")
        assert np.array_equal(decoder.decode_image(source.content), noise[0])
        assert len(source.content) > settings.max_bytes
        assert client.get(f"{path}/overlay.png").content == base64.b64decode(found["overlay"][0])
        content, headers = files(source.content)
        assert client.post(INFER, content=content, headers=headers).status_code == 413
        assert client.post("/v1/models/tiny/predict", content=source.content).status_code == 413


def test_maps_and_overlays_come_when_asked_for(
    service: TestClient, tiny_images: Images, read_png: ReadPng
) -> None:
    data = tiny_images["defect"][:2]
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("map", "overlay", "score")]
    content, headers = files(*data, outputs=wanted)
    found = read(service.post(f"{INFER}?store=false", content=content, headers=headers))
    assert found["map"].shape == (2, 64, 64)
    assert found["map"].dtype == np.float32
    assert [read_png(png).shape for png in found["overlay"]] == [(64, 64, 3)] * 2
    content, headers = files(data[0], outputs=[{"name": "map"}, {"name": "overlay"}])
    flat = read(service.post(f"{INFER}?store=false", content=content, headers=headers))
    assert np.allclose(np.reshape(flat["map"], (64, 64)), found["map"][0], rtol=1e-5)
    assert base64.b64decode(flat["overlay"][0]) == found["overlay"][0]


def test_drawings_are_counted_until_the_response_is_made(
    service: TestClient, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    monkeypatch.setattr(Reservation, "add_answer", lambda _, size: held.append(size))
    outputs = [{"name": "overlay", "parameters": {"binary_data": True}}]
    content, headers = files(*tiny_images["defect"][:2], outputs=outputs)
    found = read(service.post(f"{INFER}?store=false", content=content, headers=headers))
    sizes = [len(png) for png in found["overlay"]]
    assert sorted(held) == sorted([*sizes, 2 * sum(sizes)])


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "said"),
    [
        (
            INFER,
            *body({"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 16385, 3]}, bytes(49155)),
            413,
            "a side",
        ),
        (INFER, b"{", {}, 400, "no inference request"),
        (INFER, b"{}", {LENGTH: "7"}, 400, LENGTH),
        (INFER, b"{}", {"Content-Encoding": "gzip"}, 415, "compressed"),
        (INFER, *files(b"no image"), 415, "PNG, JPEG"),
        (INFER, *files(*[b"x"] * 33), 413, "32 images"),
        (f"{INFER}?nonsense=1", *files(b"x"), 400, "nonsense"),
        (f"{INFER}?inline=overlay", *files(b"x"), 400, "'inline' is unknown"),
        ("/v2/models/bottel/infer", *files(b"x"), 404, "bottel"),
        ("/v2/models/tiny/versions/v0/infer", *files(b"x"), 404, "unknown-model"),
        ("/v2/nonsense", b"", {}, 404, "No route"),
    ],
)
def test_errors_are_in_the_protocols_form(
    service: TestClient, path: str, content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    response = service.post(path, content=content, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert said in response.json()["error"]


def encode_maps(*sides: int, as_bytes: bool) -> int:
    """Encode square maps. Returns the length of the answer."""
    output = response_body.Output("FP32", [-1, -1, -1], lambda answer: answer.files)
    model = SimpleNamespace(category="tiny", version="v0")
    answers: list[Any] = [
        SimpleNamespace(inspection=SimpleNamespace(model=model), files=np.zeros((side, side), np.float32))
        for side in sides
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response_body, "OUTPUTS", {"map": output})
        return len(response_body.respond(answers, {"map": as_bytes}, None).body)


def test_maps_that_make_no_tensor_or_too_much_json_are_refused() -> None:
    with pytest.raises(Problem, match="differ in size"):
        encode_maps(1, 2, as_bytes=True)
    assert encode_maps(*[512] * 5, as_bytes=True) > 5 * 2**20
    assert encode_maps(*[512] * 4, as_bytes=False) > 4 * 2**20
    with pytest.raises(Problem, match="ask for them with the parameter binary_data"):
        encode_maps(*[512] * 5, as_bytes=False)


def test_keys_are_required(keyed: Keyed) -> None:
    content, headers = files(b"x")
    for shown, status in (({}, 401), (keyed.show("viewer"), 403), (keyed.show("line"), 404)):
        response = keyed.client.post(INFER, content=content, headers={**headers, **shown})
        assert response.status_code == status
        assert "error" in response.json()
    assert keyed.client.get("/v2").status_code == 401
    assert keyed.client.get("/v2", headers=keyed.show("line")).status_code == 200
    assert keyed.client.get("/v2/health/live").status_code == 200
