"""Inference responses: tensors in JSON, or as bytes after it."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from starlette.responses import Response

from app.errors.problems import Problem
from app.inspection.answer import Answer
from app.inspection.explanation import Drawing
from app.schemas.open_inference import Datatype, InferenceResponse, OutputTensor

LENGTH: Final = "Inference-Header-Content-Length"
# Writing numbers as JSON takes a hundred bytes of memory each and blocks the process.
MAX_JSON_NUMBERS: Final = 2**20


class Output(NamedTuple):
    """Description of an output that a client can request."""

    datatype: Datatype
    shape: list[int]  # -1 for any size
    read: Callable[[Answer], Any]  # bytes, a number, or a map (h, w)
    drawn: Drawing | None = None


OUTPUTS: Final[Mapping[str, Output]] = {
    "decision": Output("BYTES", [-1], lambda answer: answer.inspection.decision.encode()),
    "score": Output("FP64", [-1], lambda answer: answer.inspection.score),
    "p_value": Output("FP64", [-1], lambda answer: answer.inspection.p_value),
    "inspection_id": Output("BYTES", [-1], lambda answer: answer.inspection.inspection_id.encode()),
    "warnings": Output("BYTES", [-1], lambda answer: " ".join(answer.inspection.warnings).encode()),
    "map": Output("FP32", [-1, -1, -1], lambda answer: np.load(io.BytesIO(answer.files["map"])), "map"),
    "overlay": Output("BYTES", [-1], lambda answer: answer.files["overlay"], "overlay"),
}
DEFAULT: Final = ("decision", "score", "p_value", "inspection_id")


def respond(answers: Sequence[Answer], outputs: Mapping[str, bool], identifier: str | None) -> Response:
    """Build the response: JSON, followed by the outputs that were requested as bytes.

    Raises:
        Problem: invalid-request; maps differ in size, or are too large for JSON.
    """
    tensors, pieces = [], []
    for name, as_bytes in outputs.items():
        datatype, _, read, _ = OUTPUTS[name]
        values = [read(answer) for answer in answers]
        if len({np.shape(value) for value in values}) > 1:
            raise Problem(
                "invalid-request",
                f"The {name}s of these images differ in size and fit into no tensor: send one at a time.",
            )
        shape = [len(values), *np.shape(values[0])]
        tensor = OutputTensor(name=name, datatype=datatype, shape=shape)
        tensors.append(tensor)
        if as_bytes:
            pieces.append(_bytes(datatype, values))
            tensor.parameters = {"binary_data_size": len(pieces[-1])}
        elif datatype == "BYTES":
            tensor.data = [
                one.decode() if one.isascii() else base64.b64encode(one).decode() for one in values
            ]
            if name == "overlay":
                tensor.parameters = {"content_type": "base64"}
        elif math.prod(shape) > MAX_JSON_NUMBERS:
            raise Problem(
                "invalid-request",
                f"The {name}s of these images are {math.prod(shape)} numbers; in JSON there are at most "
                f"{MAX_JSON_NUMBERS}: ask for them with the parameter binary_data, or send fewer images.",
            )
        else:
            tensor.data = np.asarray(values).ravel().tolist()
    model = answers[0].inspection.model
    response = InferenceResponse(
        model_name=model.category, model_version=model.version, id=identifier, outputs=tensors
    )
    body = response.model_dump_json(exclude_none=True).encode()
    if not pieces:
        return Response(body, media_type="application/json")
    headers = {LENGTH: str(len(body))}
    return Response(b"".join((body, *pieces)), headers=headers, media_type="application/octet-stream")


def _bytes(datatype: Datatype, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    return np.asarray(values, dtype="<f4" if datatype == "FP32" else "<f8").tobytes()
