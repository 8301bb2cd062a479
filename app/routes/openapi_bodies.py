"""OpenAPI bodies that FastAPI cannot derive: uploads, and images as answers."""

from typing import Any, Final

from app.http.forms import FILE, TEXT_FIELDS
from app.schemas.open_inference import InferenceRequest
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_IMAGE: Final = {
    "type": "string",
    "format": "binary",
    "description": "PNG, JPEG, BMP, TIFF or WEBP, recognised by its content.",
}
_IMAGES: Final = {"type": "array", "items": _IMAGE, "minItems": 1}
_RAW_TYPES: Final = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")


def _body(description: str, *, required: bool, **content: Any) -> dict[str, Any]:
    return {"requestBody": {"required": required, "description": description, "content": content}}


def _form(file: dict[str, Any], *texts: str) -> dict[str, Any]:
    text = {"type": "string", "maxLength": MAX_TEXT, "pattern": TEXT_PATTERN}
    schema = {
        "type": "object",
        "required": [FILE],
        "properties": {FILE: file, **dict.fromkeys(texts, text)},
        "additionalProperties": False,
    }
    encoding = {FILE: {"contentType": "image/*, application/octet-stream"}}
    return {"multipart/form-data": {"schema": schema, "encoding": encoding}}


# `openapi_extra` of routes that read their bodies themselves, to enforce limits while streaming.
PREDICT_EXTRA: Final = _body(
    "The image, as the part `file` of a form or as the raw body.",
    required=True,
    **_form(_IMAGE, *TEXT_FIELDS),
    **dict.fromkeys((*_RAW_TYPES, "application/octet-stream"), _BINARY),
)
BATCH_EXTRA: Final = _body(
    "The images, each as a part named `file`.", required=True, **_form(_IMAGES, *TEXT_FIELDS)
)
CALIBRATION_EXTRA: Final = _body(
    "The images, each as a part named `file`. None is needed with `audit=true`.",
    required=False,
    **_form(_IMAGES),
)
DATASET_EXTRA: Final = _body(
    "The images, each as a part named `file`; 100 at most.", required=True, **_form(_IMAGES)
)
BUNDLE_TYPES: Final = ("application/zip", "application/octet-stream")
BUNDLE_EXTRA: Final = _body(
    "A ZIP archive of the version's directory, as `flowgauge models pack` makes it.",
    required=True,
    **dict.fromkeys(BUNDLE_TYPES, _BINARY),
)
_ONE_FILE: Final = {
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo="]}]
}
INFER_EXTRA: Final = _body(
    "JSON, optionally followed by the bytes of a tensor. The header Inference-Header-Content-Length then has "
    "the length of the JSON.",
    required=True,
    **{
        "application/json": {
            "schema": {"$ref": f"#/components/schemas/{InferenceRequest.__name__}"},
            "example": _ONE_FILE,
        },
        "application/octet-stream": _BINARY,
    },
)


def _header(description: str, example: str | float) -> dict[str, Any]:
    kind = "string" if isinstance(example, str) else "number"
    return {"description": description, "schema": {"type": kind}, "example": example}


# The 200 answer of the predict routes, apart from the JSON that FastAPI documents.
PREDICT_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The image was inspected. `Accept` selects the answer: JSON, image/png (the upload "
        "with its heatmap), or application/x-npy (the anomaly map as NumPy's .npy: float32, (height, width) "
        "of the upload as the model sees it). X headers come with the last two.",
        "content": {"image/png": _BINARY, "application/x-npy": _BINARY},
        "headers": {
            "Idempotency-Replayed": _header("true if the answer repeats an earlier one.", "true"),
            "X-Inspection-ID": _header("Id of the inspection.", "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"),
            "X-Decision": _header("PASS, REVIEW or REJECT.", "REJECT"),
            "X-Score": _header("Score in full precision.", 4.21),
            "X-P-Value": _header("The p-value.", 0.0047),
            "X-Model-Version": _header("Version of the model.", "20261125T011500-3f9a2c"),
            "X-Image-Width": _header("Width of the upload.", 900),
            "X-Image-Height": _header("Height of the upload.", 900),
        },
    }
}
