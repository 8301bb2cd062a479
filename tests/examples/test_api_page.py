from typing import Any

import pytest

from app.main import create_app
from app.problems import TYPES
from app.settings import Settings
from examples import api_page


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def test_the_page_is_that_of_the_service(document: dict[str, Any]) -> None:
    """After a change of a route: python -m examples.api_page."""
    assert api_page.PAGE.read_text() == api_page.page(document)


def test_it_has_every_operation_and_every_problem(document: dict[str, Any]) -> None:
    text = api_page.page(document)
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"### `{method.upper()} {path}`\n" in text
    for name in TYPES:
        assert f"| `{name}` |" in text
