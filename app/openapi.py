"""What FastAPI cannot read off the routes: problems, access, the request id. Of bodies: `openapi_bodies`."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app import credentials, dialects, guard, immutable, problem_answers, problems, request_context, sessions
from app.access import Permission, Requires, Role, roles
from app.dialects import Dialect
from app.schemas.open_inference import InferenceRequest
from app.schemas.problem import ProblemDetails
from app.sending import InPieces
from app.web.reference import POLICY, reference

REFERENCE: Final = "/docs"


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
            "example": problem_answers.CHALLENGE,
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
        # Written when first asked for, which takes a third of a second: in threads, so that others are
        # answered meanwhile, one at a time.
        self._writing = threading.Lock()
        self._written: tuple[bytes, str] | None = None
        self._rendered: tuple[bytes, str] | None = None
        # FastAPI's own would write half a megabyte of JSON for each request, of whoever comes.
        self.router.routes = [r for r in self.router.routes if getattr(r, "path", "") != self.openapi_url]
        self.add_route(str(self.openapi_url), self._send_document, include_in_schema=False)
        self.add_route(REFERENCE, self._send_reference, include_in_schema=False)

    def prepare(self) -> None:
        """Have made of every route what FastAPI otherwise makes when a request first comes to it.

        With as many parameters as there are here that takes a tenth of a second, and nothing else is answered
        meanwhile.
        """
        nowhere = {"type": "http", "method": "GET", "path": "", "root_path": "", "headers": []}
        for route in self.routes:
            route.matches(dict(nowhere))

    async def _send_document(self, request: Request) -> Response:
        return _send(request, await asyncio.to_thread(self._write), "application/json")

    async def _send_reference(self, request: Request) -> Response:
        answer = _send(request, await asyncio.to_thread(self._render), "text/html")
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    def _write(self) -> tuple[bytes, str]:
        with self._writing:
            if self._written is None:
                document = json.dumps(self.openapi(), ensure_ascii=False, separators=(",", ":"))
                self._written = _tagged(document)
            return self._written

    def _render(self) -> tuple[bytes, str]:
        with self._writing:
            if self._rendered is None:
                self._rendered = _tagged(reference(self.openapi()))
            return self._rendered

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
            for route in _api_routes(self.routes):
                for operation in document["paths"].get(route.path_format, {}).values():
                    if operation["operationId"] == route.unique_id:
                        _document_roles(operation, route.dependant)
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


def _tagged(text: str) -> tuple[bytes, str]:
    body = text.encode()
    return body, hashlib.sha256(body).hexdigest()[:16]


def _send(request: Request, written: tuple[bytes, str], media_type: str) -> Response:
    """Send what is the same for everybody; a browser asks each time whether it has it already."""
    body, tag = written
    headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
    if immutable.is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return InPieces(body, media_type=media_type, headers=headers)


def _api_routes(routes: Sequence[BaseRoute]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        # An included router, which FastAPI of late keeps whole.
        yield from _api_routes(getattr(getattr(route, "original_router", None), "routes", ()))


def _document_roles(operation: dict[str, Any], dependant: Dependant) -> None:
    needed = list(_permissions(dependant))
    if needed:
        may = [role for role in Role if all(role in roles(permission) for permission in needed)]
        operation["description"] = f"{operation['description']}\n\nRoles: {', '.join(may)}."


def _permissions(dependant: Dependant) -> Iterator[Permission | None]:
    for one in dependant.dependencies:
        if isinstance(one.call, Requires):
            yield one.call.permission
        yield from _permissions(one)


def _document_access(operation: dict[str, Any], path: str, method: str) -> None:
    """What app/guard.py asks of a request, and answers when it does not get it."""
    names: list[problems.ProblemName] = []
    if path not in guard.OPEN:
        operation["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
        names += ["unauthenticated", "forbidden", "rate-limited"]
        if method.upper() not in guard.SAFE_METHODS:
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/CsrfToken"})
    if "requestBody" in operation:
        names += ["invalid-request", "upload-stalled", "too-large"]
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
