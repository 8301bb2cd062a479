"""The OpenAPI document is complete: every route, its roles, its errors with examples, its bodies."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.errors import problem_responses
from app.errors.problem_responses import MEDIA_TYPE
from app.errors.problems import TYPES
from app.schemas.problem import ProblemDetails

Document = dict[str, Any]
# Every route that needs a key, by the roles whose keys it takes.
ROLES = {
    "line, viewer, inspector, operator, admin": """
        POST /logout
        GET /v1/session /v1/models /v1/models/{category} /v1/models/{category}/versions/{version}
        GET /v1/models/{category}/versions/{version}/report/{name} /v1/models/{category}/thresholds
        GET /v1/models/{category}/region /v1/models/{category}/calibrations /v1/inspections/{inspection_id}
        GET /v1/inspections/{inspection_id}/overlay.png /v1/inspections/{inspection_id}/heatmap.png
        GET /v1/inspections/{inspection_id}/source /v1/inspections/{inspection_id}/map.npy
        GET /v1/parts/{part_id} /v2 /v2/models/{category} /v2/models/{category}/versions/{version}
    """,
    "line, inspector, operator, admin": """
        POST /v1/models/{category}/predict /v1/models/{category}/versions/{version}/predict
        POST /v1/models/{category}/predict:batch /v2/models/{category}/infer
        POST /v2/models/{category}/versions/{version}/infer
        GET /v2/models/{category}/ready /v2/models/{category}/versions/{version}/ready
    """,
    "viewer, inspector, operator, admin": """
        GET /metrics /v1/models/{category}/thresholds/outlook /v1/models/{category}/rates
        GET /v1/models/{category}/learning
        GET /v1/models/{category}/drift /v1/deletions /v1/inspections /v1/inspections.ndjson
        GET /v1/inspections.csv /v1/inspections/{inspection_id}/reviews /v1/reports/shift /v1/events
        GET /v1/reports/shift/kinds.csv
        GET /v1/jobs /v1/jobs/{job_id} /v1/jobs/{job_id}/events /v1/jobs/{job_id}/report
        GET /v1/products /v1/products/{category} /v1/products/{category}/images
        GET /v1/products/{category}/images/{image} /v1/products/{category}/images/{image}/source
        GET /v1/products/{category}/images/{image}/thumbnail
    """,
    "inspector, operator, admin": """
        POST /v1/inspections/{inspection_id}/reviews
        GET /v1/models/{category}/training-set
    """,
    "operator, admin": """
        PATCH /v1/models/{category}/thresholds
        PUT /v1/models/{category}/region
        DELETE /v1/models/{category}/region /v1/models/{category}/calibrations
        POST /v1/models/{category}/calibrations /v1/products /v1/products/{category}/images
        POST /v1/jobs /v1/jobs/{job_id}:cancel
        POST /v1/products/{category}/images:import
        PATCH /v1/products/{category} /v1/products/{category}/images
        DELETE /v1/products/{category} /v1/products/{category}/images/{image}
    """,
    "admin": """
        POST /v1/models/{category}/versions /v1/models/{category}/versions/{version}:activate
        POST /v1/models/{category}:rollback /v1/keys /v1/deletions/{kind}/confirm
        DELETE /v1/models/{category}/versions/{version} /v1/keys/{key_id}
        GET /v1/keys /v1/keys/{key_id} /v1/audit
    """,
}


@pytest.fixture(scope="module")
def document(service: TestClient) -> Document:
    response = service.get("/openapi.json")
    assert response.status_code == 200
    document: Document = response.json()
    return document


def operations(document: Document) -> list[tuple[str, dict[str, Any]]]:
    return [(path, op) for path, ops in document["paths"].items() for op in ops.values()]


def test_every_route_is_there_with_the_roles_whose_keys_it_takes(document: Document) -> None:
    routes = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    health = {f"GET {start}/health/{state}" for start in ("", "/v2") for state in ("live", "ready")}
    assert {route for route, said in routes.items() if "security" not in said} == {*health, "POST /login"}
    said = {
        route: operation["description"].partition("\n\nRoles: ")[2].removesuffix(".")
        for route, operation in routes.items()
        if "security" in operation
    }
    assert said == {
        f"{method} {path}": roles
        for roles, lines in ROLES.items()
        for method, *paths in map(str.split, lines.strip().splitlines())
        for path in paths
    }


def test_every_error_has_examples(document: Document) -> None:
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            [(media_type, content)] = response["content"].items()
            assert content["examples"], (path, status)
            if problem_responses.is_open_inference(path):
                assert media_type == "application/json"
                assert all(set(one["value"]) == {"error"} for one in content["examples"].values())
                continue
            assert media_type == MEDIA_TYPE
            for name, example in content["examples"].items():
                details = ProblemDetails.model_validate(example["value"])
                assert details.type == name
                assert status in (str(details.status), "default")
            if status == "503":
                assert "Retry-After" in response["headers"]


def test_every_problem_is_documented_somewhere(document: Document) -> None:
    documented = {
        name
        for _, operation in operations(document)
        for response in operation["responses"].values()
        for name in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    }
    assert documented == set(TYPES)


@pytest.mark.parametrize("version", ["", "/versions/{version}"])
def test_predict_documents_its_bodies_answers_and_errors(document: Document, version: str) -> None:
    operation = document["paths"][f"/v1/models/{{category}}{version}/predict"]["post"]
    content = operation["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert set(form["properties"]) == {"file", "file_name", "part_id", "product_id", "recipe_id", "station"}
    images = {f"image/{kind}" for kind in ("png", "jpeg", "bmp", "tiff", "webp")}
    assert set(content) == {"multipart/form-data", "application/octet-stream", *images}
    responses = operation["responses"]
    assert set(responses) == {
        *("200", "400", "401", "403", "404", "406", "408", "409", "410", "413", "415", "422", "429"),
        *("500", "503", "504", "default"),
    }
    answer = responses["200"]
    assert set(answer["content"]) == {"application/json", "image/png", "application/x-npy"}
    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Inspection"}
    assert {"X-Decision", "X-Score", "X-P-Value", "X-Model-Version"} <= set(answer["headers"])
    refused = responses["422"]["content"][MEDIA_TYPE]["examples"]
    assert set(refused) == {"undecodable-image", "rejected-bundle"}
