"""The API's reference: all of the document is there, and every link in it leads somewhere."""

import re
from typing import Any

import pytest

from app.main import create_app
from app.problems import TYPES
from app.settings import Settings
from app.web.reference import reference


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


@pytest.fixture(scope="module")
def page(document: dict[str, Any]) -> str:
    return reference(document)


def test_every_operation_is_there_with_its_parameters_and_answers(
    document: dict[str, Any], page: str
) -> None:
    parts = dict(re.findall(r'<details id="([^"]+)">(.*?)</details>', page, re.DOTALL))
    operations = [
        (path, method, one) for path, all_ in document["paths"].items() for method, one in all_.items()
    ]
    assert set(parts) == {one["operationId"] for *_, one in operations}
    for path, method, operation in operations:
        part = parts[operation["operationId"]]
        assert f"<code><b>{method.upper()}</b> {path}</code>" in part
        for parameter in operation["parameters"]:
            assert f"<code>{parameter.get('name', 'X-Request-ID')}</code>" in part
        for status in set(operation["responses"]) - {"default"}:
            assert f"<b>{status}</b>" in part
        for media_type in operation.get("requestBody", {}).get("content", {}):
            assert f"<code>{media_type}</code>" in part


def test_every_schema_is_there_with_its_fields(document: dict[str, Any], page: str) -> None:
    parts = dict(re.findall(r'<article id="schema-([^"]+)">(.*?)</article>', page, re.DOTALL))
    assert set(parts) == set(document["components"]["schemas"])
    for name, schema in document["components"]["schemas"].items():
        for field in schema.get("properties", {}):
            assert f"<code>{field}</code>" in parts[name]
    assert '<td>list of <a href="#schema-Region">Region</a> or null</td>' in parts["Inspection"]


def test_every_problem_is_there(page: str) -> None:
    assert set(re.findall(r'id="problem-([^"]+)"', page)) == set(TYPES)


def test_every_link_within_it_leads_somewhere_and_no_name_is_given_twice(page: str) -> None:
    names = re.findall(r'\sid="([^"]+)"', page)
    assert len(set(names)) == len(names)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(names)


def test_what_the_document_says_is_text() -> None:
    evil = "<script>alert(`1`)</script>"
    schema = {"description": evil, "properties": {evil: {"type": evil, "default": evil, "examples": [evil]}}}
    operation = {
        "operationId": evil,
        "description": evil,
        "parameters": [{"name": evil, "in": "query", "description": evil, "schema": {"enum": [evil]}}],
        "responses": {"200": {"description": evil, "content": {evil: {"schema": {"const": evil}}}}},
    }
    told = {"title": evil, "summary": evil, "description": evil, "version": evil}
    paths = {evil: {"get": operation}}
    page = reference({"info": told, "paths": paths, "components": {"schemas": {evil: schema}}})
    assert "<script" not in page
    assert "&lt;script&gt;" in page
