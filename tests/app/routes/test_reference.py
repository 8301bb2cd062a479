"""The API's reference: Swagger UI, served by us, under our policy."""

import re

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
