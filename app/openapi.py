"""What FastAPI cannot read off the routes: the upload's two forms, pictures as answers, the request id."""

from typing import Any, Final

from fastapi import FastAPI

from app import credentials, forms, guard, problems, request_context, sessions
from app.problems import ProblemDetails

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
                        "summary": "The anomaly map as NumPy's .npy: float32, (height, width) of the "
                        "model's input, not of the upload"
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


def documented(*names: problems.ProblemName) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the problems that a route can answer with, an example of each.

    Those that come before any route, about keys, need not be named: `Service` adds them.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        _add(name, responses.setdefault(problems.TYPES[name].status, _response("")))
    rest = _response("Any other error: an unknown path or query parameter, a wrong method.")
    for name in ("invalid-request", "not-found", "method-not-allowed"):
        rest["content"][problems.MEDIA_TYPE]["examples"][name] = _example(name)
    return {**responses, "default": rest}


def _add(name: problems.ProblemName, response: dict[str, Any]) -> None:
    """Add a problem to the response of its status, unless it is there already."""
    kind = problems.TYPES[name]
    examples = response["content"][problems.MEDIA_TYPE]["examples"]
    if name in examples:
        return
    response["description"] += f"{kind.title}. "
    examples[name] = _example(name)
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


def _response(description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    content = {problems.MEDIA_TYPE: {"schema": schema, "examples": {}}}
    return {"description": description, "headers": {}, "content": content}


def _example(name: problems.ProblemName) -> dict[str, Any]:
    kind = problems.TYPES[name]
    details = ProblemDetails(
        type=name,
        title=kind.title,
        status=kind.status,
        detail=kind.example,
        instance="/v1/models/bottle/predict",
        request_id="6f1c0e52a9",
    )
    return {"summary": kind.title, "value": details.model_dump()}


class Service(FastAPI):
    """FastAPI, whose OpenAPI document also holds what every operation has in common."""

    def openapi(self) -> dict[str, Any]:
        """Build the document once."""
        if self.openapi_schema is None:
            document = super().openapi()
            components = document["components"]
            components["schemas"][ProblemDetails.__name__] = ProblemDetails.model_json_schema()
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
        responses = operation["responses"]
        _add(name, responses.setdefault(str(problems.TYPES[name].status), _response("")))


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
