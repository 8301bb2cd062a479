"""What FastAPI cannot read off the routes: problems, access, the request id. Of bodies: `openapi_bodies`."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app import guard, problem_answers, problems, request_context, sessions
from app.access import KEY_HEADER, Permission, Role, roles
from app.schemas.open_inference import InferenceRequest
from app.schemas.problem import ProblemDetails

_REFERENCE: Final = "#/components/schemas/{model}"
_PROBLEM_SCHEMA: Final = {"$ref": _REFERENCE.format(model=ProblemDetails.__name__)}
_OPEN_INFERENCE_SCHEMA: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def documented(*names: problems.ProblemName, open_inference: bool = False) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the problems that a route can answer with, an example of each.

    Those that come before any route, about keys, need not be named: `writer` adds them.

    Args:
        names: of the problems.
        open_inference: whether the route answers errors of the Open Inference Protocol.
    """
    responses: dict[Any, dict[str, Any]] = {}
    for name in names:
        _add(name, responses, open_inference)
    rest = _response("Any other error: an unknown path or query parameter, a wrong method.", open_inference)
    for name in ("invalid-request", "not-found", "method-not-allowed"):
        _examples(rest)[name] = _example(name, open_inference)
    return {**{int(status): response for status, response in responses.items()}, "default": rest}


def writer(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that writes the document of an app once; it takes the place of `app.openapi`."""

    def write() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    return write


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    inference = InferenceRequest.model_json_schema(ref_template=_REFERENCE)
    components = document["components"]
    components["schemas"] |= {
        **inference.pop("$defs"),
        InferenceRequest.__name__: inference,
        ProblemDetails.__name__: ProblemDetails.model_json_schema(),
    }
    components["parameters"] = {"RequestId": _REQUEST_ID, "CsrfToken": _CSRF_TOKEN}
    components["headers"] = {"RequestId": _REQUEST_ID_ANSWER}
    components["securitySchemes"] = _SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _document_access(operation, path, method)
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
            for response in operation["responses"].values():
                headers = response.setdefault("headers", {})
                headers[request_context.HEADER] = {"$ref": "#/components/headers/RequestId"}
    return document


def _document_access(operation: dict[str, Any], path: str, method: str) -> None:
    """What app/guard.py asks of a request, and answers when it does not get it."""
    names: list[problems.ProblemName] = []
    if "security" in operation:  # by the routes' `Requires`, whose scopes are permissions
        needed = {scope for one in operation["security"] for scopes in one.values() for scope in scopes}
        may = [role for role in Role if all(role in roles(Permission(scope)) for scope in needed)]
        operation["description"] += f"\n\nRoles: {', '.join(may)}."
        operation["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
        names += ["unauthenticated", "forbidden", "rate-limited"]
        if method.upper() not in guard.SAFE_METHODS:
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/CsrfToken"})
    if "requestBody" in operation:
        names += ["invalid-request", "upload-stalled", "too-large"]
    for name in names:
        _add(name, operation["responses"], problem_answers.is_open_inference(path))


def _add(name: problems.ProblemName, responses: dict[Any, dict[str, Any]], open_inference: bool) -> None:
    """Add a problem to the response of its status, unless it is there already."""
    kind = problems.TYPES[name]
    response = responses.setdefault(str(kind.status), _response("", open_inference))
    if name in _examples(response):
        return
    response["description"] += f"{kind.title}. "
    _examples(response)[name] = _example(name, open_inference)
    if kind.retry_after is not None:
        response["headers"]["Retry-After"] = {
            "description": "Seconds after which trying again can help.",
            "schema": {"type": "integer"},
        }
    if kind.status == 401:
        response["headers"]["WWW-Authenticate"] = {
            "description": "How to authenticate.",
            "schema": {"type": "string"},
            "example": problem_answers.CHALLENGE,
        }


def _response(description: str, open_inference: bool) -> dict[str, Any]:
    media_type = "application/json" if open_inference else problem_answers.MEDIA_TYPE
    schema = _OPEN_INFERENCE_SCHEMA if open_inference else _PROBLEM_SCHEMA
    content = {media_type: {"schema": dict(schema), "examples": {}}}
    return {"description": description, "headers": {}, "content": content}


def _examples(response: dict[str, Any]) -> dict[str, Any]:
    [content] = response["content"].values()
    examples: dict[str, Any] = content["examples"]
    return examples


def _example(name: problems.ProblemName, open_inference: bool) -> dict[str, Any]:
    kind = problems.TYPES[name]
    details = ProblemDetails(
        type=name,
        title=kind.title,
        status=kind.status,
        detail=kind.example,
        instance="/v1/models/bottle/predict",
        request_id="6f1c0e52a9",
    )
    value = problem_answers.open_inference_error(details) if open_inference else details.model_dump()
    return {"summary": kind.title, "value": value}


_SECURITY_SCHEMES: Final = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": KEY_HEADER,
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
}
_REQUEST_ID: Final = {
    "name": request_context.HEADER,
    "in": "header",
    "required": False,
    "description": "Names this request in logs: 1 to 128 of A-Z a-z 0-9 . _ : @ + = / -. One is made up in "
    "place of any other.",
    "schema": {"type": "string"},
}
_REQUEST_ID_ANSWER: Final = {
    "description": "The name of this request in the server's log.",
    "schema": {"type": "string"},
    "example": "line3-000123",
}
