"""An inference request taken apart: JSON, and after it the bytes of tensors that are not in it."""

import base64
import itertools
import math
import re
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from app.forms import TEXT_FIELDS
from app.open_inference.outgoing import DEFAULT, OUTPUTS
from app.problems import Problem
from app.schemas.open_inference import InferenceRequest, InputTensor
from app.schemas.texts import text_fault
from app.settings import Settings
from flows.fastflow.images import Limits

IMAGE: Final = "image"  # BYTES [N]: files
PIXELS: Final = "pixels"  # UINT8 [N, H, W, 3]: RGB
# As objects of Python a JSON of so many bytes takes up to twenty times as much; larger pictures follow it.
MAX_JSON: Final = 4 * 1024 * 1024


class Incoming(NamedTuple):
    """A request: its id, images as files or as pixels (H, W, 3), texts, and outputs with whether as bytes."""

    id: str | None
    images: list[bytes] | list[NDArray[np.uint8]]
    texts: dict[str, str]
    outputs: dict[str, bool]


def json_length(header: str | None, total: int) -> int:
    """Where the JSON of a body ends."""
    length = total
    if header is not None:
        if not re.fullmatch("[0-9]{1,15}", header) or int(header) > total:
            raise _bad(f"Inference-Header-Content-Length is {header[:32]!r}, and the body has {total} bytes.")
        length = int(header)
    if length > MAX_JSON:
        raise Problem(
            "too-large",
            f"The JSON has more than {MAX_JSON} bytes, the limit; send pictures as binary tensor data.",
        )
    return length


def parse(body: bytes, length: int, settings: Settings) -> Incoming:
    """Take apart a body, whose JSON has a length; raise the problem invalid-request or too-large."""
    try:
        request = InferenceRequest.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(f"The JSON is no inference request: {where[:100] or 'it'}: {first['type']}") from None
    if len(request.inputs) != 1:
        raise _bad(f"Send one input, {IMAGE!r} or {PIXELS!r}; there are {len(request.inputs)}.")
    [tensor] = request.inputs
    binary = memoryview(body)[length:]
    size = tensor.parameters.binary_data_size
    if (size or 0) != len(binary):
        raise _bad(f"{len(binary)} bytes follow the JSON; binary_data_size of the input is {size}.")
    expected = {IMAGE: "BYTES", PIXELS: "UINT8"}.get(tensor.name)
    if expected is None or tensor.datatype != expected:
        raise _bad(
            f"The input is {IMAGE!r} of BYTES or {PIXELS!r} of UINT8; it was {tensor.name[:64]!r} of "
            f"{tensor.datatype[:16]!r}."
        )
    images = _files(tensor, binary, settings) if tensor.name == IMAGE else _pixels(tensor, binary, settings)
    return Incoming(request.id, images, _texts(request), _outputs(request))


def _files(tensor: InputTensor, binary: memoryview, settings: Settings) -> list[bytes]:
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] < 1:
        raise _bad(f"The shape of {IMAGE!r} is [N] or [N, 1]; it was {tensor.shape[:8]}.")
    number = tensor.shape[0]
    _require_items(number, settings)
    nested = len(tensor.shape) == 2
    files = _lengths(binary, number) if tensor.data is None else _base64(tensor.data, number, nested=nested)
    if any(len(file) > settings.max_bytes for file in files):
        raise Problem("too-large", f"An image has more than {settings.max_bytes} bytes, the limit.")
    return files


def _lengths(binary: memoryview, number: int) -> list[bytes]:
    """Elements of BYTES: each after its length, of four bytes, little-endian."""
    files: list[bytes] = []
    place = 0
    while place < len(binary):
        if len(files) == number:  # of empty elements millions fit into a body
            raise _bad(f"The shape of {IMAGE!r} says {number} files; more came.")
        size = int.from_bytes(binary[place : place + 4], "little")
        file = bytes(binary[place + 4 : place + 4 + size])
        if place + 4 > len(binary) or len(file) != size:
            raise _bad(f"The bytes of {IMAGE!r} end in the middle of an element.")
        files.append(file)
        place += 4 + size
    _require_number(len(files), number)
    return files


def _base64(data: object, number: int, *, nested: bool) -> list[bytes]:
    """Files in JSON; of a nested shape [N, 1] each may lie in a list of its own, as all may in one."""
    elements: list[Any] = data if isinstance(data, list) else [data]
    if len(elements) == 1 and isinstance(elements[0], list):
        elements = elements[0]
    elif nested and all(isinstance(element, list) and len(element) == 1 for element in elements):
        elements = [element for [element] in elements]
    _require_number(len(elements), number)
    try:
        return [base64.b64decode(element, validate=True) for element in elements]
    except (TypeError, ValueError):
        raise _bad(f"In JSON, {IMAGE!r} is the base64 of files.") from None


def _require_number(came: int, number: int) -> None:
    if came != number:
        raise _bad(f"The shape of {IMAGE!r} says {number} files; {came} came.")


def _pixels(tensor: InputTensor, binary: memoryview, settings: Settings) -> list[NDArray[np.uint8]]:
    shape = [1, *tensor.shape] if len(tensor.shape) == 3 else tensor.shape
    if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise _bad(f"The shape of {PIXELS!r} is [N, H, W, 3] or [H, W, 3]; it was {tensor.shape[:8]}.")
    number, height, width, _ = shape
    _require_items(number, settings)
    if height * width > settings.max_pixels:
        raise Problem("too-large", f"An image has more than {settings.max_pixels} pixels, the limit.")
    if max(height, width) > Limits.max_side:  # the decoder's limit; far beyond it no PNG can be written
        raise Problem("too-large", f"An image has a side of more than {Limits.max_side} pixels, the limit.")
    values = np.frombuffer(binary, dtype=np.uint8) if tensor.data is None else _numbers(tensor.data)
    if values.size != math.prod(shape):
        raise _bad(f"The shape of {PIXELS!r} says {math.prod(shape)} bytes; {values.size} came.")
    return list(values.reshape(shape))


def _numbers(data: object) -> NDArray[np.uint8]:
    """Numbers in lists, however deep. Not by `np.asarray`: it makes all texts as long as the longest."""
    values: list[Any] = data if isinstance(data, list) else [data]
    while values and isinstance(values[0], list):
        if any(not isinstance(value, list) or len(value) != len(values[0]) for value in values):
            break
        values = list(itertools.chain.from_iterable(values))
    if not values or set(map(type, values)) != {int} or min(values) < 0 or max(values) > 255:
        raise _bad(f"In JSON, {PIXELS!r} is whole numbers from 0 to 255.")
    return np.array(values, dtype=np.uint8)


def _require_items(number: int, settings: Settings) -> None:
    if number > settings.max_items:
        raise Problem("too-large", f"The request has more than {settings.max_items} images, the limit.")


def _texts(request: InferenceRequest) -> dict[str, str]:
    texts = {name: text for name in TEXT_FIELDS if (text := getattr(request.parameters, name))}
    for name, text in texts.items():
        if fault := text_fault(text):
            raise _bad(f"The parameter {name!r} {fault}.")
    return texts


def _outputs(request: InferenceRequest) -> dict[str, bool]:
    as_bytes = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(DEFAULT, as_bytes)
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise _bad(f"There is no output {output.name[:64]!r}; there are {', '.join(OUTPUTS)}.")
    return {
        output.name: as_bytes if output.parameters.binary_data is None else output.parameters.binary_data
        for output in request.outputs
    }


def _bad(detail: str) -> Problem:
    return Problem("invalid-request", detail)
