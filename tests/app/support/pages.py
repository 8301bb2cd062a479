"""Pages as a browser asks for them."""

import re
from typing import Any

import httpx2

from tests.app.conftest import Keyed


def get_page(keyed: Keyed, path: str, role: str = "viewer", **query: Any) -> httpx2.Response:
    headers = keyed.show(role) | {"Accept": "text/html"}
    return keyed.client.get(path, params=query or None, headers=headers)


def read_page(keyed: Keyed, path: str, role: str = "viewer", **query: Any) -> str:
    """Return the HTML of a page that must be there."""
    response = get_page(keyed, path, role, **query)
    assert response.status_code == 200, response.text
    return response.text


def listed_inspections(text: str) -> list[str]:
    """Return the ids of inspections on a page of cards."""
    return re.findall(r'data-id="([0-9a-f-]{36})"', text)
