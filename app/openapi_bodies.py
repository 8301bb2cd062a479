"""Bodies that FastAPI cannot read off the routes: the upload's two forms, and pictures as answers."""

from typing import Any, Final

from app import forms
from app.schemas.open_inference import InferenceRequest

_TEXTS: Final = {
    "part_id": "P-000123",
    "product_id": "bottle-500ml",
    "recipe_id": "top-light",
    "station": "line-3",
}
_URL = "http://127.0.0.1:8000/v1/models/bottle/predict"
_RAW_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")


def _form_body(file: dict[str, Any], curl: str, texts: dict[str, str]) -> dict[str, Any]:
    text = {"type": "string", "maxLength": forms.MAX_TEXT, "pattern": forms.TEXT_PATTERN}
    properties = {name: {**text, "examples": [example]} for name, example in texts.items()}
    value = "(the bytes of part.png)"
    example = {forms.FILE: [value] if file["type"] == "array" else value, **texts}
    return {
        "schema": {
            "type": "object",
            "required": [forms.FILE],
            "properties": {forms.FILE: file, **properties},
            "additionalProperties": False,
        },
        "encoding": {forms.FILE: {"contentType": "image/*, application/octet-stream"}},
        "examples": {"part": {"summary": curl, "value": example}},
    }


def _raw_body(media_type: str) -> dict[str, Any]:
    example = {
        "summary": f"curl --data-binary @part -H 'Content-Type: {media_type}' {_URL}",
        "value": "(the bytes of the file)",
    }
    return {"schema": {"type": "string", "format": "binary"}, "examples": {"part": example}}


_IMAGE: Final = {
    "type": "string",
    "format": "binary",
    "description": "A PNG, JPEG, BMP, TIFF or WEBP; its content decides which, not its name.",
}

_IMAGES: Final = {"type": "array", "items": _IMAGE, "minItems": 1}

# `openapi_extra` of the predict routes: their body is read by hand, so that limits hold while it
# streams.
PREDICT_EXTRA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The image, as a form's part `file` or as the body itself.",
        "content": {
            "multipart/form-data": _form_body(
                _IMAGE, f"curl -F file=@part.png -F part_id=P-000123 {_URL}", _TEXTS
            ),
            **{kind: _raw_body(kind) for kind in (*_RAW_TYPES, "application/octet-stream")},
        },
    }
}

# `openapi_extra` of inference by the Open Inference Protocol.
INFER_EXTRA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "JSON, and after it the bytes of a tensor that is not in it; the header "
        "Inference-Header-Content-Length has the length of the JSON then.",
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{InferenceRequest.__name__}"},
                "examples": {
                    "a picture": {
                        "summary": "A file in the JSON",
                        "value": {
                            "inputs": [
                                {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo="]}
                            ]
                        },
                    }
                },
            },
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "examples": {
                    "a picture": {"summary": "As tritonclient sends it", "value": "(JSON, then bytes)"}
                },
            },
        },
    }
}

BATCH_EXTRA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The images, each as a part named `file`.",
        "content": {
            "multipart/form-data": _form_body(
                _IMAGES, f"curl -F file=@top.png -F file=@side.png -F part_id=P-000123 {_URL}:batch", _TEXTS
            )
        },
    }
}

# `openapi_extra` of the route that renews calibrations.
CALIBRATION_EXTRA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "description": "The images, each as a part named `file`. With `reviewed=true` there need be none.",
        "content": {
            "multipart/form-data": _form_body(
                _IMAGES,
                "curl -H 'If-Match: *' -F file=@good1.png -F file=@good2.png "
                "'http://127.0.0.1:8000/v1/models/bottle/calibrations?station=line-3&reason=new+lamp'",
                {},
            )
        },
    }
}


def _header(description: str, schema: dict[str, Any], example: str | float) -> dict[str, Any]:
    return {"description": description, "schema": schema, "example": example}


# The 200 answer of the predict routes, beyond the JSON that FastAPI knows of.
PREDICT_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The image was inspected. `Accept` chooses the form of the answer; the X headers but "
        "X-Request-ID come with image/png and application/x-npy.",
        "content": {
            "image/png": {
                "schema": {"type": "string", "format": "binary"},
                "examples": {"overlay": {"summary": "The uploaded image with its heatmap over it"}},
            },
            "application/x-npy": {
                "schema": {"type": "string", "format": "binary"},
                "examples": {
                    "map": {
                        "summary": "The anomaly map as NumPy's .npy: float32, (height, width) of the whole "
                        "upload as the model sees it"
                    }
                },
            },
        },
        "headers": {
            "Idempotency-Replayed": _header(
                "Only on an answer that was given before: true.", {"type": "string"}, "true"
            ),
            "X-Inspection-ID": _header(
                "The inspection's id.", {"type": "string"}, "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"
            ),
            "X-Decision": _header("The decision.", {"enum": ["PASS", "REVIEW", "REJECT"]}, "REJECT"),
            "X-Score": _header("The score, in full precision.", {"type": "number"}, 4.21),
            "X-P-Value": _header("The p-value.", {"type": "number"}, 0.0047),
            "X-Model-Version": _header(
                "The version that answered.", {"type": "string"}, "20261125T011500-3f9a2c"
            ),
            "X-Image-Width": _header("Width of the upload.", {"type": "integer"}, 900),
            "X-Image-Height": _header("Height of the upload.", {"type": "integer"}, 900),
        },
    }
}
