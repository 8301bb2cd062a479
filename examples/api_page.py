"""docs/api.md, made of the service's OpenAPI document: `python -m examples.api_page`."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from app import dialects
from app.main import create_app
from app.settings import Settings

PAGE: Final = Path(__file__).parents[1] / "docs" / "api.md"
_HEAD: Final = """# The REST API

Made of the service's OpenAPI document by `python -m examples.api_page`; a running service has the document
itself at `/openapi.json` and as a page at `/docs`, with every field; neither needs the internet.
[clients.md](clients.md) tells how to ask without writing HTTP.

Errors are RFC 9457 problem details: branch on `type`. Under `/2020-11-20` they are Lookout's and under `/v2`
the Open Inference Protocol's. Every answer has `X-Request-ID`, which leads to the server's log. Every address
but `/health/*`, `/v2/health/*`, `/docs`, `/openapi.json` and `/login` takes a key, as `X-API-Key` or as
`Authorization: Bearer`. Where there is GET there is HEAD.
"""


def page(document: dict[str, Any]) -> str:
    """The page of a document."""
    operations = [
        (operation.get("tags", ["other"])[0], path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    order = list(dict.fromkeys(tag for tag, *_ in operations))
    operations.sort(key=lambda one: order.index(one[0]))
    parts = [_HEAD]
    for tag, group in itertools.groupby(operations, key=lambda one: one[0]):
        parts.append(f"## {tag.capitalize()}\n")
        for _, path, method, operation in group:
            parts.append("\n".join(_operation(path, method, operation)))
    parts.append("\n".join(_problems(document)))
    return "\n".join(parts).rstrip() + "\n"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{operation['description'].strip()}\n"
    parameters = [one for one in operation["parameters"] if "$ref" not in one]
    if parameters:
        yield "| parameter | in | |"
        yield "|---|---|---|"
        for one in parameters:
            name = f"`{one['name']}`" + (
                "" if not one.get("required") or one["in"] == "path" else " (required)"
            )
            yield f"| {name} | {one['in']} | {_cell(one.get('description', ''))} |"
        yield ""
    if "requestBody" in operation:
        yield f"Body: {', '.join(f'`{kind}`' for kind in operation['requestBody']['content'])}.\n"
    answers = [
        f"{status} {', '.join(f'`{kind}`' for kind in response.get('content', {})) or 'without a body'}"
        for status, response in operation["responses"].items()
        if status < "400"
    ]
    media_type = dialects.of(path).media_type
    problems = [
        f"{status} {', '.join(response['content'][media_type]['examples'])}"
        for status, response in sorted(operation["responses"].items())
        if status.isdecimal() and status >= "400"
    ]
    yield f"Answers: {'; '.join(answers)}. Errors: {'; '.join(problems)}.\n"


def _problems(document: dict[str, Any]) -> Iterator[str]:
    yield "## Problems\n"
    yield "| status | type | what it is |"
    yield "|---|---|---|"
    found: dict[str, Any] = {}
    media_type = dialects.PROBLEMS.media_type
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                found |= response.get("content", {}).get(media_type, {}).get("examples", {})
    for name, example in sorted(found.items(), key=lambda one: (one[1]["value"]["status"], one[0])):
        yield f"| {example['value']['status']} | `{name}` | {_cell(example['summary'])} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(create_app(Settings()).openapi()))


if __name__ == "__main__":
    main()
