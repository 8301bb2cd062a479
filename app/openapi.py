"""What FastAPI cannot read off the routes: the upload's two forms, pictures as answers, the request id."""

import hashlib
import json
from functools import cached_property
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app import credentials, dialects, forms, guard, immutable, problems, request_context, sessions
from app.dialects import Dialect
from app.schemas.open_inference import InferenceRequest
from app.schemas.problem import ProblemDetails
from app.sending import InPieces

_TEXTS: Final = {
    "part_id": "P-000123",
    "product_id": "bottle-500ml",
    "recipe_id": "top-light",
    "station": "line-3",
}
_URL = "http://127.0.0.1:8000/v1/models/bottle/predict"
_RAW_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")


def _form_body(file: dict[str, Any], curl: str, value: object) -> dict[str, Any]:
    text = {"type": "string", "maxLength": forms.MAX_TEXT, "pattern": forms.TEXT_PATTERN}
    properties = {name: {**text, "examples": [example]} for name, example in _TEXTS.items()}
    return {
        "schema": {
            "type": "object",
            "required": [forms.FILE],
            "properties": {forms.FILE: file, **properties},
            "additionalProperties": False,
        },
        "encoding": {forms.FILE: {"contentType": "image/*, application/octet-stream"}},
        "examples": {"part": {"summary": curl, "value": {forms.FILE: value, **_TEXTS}}},
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

# `openapi_extra` of the predict routes: their body is read by hand, so that limits hold while it
# streams.
PREDICT_EXTRA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The image, as a form's part `file` or as the body itself.",
        "content": {
            "multipart/form-data": _form_body(
                _IMAGE, f"curl -F file=@part.png -F part_id=P-000123 {_URL}", "(the bytes of part.png)"
            ),
            **{kind: _raw_body(kind) for kind in (*_RAW_TYPES, "application/octet-stream")},
        },
    }
}

# The same without a form.
RAW_EXTRA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The image.",
        "content": {kind: _raw_body(kind) for kind in (*_RAW_TYPES, "application/octet-stream")},
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
                {"type": "array", "items": _IMAGE, "minItems": 1},
                f"curl -F file=@top.png -F file=@side.png -F part_id=P-000123 {_URL}:batch",
                ["(the bytes of top.png)", "(the bytes of side.png)"],
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
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [forms.FILE],
                    "properties": {forms.FILE: {"type": "array", "items": _IMAGE, "minItems": 1}},
                    "additionalProperties": False,
                },
                "encoding": {forms.FILE: {"contentType": "image/*, application/octet-stream"}},
                "examples": {
                    "good parts": {
                        "summary": "curl -H 'If-Match: *' -F file=@good1.png -F file=@good2.png "
                        "'http://127.0.0.1:8000/v1/models/bottle/calibrations?station=line-3&reason=new+lamp'",
                        "value": {forms.FILE: ["(the bytes of good1.png)", "(the bytes of good2.png)"]},
                    }
                },
            }
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


def documented(
    *names: problems.ProblemName, dialect: Dialect = dialects.PROBLEMS
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the problems that a route can answer with, an example of each.

    Those that come before any route, about keys, need not be named: `Service` adds them.

    Args:
        names: of the problems.
        dialect: in which the route tells them.
    """
    responses: dict[Any, dict[str, Any]] = {}
    for name in names:
        _add(name, responses, dialect)
    rest = _response("Any other error: an unknown path or query parameter, a wrong method.", dialect)
    for name in ("invalid-request", "not-found", "method-not-allowed"):
        rest["content"][dialect.media_type]["examples"][name] = _example(name, dialect)
    return {**{int(status): response for status, response in responses.items()}, "default": rest}


def _add(name: problems.ProblemName, responses: dict[Any, dict[str, Any]], dialect: Dialect) -> None:
    """Add a problem to the response of its status, unless it is there already."""
    kind = problems.TYPES[name]
    status = str(dialect.tell(_details(name)).status)
    response = responses.setdefault(status, _response("", dialect))
    examples = response["content"][dialect.media_type]["examples"]
    if name in examples:
        return
    response["description"] += f"{kind.title}. "
    examples[name] = _example(name, dialect)
    if kind.retry_after is not None:
        response["headers"]["Retry-After"] = {
            "description": "Seconds after which trying again can help.",
            "schema": {"type": "integer"},
        }
    if kind.status == 401:
        response["headers"]["WWW-Authenticate"] = {
            "description": "How to authenticate.",
            "schema": {"type": "string"},
            "example": problems.CHALLENGE,
        }


def _response(description: str, dialect: Dialect) -> dict[str, Any]:
    content = {dialect.media_type: {"schema": dict(dialect.schema), "examples": {}}}
    return {"description": description, "headers": {}, "content": content}


def _example(name: problems.ProblemName, dialect: Dialect) -> dict[str, Any]:
    told = dialect.tell(_details(name))
    return {"summary": problems.TYPES[name].title, "value": dict(told.body)}


def _details(name: problems.ProblemName) -> ProblemDetails:
    kind = problems.TYPES[name]
    return ProblemDetails(
        type=name,
        title=kind.title,
        status=kind.status,
        detail=kind.example,
        instance="/v1/models/bottle/predict",
        request_id="6f1c0e52a9",
    )


class Service(FastAPI):
    """FastAPI, whose OpenAPI document also holds what every operation has in common, and is written once."""

    def setup(self) -> None:
        """Add the routes of the documentation."""
        super().setup()
        # FastAPI's own would write half a megabyte of JSON for each request, of whoever comes.
        self.router.routes = [r for r in self.router.routes if getattr(r, "path", "") != self.openapi_url]
        self.add_route(str(self.openapi_url), self._send_document, include_in_schema=False)

    async def _send_document(self, request: Request) -> Response:
        body, tag = self._written
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if immutable.is_known(request, tag):
            return Response(status_code=304, headers=headers)
        return InPieces(body, media_type="application/json", headers=headers)

    @cached_property
    def _written(self) -> tuple[bytes, str]:
        body = json.dumps(self.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
        return body, hashlib.sha256(body).hexdigest()[:16]

    def openapi(self) -> dict[str, Any]:
        """Build the document once."""
        if self.openapi_schema is None:
            document = super().openapi()
            components = document["components"]
            components["schemas"][ProblemDetails.__name__] = ProblemDetails.model_json_schema()
            inference = InferenceRequest.model_json_schema(ref_template="#/components/schemas/{model}")
            components["schemas"] |= inference.pop("$defs") | {InferenceRequest.__name__: inference}
            components["parameters"] = {"RequestId": _REQUEST_ID, "CsrfToken": _CSRF_TOKEN}
            components["headers"] = {"RequestId": _REQUEST_ID_ANSWER}
            components["securitySchemes"] = _SECURITY_SCHEMES
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    _document_access(operation, path, method)
                    operation.setdefault("parameters", []).append(
                        {"$ref": "#/components/parameters/RequestId"}
                    )
                    for response in operation["responses"].values():
                        response.setdefault("headers", {})[request_context.HEADER] = {
                            "$ref": "#/components/headers/RequestId"
                        }
        assert self.openapi_schema is not None  # noqa: S101  (super has kept what it returned)
        return self.openapi_schema


def _document_access(operation: dict[str, Any], path: str, method: str) -> None:
    """What app/guard.py asks of a request, and answers when it does not get it."""
    names: list[problems.ProblemName] = []
    if path not in guard.OPEN:
        operation["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
        names += ["unauthenticated", "forbidden", "rate-limited"]
        if method.upper() not in guard.SAFE_METHODS:
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/CsrfToken"})
    if "requestBody" in operation:
        names += ["invalid-request", "too-large"]
    for name in names:
        _add(name, operation["responses"], dialects.of(path))


_SECURITY_SCHEMES: Final = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": credentials.KEY_HEADER,
        "description": "A key, from `flowgauge keys create` or POST /v1/keys.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key, as a bearer token."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": sessions.COOKIE,
        "description": f"The cookie that POST {guard.LOGIN} gives for a key. Writes need "
        f"{sessions.CSRF_HEADER} too.",
    },
}
_CSRF_TOKEN: Final = {
    "name": sessions.CSRF_HEADER,
    "in": "header",
    "required": False,
    "description": "The session's `csrf_token`. Needed with a session, and looked at only then.",
    "schema": {"type": "string"},
    "example": "k2d3nY0m8wq5",
}
_REQUEST_ID: Final = {
    "name": request_context.HEADER,
    "in": "header",
    "required": False,
    "description": "Names this request in logs: 1 to 128 of A-Z a-z 0-9 . _ : @ + = / -. One is made up in "
    "place of any other.",
    "schema": {"type": "string"},
    "example": "line3-000123",
}
_REQUEST_ID_ANSWER: Final = {
    "description": "The name of this request in the server's log.",
    "schema": {"type": "string"},
    "example": "line3-000123",
}
