import base64
import json
from typing import Any

import numpy as np
import pytest

from app.errors.problems import Problem
from app.open_inference.request_body import MAX_JSON, InferenceInputs, json_length, parse
from app.settings import Settings
from flows.fastflow.imaging import decoder

SETTINGS = Settings(max_items=4, max_bytes=100, max_pixels=16)


def request(tensor: dict[str, Any], binary: bytes = b"", **more: Any) -> InferenceInputs:
    if binary:
        tensor = {**tensor, "parameters": {"binary_data_size": len(binary)}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return parse(head + binary, len(head), SETTINGS)


def image(*shape: int, **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": list(shape), **more}


def pixels(*shape: int, **more: Any) -> dict[str, Any]:
    return {"name": "pixels", "datatype": "UINT8", "shape": list(shape), **more}


def element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_files_may_follow_the_json(shape: tuple[int, ...]) -> None:
    found = request(image(*shape), element(b"one") + element(b""), id="7")
    assert (found.images, found.id, found.texts) == ([b"one", b""], "7", {})
    assert found.outputs == dict.fromkeys(("decision", "score", "p_value", "inspection_id"), False)


def test_files_may_be_in_the_json() -> None:
    text = base64.b64encode(b"one").decode()
    assert request(image(1, data=[text])).images == [b"one"]
    assert request(image(2, 1, data=[[text, text]])).images == [b"one", b"one"]
    assert request(image(2, 1, data=[[text], [text]])).images == [b"one", b"one"]


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (2, 3, 3)])
def test_pixels_may_follow_the_json_or_be_in_it(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for found in (
        request(pixels(*shape), values.tobytes()),
        request(pixels(*shape, data=values.tolist())),
        request(pixels(*shape, data=values.ravel().tolist())),
    ):
        decoded = [decoder.decode_image(file) for file in found.images]
        assert np.array_equal(np.stack(decoded), values.reshape(-1, *shape[-3:]))


def test_texts_and_outputs_are_taken_and_null_says_nothing() -> None:
    text = base64.b64encode(b"one").decode()
    null = request(image(1, data=[text], parameters=None), id=None, parameters=None, outputs=None)
    assert (null.images, null.id, null.texts) == ([b"one"], None, {})
    found = request(
        image(1),
        element(b"x"),
        parameters={"part_id": "P", "station": "", "priority": 3, "binary_data_output": True},
        outputs=[
            {"name": "map"},
            {"name": "score", "parameters": {"binary_data": False, "classification": 0}},
        ],
    )
    assert found.texts == {"part_id": "P"}
    assert found.outputs == {"map": True, "score": False}


@pytest.mark.parametrize(
    ("tensor", "binary", "said"),
    [
        (image(1), b"", "not 1 files"),
        (image(2), element(b"x"), "not 2 files"),
        (image(1), element(b"x") + element(b""), "not 1 files"),
        (image(1), element(b"x")[:-1], "not 1 files"),
        (image(1, data=["", ""]), b"", "says 1 files; 2 came"),
        (image(0), b"", r"\[N\]"),
        (image(1, 2), b"", r"\[N\]"),
        (image(1, data=["not base64!"]), b"", "base64"),
        (image(1, data=[7]), b"", "base64"),
        (pixels(1, 2, 2, 3), 11 * b"x", "says 12 bytes; 11 came"),
        (pixels(1, 2, 2, 4), 16 * b"x", r"\[N, H, W, 3\]"),
        (pixels(1, 0, 2, 3), b"", r"\[N, H, W, 3\]"),
        (pixels(1, 1, 1, 3, data=[1, 2, 256]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[1, 2, -1]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[1, 2, 0.5]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[[1], 2, 3]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data="abc"), b"", "0 to 255"),
        ({**image(1), "datatype": "FP32"}, b"", "'image' of 'FP32'"),
        ({**image(1), "name": "INPUT0"}, b"", "'INPUT0' of 'BYTES'"),
    ],
)
def test_tensor_that_is_no_image_is_refused(tensor: dict[str, Any], binary: bytes, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        request(tensor, binary)
    assert caught.value.name == "invalid-request"


@pytest.mark.parametrize(
    ("tensor", "binary"),
    [
        (image(5), 5 * element(b"")),
        (image(1), element(101 * b"x")),
        (pixels(5, 1, 1, 3), 15 * b"x"),
        (pixels(1, 3, 6, 3), 54 * b"x"),
    ],
)
def test_too_large_tensors_are_refused(tensor: dict[str, Any], binary: bytes) -> None:
    with pytest.raises(Problem) as caught:
        request(tensor, binary)
    assert caught.value.name == "too-large"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no inference request"),
        (b"[]", "no inference request"),
        (b'{"inputs": []}', "no inference request|Send one input"),
        (b'{"inputs": [{"name": "image"}]}', "no inference request"),
        (json.dumps({"inputs": [{}] * 500_000}).encode(), "no inference request"),
        (json.dumps({"inputs": [image(*[9] * 500_000)]}).encode(), "no inference request"),
        (json.dumps({"inputs": [image(1, parameters={"binary_data_size": 9})]}).encode(), "0 bytes follow"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(Problem, match=words) as caught:
        parse(body, len(body), SETTINGS)
    assert caught.value.name == "invalid-request"


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": [{"name": "probability"}]},
        {"parameters": {"part_id": "a\nb"}},
        {"parameters": {"station": 257 * "x"}},
        {"parameters": {"station": 7}},
        {"id": 257 * "x"},
    ],
)
def test_unknown_outputs_and_bad_texts_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        request(image(1), element(b"x"), **more)
    assert caught.value.name == "invalid-request"


def test_header_tells_where_the_json_ends() -> None:
    assert json_length(None, 10) == 10
    assert json_length("7", 10) == 7
    for header in ("11", "-1", "x", "", "1e1", 20 * "9"):
        with pytest.raises(Problem, match="the body has 10 bytes"):
            json_length(header, 10)
    cases: list[tuple[str | None, int]] = [(None, MAX_JSON + 1), (str(MAX_JSON + 1), 2 * MAX_JSON)]
    for given, total in cases:
        with pytest.raises(Problem, match="binary tensor data") as caught:
            json_length(given, total)
        assert caught.value.name == "too-large"
