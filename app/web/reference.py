"""The API's reference for people, /docs: made of the OpenAPI document, with nothing that runs in a browser.

Swagger UI would be a megabyte of scripts of others in the service's own origin, where keys are typed in.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from markupsafe import Markup, escape

from app.web.static_files import static_files
from app.web.templating import environment

POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PROBLEMS: Final = "application/problem+json"
_SCHEMAS: Final = "#/components/schemas/"
_LIMITS: Final = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minLength": "characters at least:",
    "maxLength": "characters at most:",
    "minItems": "items at least:",
    "maxItems": "items at most:",
    "pattern": "like",
    "default": "by default",
}

_Json = Mapping[str, Any]


def reference(document: _Json) -> str:
    """The page of an OpenAPI document, in HTML."""
    templates = environment()
    templates.filters |= {"kind": _kind, "limits": _limits, "paragraphs": _paragraphs, "json": _json}
    operations = list(_operations(document))
    tags = list(dict.fromkeys(one["tag"] for one in operations))
    operations.sort(key=lambda one: tags.index(one["tag"]))
    return templates.get_template("reference.html").render(
        info=document["info"],
        groups=[(tag, list(some)) for tag, some in itertools.groupby(operations, key=lambda one: one["tag"])],
        schemas=dict(sorted(document["components"]["schemas"].items())),
        problems=sorted(_problems(document).items(), key=lambda one: (one[1]["status"], one[0])),
        static=static_files().address,
    )


def _operations(document: _Json) -> Iterator[dict[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            first, _, rest = operation["description"].strip().partition("\n\n")
            responses = {
                status: _resolve(document, one) for status, one in sorted(operation["responses"].items())
            }
            yield {
                "tag": operation.get("tags", ["other"])[0],
                "id": operation["operationId"],
                "method": method.upper(),
                "path": path,
                "first": first,
                "rest": rest,
                "parameters": [_resolve(document, one) for one in operation["parameters"]],
                "body": operation.get("requestBody"),
                "answers": {status: one for status, one in responses.items() if status < "400"},
                "errors": {
                    status: list(_examples(one))
                    for status, one in responses.items()
                    if "400" <= status < "600"
                },
            }


def _resolve(document: _Json, part: _Json) -> _Json:
    """A part that the document may have elsewhere; of a response, its headers too."""
    if "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return _resolve(document, found)
    if "headers" in part:
        return {**part, "headers": {name: _resolve(document, one) for name, one in part["headers"].items()}}
    return part


def _examples(response: _Json) -> dict[str, Any]:
    """The problems that a response can tell, whatever protocol it speaks."""
    return {
        name: one for content in response["content"].values() for name, one in content["examples"].items()
    }


def _problems(document: _Json) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                examples = response.get("content", {}).get(_PROBLEMS, {}).get("examples", {})
                found |= {name: one["value"] for name, one in examples.items()}
    return found


def _kind(schema: _Json) -> Markup:
    """What a value is, in words, with links to what has fields."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "const" in schema:
        return Markup("<code>{}</code>").format(json.dumps(schema["const"]))
    if "enum" in schema:
        return Markup(", ").join(Markup("<code>{}</code>").format(json.dumps(one)) for one in schema["enum"])
    for either in ("anyOf", "oneOf", "allOf"):
        if either in schema:
            return Markup(" or ").join(_kind(one) for one in schema[either])
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return Markup("list: {}").format(Markup(", ").join(_kind(one) for one in schema["prefixItems"]))
        return Markup("list of {}").format(_kind(schema.get("items", {})))
    if isinstance(schema.get("additionalProperties"), dict) and "properties" not in schema:
        return Markup("object of {}").format(_kind(schema["additionalProperties"]))
    return escape(schema.get("format", schema.get("type", "anything")))


def _limits(schema: _Json) -> list[str]:
    """What a value must keep to, and what it is where it is left out."""
    alternatives = [schema, *schema.get("anyOf", ())]
    return [
        f"{words} {json.dumps(one[name], ensure_ascii=False)}"
        for one in alternatives
        for name, words in _LIMITS.items()
        if name in one and one[name] is not None
    ]


def _paragraphs(text: str) -> Markup:
    """Paragraphs of a description, with `code`."""
    parts = [Markup("<p>{}</p>").format(_code(part)) for part in re.split(r"\n\s*\n", text.strip()) if part]
    return Markup("").join(parts)


def _code(text: str) -> Markup:
    pieces = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if number % 2 and number < len(pieces) - 1 else escape(piece)
        for number, piece in enumerate(pieces)
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
