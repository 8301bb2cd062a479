"""OpenAPI parts that FastAPI cannot derive: problems and access. `openapi_bodies` has the bodies."""

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.auth import sessions
from app.auth.permissions import KEY_HEADER, roles
from app.errors import problem_responses
from app.errors.problems import TYPES, ProblemName
from app.http import immutable
from app.middleware import authentication
from app.schemas.access import Permission, Role
from app.schemas.open_inference import InferenceRequest
from app.schemas.problem import ProblemDetails

# The header of an answer to a creation.
LOCATION: Final = {"Location": {"description": "Of what was made.", "schema": {"type": "string"}}}
_REFERENCE: Final = "#/components/schemas/{model}"
_PROBLEM_SCHEMA: Final = {"$ref": _REFERENCE.format(model=ProblemDetails.__name__)}
_OPEN_INFERENCE_SCHEMA: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
_RETRY_AFTER: Final = {
    "description": "Seconds after which trying again can help.",
    "schema": {"type": "integer"},
}
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
        "description": f"The cookie that POST {authentication.LOGIN} gives for a key. Writes need its "
        f"`csrf_token` as {sessions.CSRF_HEADER} too.",
    },
}


def documented(*names: ProblemName, open_inference: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI `responses` for the problems of a route, with an example of each.

    Problems with keys and bodies arise before any route; `document` adds them.

    Args:
        names: of the problems.
        open_inference: True if the route answers errors of the Open Inference Protocol.
    """
    # Any request may have an unknown path, method or query parameter.
    found: dict[int | str, list[ProblemName]] = {
        "default": ["invalid-request", "not-found", "method-not-allowed"]
    }
    for name in names:
        found.setdefault(TYPES[name].status, []).append(name)
    return {status: _response(of_status, open_inference) for status, of_status in found.items()}


def documented_file(media_types: Iterable[str], *names: ProblemName) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI `responses` for a file that never changes, and for the problems of its route."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    return {
        200: {"description": "It never changes.", "content": content, "headers": dict(immutable.HEADERS)},
        304: dict(immutable.NOT_MODIFIED),
        **documented(*names),
    }


def document(app: FastAPI) -> dict[str, Any]:
    """Write the OpenAPI document of an app once; replaces the app's `openapi`."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    app.openapi_schema = document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    inference = InferenceRequest.model_json_schema(ref_template=_REFERENCE)
    components = document["components"]
    components["schemas"] |= inference.pop("$defs") | {InferenceRequest.__name__: inference}
    components["securitySchemes"] = _SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _document_access(operation, path)
    return document


def _document_access(operation: dict[str, Any], path: str) -> None:
    """Document the roles that an operation needs, and the problems of app/middleware/authentication.py."""
    names: list[ProblemName] = []
    if "security" in operation:  # from the routes' `Requires`; its scopes are permissions
        needed = {scope for one in operation["security"] for scopes in one.values() for scope in scopes}
        may = [role for role in Role if all(role in roles(Permission(scope)) for scope in needed)]
        operation["description"] += f"\n\nRoles: {', '.join(may)}."
        operation["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
        names += ["unauthenticated", "forbidden", "rate-limited"]
    if "requestBody" in operation:
        names += ["invalid-request", "upload-stalled", "too-large"]
    guarded = documented(*names, open_inference=problem_responses.is_open_inference(path))
    for status, response in guarded.items():
        there = operation["responses"].setdefault(str(status), response)
        for media_type, content in response["content"].items():
            there["content"][media_type]["examples"] |= content["examples"]


def _response(names: list[ProblemName], open_inference: bool) -> dict[str, Any]:
    media_type = "application/json" if open_inference else problem_responses.MEDIA_TYPE
    schema = _OPEN_INFERENCE_SCHEMA if open_inference else _PROBLEM_SCHEMA
    examples = {name: _example(name, open_inference) for name in names}
    response: dict[str, Any] = {
        "description": ". ".join(TYPES[name].title for name in names),
        "content": {media_type: {"schema": schema, "examples": examples}},
    }
    if any(TYPES[name].retry_after is not None for name in names):
        response["headers"] = {"Retry-After": _RETRY_AFTER}
    return response


def _example(name: ProblemName, open_inference: bool) -> dict[str, Any]:
    kind = TYPES[name]
    details = ProblemDetails(
        type=name,
        title=kind.title,
        status=kind.status,
        detail=kind.example,
        instance="/v1/models/bottle/predict",
        request_id="6f1c0e52a9",
    )
    value = problem_responses.open_inference_error(details) if open_inference else details.model_dump()
    return {"summary": kind.title, "value": value}
