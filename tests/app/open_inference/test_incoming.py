import base64
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from app.open_inference.incoming import MAX_JSON, Bounds, Incoming, json_length, parse
from app.problems import Problem

BOUNDS = Bounds(max_items=4, max_bytes=100, max_pixels=16)


def request(tensor: dict[str, Any], binary: bytes = b"", **more: Any) -> Incoming:
    if binary:
        tensor = {**tensor, "parameters": {"binary_data_size": len(binary)}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return parse(head + binary, len(head), BOUNDS)


def image(*shape: int, **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": list(shape), **more}


def pixels(*shape: int, **more: Any) -> dict[str, Any]:
    return {"name": "pixels", "datatype": "UINT8", "shape": list(shape), **more}


def element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_files_after_the_json(shape: tuple[int, ...]) -> None:
    found = request(image(*shape), element(b"one") + element(b""), id="7")
    assert (found.images, found.id, found.texts) == ([b"one", b""], "7", {})
    assert found.outputs == dict.fromkeys(("decision", "score", "p_value", "inspection_id"), False)


def test_files_in_the_json() -> None:
    text = base64.b64encode(b"one").decode()
    assert request(image(1, data=[text])).images == [b"one"]
    assert request(image(2, 1, data=[[text, text]])).images == [b"one", b"one"]
    assert request(image(2, 1, data=[[text], [text]])).images == [b"one", b"one"]


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (2, 3, 3)])
def test_pixels(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for found in (
        request(pixels(*shape), values.tobytes()),
        request(pixels(*shape, data=values.tolist())),
        request(pixels(*shape, data=values.ravel().tolist())),
    ):
        assert np.array_equal(np.stack(found.images), values.reshape(-1, *shape[-3:]))


def test_what_is_null_says_nothing() -> None:
    """Programs that write every field write it so."""
    text = base64.b64encode(b"one").decode()
    found = request(
        image(1, data=[text], parameters=None),
        id=None,
        parameters=None,
        outputs=[{"name": "score", "parameters": None}],
    )
    assert (found.images, found.id, found.texts, found.outputs) == ([b"one"], None, {}, {"score": False})


def test_texts_and_outputs() -> None:
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
        (image(1), b"", "says 1 files; 0 came"),
        (image(2), element(b"x"), "says 2 files; 1 came"),
        (image(1), 2 * element(b"x"), "says 1 files; more came"),
        (image(1, data=["", ""]), b"", "says 1 files; 2 came"),
        (image(1), element(b"x")[:-1], "middle of an element"),
        (image(2), element(b"x") + b"\0\0", "middle of an element"),
        (image(0), b"", r"\[N\]"),
        (image(-1), b"", r"\[N\]"),
        (image(1, 2), b"", r"\[N\]"),
        (image(), b"", r"\[N\]"),
        (image(1, data=["not base64!"]), b"", "base64"),
        (image(1, data=["ключ"]), b"", "base64"),
        (image(1, data=[7]), b"", "base64"),
        (image(1, data={"a": 1}), b"", "base64"),
        (pixels(1, 2, 2, 3), b"", "says 12 bytes; 0 came"),
        (pixels(1, 2, 2, 3), 11 * b"x", "says 12 bytes; 11 came"),
        (pixels(1, 2, 2, 4), 16 * b"x", r"\[N, H, W, 3\]"),
        (pixels(2, 2), 4 * b"x", r"\[N, H, W, 3\]"),
        (pixels(1, 0, 2, 3), b"", r"\[N, H, W, 3\]"),
        (pixels(1, 1, 1, 3, data=[1, 2, 256]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[1, 2, -1]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[1, 2, 0.5]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[[1], [2, 3]]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data="abc"), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[1, 2, 10**30]), b"", "0 to 255"),
        (pixels(1, 1, 1, 3, data=[]), b"", "0 to 255"),
        ({**image(1), "datatype": "FP32"}, b"", "'image' of 'FP32'"),
        ({**image(1), "name": "INPUT0"}, b"", "'INPUT0' of 'BYTES'"),
    ],
)
def test_what_is_no_picture(tensor: dict[str, Any], binary: bytes, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        request(tensor, binary)
    assert caught.value.name == "invalid-request"


def test_texts_in_the_place_of_numbers_take_no_more_memory_than_they_came_with() -> None:
    """As an array each would be as long as the longest: of 4 MiB of JSON that would be terabytes."""
    data = ["a" * 10_000, *1000 * ["b"]]
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="0 to 255"):
            request(pixels(1, 1, 1, 3, data=data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    ("tensor", "binary"),
    [
        (image(5), 5 * element(b"")),
        (image(1), element(101 * b"x")),
        (pixels(5, 1, 1, 3), 15 * b"x"),
        (pixels(1, 3, 6, 3), 54 * b"x"),
    ],
)
def test_what_is_too_large(tensor: dict[str, Any], binary: bytes) -> None:
    with pytest.raises(Problem) as caught:
        request(tensor, binary)
    assert caught.value.name == "too-large"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"inputs": []}', b'{"inputs": 1}', b'{"inputs": [{"name": "image"}]}']
)
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse(body, len(body), BOUNDS)
    assert caught.value.name == "invalid-request"


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [image(*[9] * 500_000)]},
        {"inputs": [{}] * 500_000},
        {"inputs": [image(1)], "outputs": [{}] * 500_000},
        {"inputs": [{**image(), "shape": [""] * 500_000}]},
    ],
)
def test_of_long_lists_little_is_read(body: dict[str, Any]) -> None:
    """Half a million sides were multiplied, which took minutes in which nothing else ran."""
    data = json.dumps(body).encode()
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="no inference request"):
            parse(data, len(data), BOUNDS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(data)  # what is reserved for it


def test_bytes_that_nobody_announced_or_that_are_missing() -> None:
    head = json.dumps({"inputs": [image(1, data=["eA=="])]}).encode()
    with pytest.raises(Problem, match="1 bytes follow"):
        parse(head + b"x", len(head), BOUNDS)
    announced = {**image(1), "parameters": {"binary_data_size": 9}}
    head = json.dumps({"inputs": [announced]}).encode()
    with pytest.raises(Problem, match="0 bytes follow"):
        parse(head, len(head), BOUNDS)


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
def test_what_cannot_be_wished_for(more: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        request(image(1), element(b"x"), **more)
    assert caught.value.name == "invalid-request"


def test_where_the_json_ends() -> None:
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
