"""Answers as tensors: in the JSON, or as bytes after it."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.inspection.answer import Answer
from app.inspection.drawings import Drawing
from app.problems import Problem
from app.schemas.open_inference import Datatype, InferenceResponse, OutputTensor

LENGTH: Final = "Inference-Header-Content-Length"
# Numbers as JSON take a hundred bytes each while they are written, and nothing else of the process goes on.
MOST_IN_JSON: Final = 2**20


@dataclass(frozen=True)
class Output:
    """Something that can be asked for."""

    datatype: Datatype
    shape: tuple[int, ...]  # -1 where any size will do
    read: Callable[[Answer], Any]  # text or bytes, a number, or a map (h, w)
    drawn: Drawing | None = None


def _map(answer: Answer) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(io.BytesIO(answer.files["map"]), allow_pickle=False)
    return found


OUTPUTS: Final[Mapping[str, Output]] = {
    "decision": Output("BYTES", (-1,), lambda answer: answer.inspection.decision.encode()),
    "score": Output("FP64", (-1,), lambda answer: answer.inspection.score),
    "p_value": Output("FP64", (-1,), lambda answer: answer.inspection.p_value),
    "inspection_id": Output("BYTES", (-1,), lambda answer: answer.inspection.inspection_id.encode()),
    "map": Output("FP32", (-1, -1, -1), _map, "map"),
    "overlay": Output("BYTES", (-1,), lambda answer: answer.files["overlay"], "overlay"),
}
DEFAULT: Final = ("decision", "score", "p_value", "inspection_id")


def drawings(names: Sequence[str]) -> frozenset[Drawing]:
    """What must be drawn for outputs."""
    return frozenset(drawn for name in names if (drawn := OUTPUTS[name].drawn) is not None)


def encode(
    answers: Sequence[Answer], outputs: Mapping[str, bool], identifier: str | None
) -> tuple[bytes, int | None]:
    """Make the body of a response, and tell the length of its JSON where bytes follow that.

    Raises:
        Problem: invalid-request, where maps do not fit into one tensor, or are more than JSON should have.
    """
    tensors, pieces = [], []
    for name, as_bytes in outputs.items():
        output = OUTPUTS[name]
        values = [output.read(answer) for answer in answers]
        if len({np.shape(value) for value in values}) > 1:
            raise Problem(
                "invalid-request",
                f"The {name}s of these pictures differ in size and fit into no tensor: send one at a time.",
            )
        shape = [len(values), *np.shape(values[0])]
        if not as_bytes and math.prod(shape) > MOST_IN_JSON:
            raise Problem(
                "invalid-request",
                f"The {name}s of these pictures are {math.prod(shape)} numbers; in JSON there are at most "
                f"{MOST_IN_JSON}: ask for them with the parameter binary_data, or send fewer pictures.",
            )
        tensor = OutputTensor(name=name, datatype=output.datatype, shape=shape)
        if as_bytes:
            pieces.append(_bytes(output.datatype, values))
            tensor.parameters = {"binary_data_size": len(pieces[-1])}
        else:
            tensor.data = _json(output.datatype, values)
            if name == "overlay":
                tensor.parameters = {"content_type": "base64"}
        tensors.append(tensor)
    model = answers[0].inspection.model
    response = InferenceResponse(
        model_name=model.category, model_version=model.version, id=identifier, outputs=tensors
    )
    told = response.model_dump_json(exclude_none=True).encode()
    return b"".join((told, *pieces)), len(told) if pieces else None


def _bytes(datatype: Datatype, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    return np.asarray(values, dtype="<f4" if datatype == "FP32" else "<f8").tobytes()


def _json(datatype: Datatype, values: list[Any]) -> list[Any]:
    if datatype == "BYTES":
        return [_text(value) for value in values]
    flat: list[Any] = np.asarray(values).ravel().tolist()
    return flat


def _text(value: bytes) -> str:
    return value.decode() if value.isascii() else base64.b64encode(value).decode()
