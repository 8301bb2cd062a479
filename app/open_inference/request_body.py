"""Parser of inference requests: JSON, followed by the bytes of binary tensors."""

import base64
import itertools
import math
import re
from typing import Any, Final, NamedTuple

import numpy as np
from pydantic import ValidationError

from app.errors.problems import Problem
from app.http.forms import TEXT_FIELDS
from app.open_inference.response_body import DEFAULT, OUTPUTS
from app.schemas.open_inference import InferenceRequest, InputTensor, RequestParameters, TensorMetadata
from app.settings import Settings
from flows.fastflow.imaging import heatmap
from flows.fastflow.imaging.image_limits import ImageLimits

# Files; or RGB (N, H, W, 3).
INPUTS: Final = (
    TensorMetadata(name="image", datatype="BYTES", shape=[-1]),
    TensorMetadata(name="pixels", datatype="UINT8", shape=[-1, -1, -1, 3]),
)
# Parsed JSON takes up to twenty times its bytes, so larger images must be sent as binary tensors.
MAX_JSON: Final = 4 * 1024 * 1024


class InferenceInputs(NamedTuple):
    """Parsed request: id, images as files, texts, and outputs; True for an output as bytes."""

    id: str | None
    images: list[bytes]
    texts: dict[str, str]
    outputs: dict[str, bool]


def json_length(header: str | None, total: int) -> int:
    """Return the length of the JSON at the start of a body."""
    length = total
    if header is not None:
        if not re.fullmatch("[0-9]{1,15}", header) or int(header) > total:
            raise _bad(f"Inference-Header-Content-Length is {header[:32]!r}, and the body has {total} bytes.")
        length = int(header)
    if length > MAX_JSON:
        raise Problem(
            "too-large",
            f"The JSON has more than {MAX_JSON} bytes, the limit; send images as binary tensor data.",
        )
    return length


def parse(body: bytes, length: int, settings: Settings) -> InferenceInputs:
    """Parse a body whose JSON has a length.

    Raises:
        Problem: invalid-request or too-large.
    """
    try:
        request = InferenceRequest.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(f"The JSON is no inference request: {where[:100] or 'it'}: {first['type']}") from None
    if len(request.inputs) != 1:
        raise _bad(f"Send one input, 'image' or 'pixels'; there are {len(request.inputs)}.")
    [tensor] = request.inputs
    binary = memoryview(body)[length:]
    size = tensor.parameters.binary_data_size if tensor.parameters is not None else None
    if (size or 0) != len(binary):
        raise _bad(f"{len(binary)} bytes follow the JSON; binary_data_size of the input is {size}.")
    if (tensor.name, tensor.datatype) not in [(one.name, one.datatype) for one in INPUTS]:
        raise _bad(
            f"The input is 'image' of BYTES or 'pixels' of UINT8; it was {tensor.name[:64]!r} of "
            f"{tensor.datatype[:16]!r}."
        )
    images = (_files if tensor.name == "image" else _pixels)(tensor, binary, settings)
    parameters = request.parameters or RequestParameters()
    texts = {name: text for name in TEXT_FIELDS if (text := getattr(parameters, name))}
    outputs = dict.fromkeys(DEFAULT, parameters.binary_data_output)
    if request.outputs:
        outputs = {}
        for output in request.outputs:
            if output.name not in OUTPUTS:
                raise _bad(f"There is no output {output.name[:64]!r}; there are {', '.join(OUTPUTS)}.")
            as_bytes = output.parameters.binary_data if output.parameters is not None else None
            outputs[output.name] = parameters.binary_data_output if as_bytes is None else as_bytes
    return InferenceInputs(request.id, images, texts, outputs)


def _files(tensor: InputTensor, binary: memoryview, settings: Settings) -> list[bytes]:
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] < 1:
        raise _bad(f"The shape of 'image' is [N] or [N, 1]; it was {tensor.shape[:8]}.")
    number = tensor.shape[0]
    _require_items(number, settings)
    files = _elements(binary, number) if tensor.data is None else _base64(tensor.data)
    if len(files) != number:
        raise _bad(f"The shape of 'image' says {number} files; {len(files)} came.")
    if any(len(file) > settings.max_bytes for file in files):
        raise Problem("too-large", f"An image has more than {settings.max_bytes} bytes, the limit.")
    return files


def _elements(binary: memoryview, number: int) -> list[bytes]:
    """Split a BYTES tensor: each element follows its length (4 bytes, little-endian)."""
    files: list[bytes] = []
    end = 0
    for _ in range(number):
        start = end + 4
        end = start + int.from_bytes(binary[end:start], "little")
        files.append(bytes(binary[start:end]))
    if end != len(binary):
        raise _bad(f"The {len(binary)} bytes of 'image' are not {number} files, each after its length.")
    return files


def _base64(data: object) -> list[bytes]:
    try:
        return [base64.b64decode(element, validate=True) for element in _flat(data)]
    except (TypeError, ValueError):
        raise _bad("In JSON, 'image' is the base64 of files.") from None


def _pixels(tensor: InputTensor, binary: memoryview, settings: Settings) -> list[bytes]:
    """Encode arrays as PNGs."""
    shape = [1, *tensor.shape] if len(tensor.shape) == 3 else tensor.shape
    if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise _bad(f"The shape of 'pixels' is [N, H, W, 3] or [H, W, 3]; it was {tensor.shape[:8]}.")
    number, height, width, _ = shape
    _require_items(number, settings)
    # The decoder's limits, checked before the PNG is written.
    if height * width > settings.max_pixels or max(height, width) > ImageLimits.max_side:
        raise Problem(
            "too-large",
            f"An image has more than {settings.max_pixels} pixels, the limit, or a side of more than "
            f"{ImageLimits.max_side}.",
        )
    if tensor.data is None:
        values = np.frombuffer(binary, dtype=np.uint8)
    else:
        numbers = _flat(tensor.data)
        if not numbers or set(map(type, numbers)) != {int} or min(numbers) < 0 or max(numbers) > 255:
            raise _bad("In JSON, 'pixels' is whole numbers from 0 to 255.")
        values = np.array(numbers, dtype=np.uint8)
    if values.size != math.prod(shape):
        raise _bad(f"The shape of 'pixels' says {math.prod(shape)} bytes; {values.size} came.")
    return [heatmap.encode_png(image) for image in values.reshape(shape)]


def _flat(data: object) -> list[Any]:
    """Flatten nested lists."""
    elements: list[Any] = data if isinstance(data, list) else [data]
    while elements and all(isinstance(element, list) for element in elements):
        elements = [*itertools.chain.from_iterable(elements)]
    return elements


def _require_items(number: int, settings: Settings) -> None:
    if number > settings.max_items:
        raise Problem("too-large", f"The request has more than {settings.max_items} images, the limit.")


def _bad(detail: str) -> Problem:
    return Problem("invalid-request", detail)
