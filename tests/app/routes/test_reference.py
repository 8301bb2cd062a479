"""The API's reference: Swagger UI, served by us, under our policy."""

import re

import pytest
from starlette.testclient import TestClient


def test_all_that_the_page_loads_is_served_here(service: TestClient) -> None:
    response = service.get("/docs")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in response.headers["Content-Security-Policy"]
    addresses = re.findall(r'(?:src|href|data-document)="([^"]+)"', response.text)
    assert {address.rpartition("/")[2] for address in addresses} >= {
        *("swagger-ui-bundle.js", "swagger-ui.css", "reference.js", "openapi.json")
    }
    for address in addresses:
        assert address.startswith("/")
        assert service.get(address).status_code == 200


def test_a_browser_keeps_the_files_of_swagger_ui(service: TestClient) -> None:
    address = re.findall(r'src="([^"]+swagger-ui-bundle.js)"', service.get("/docs").text)[0]
    first = service.get(address)
    assert "immutable" in first.headers["Cache-Control"]
    assert first.headers["Content-Type"] == "text/javascript; charset=utf-8"
    again = service.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["0.0/swagger-ui.css", "favicon-32x32.png", "..%2f__init__.py"])
def test_there_are_no_other_files(service: TestClient, name: str) -> None:
    assert service.get(f"/static/swagger/{name}").status_code == 404
