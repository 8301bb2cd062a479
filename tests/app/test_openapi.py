"""The OpenAPI document is complete: every route, its roles, its errors with examples, its bodies."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app import problem_answers
from app.problem_answers import MEDIA_TYPE
from app.problems import TYPES
from app.schemas.problem import ProblemDetails

Document = dict[str, Any]
# Every route that needs a key, by the roles whose keys it takes.
ROLES = {
    "line, viewer, operator, admin": """
        POST /logout
        GET /v1/session
        GET /v1/models
        GET /v1/models/{category}
        GET /v1/models/{category}/versions/{version}
        GET /v1/models/{category}/versions/{version}/report/{name}
        GET /v1/models/{category}/thresholds
        GET /v1/models/{category}/region
        GET /v1/models/{category}/calibrations
        GET /v1/inspections/{inspection_id}
        GET /v1/inspections/{inspection_id}/overlay.png
        GET /v1/inspections/{inspection_id}/heatmap.png
        GET /v1/inspections/{inspection_id}/source
        GET /v1/inspections/{inspection_id}/map.npy
        GET /v1/parts/{part_id}
        GET /v2
        GET /v2/models/{category}
        GET /v2/models/{category}/versions/{version}
    """,
    "line, admin": """
        POST /v1/models/{category}/predict
        POST /v1/models/{category}/versions/{version}/predict
        POST /v1/models/{category}/predict:batch
        GET /v2/models/{category}/ready
        GET /v2/models/{category}/versions/{version}/ready
        POST /v2/models/{category}/infer
        POST /v2/models/{category}/versions/{version}/infer
    """,
    "viewer, operator, admin": """
        GET /metrics
        GET /v1/models/{category}/thresholds/outlook
        GET /v1/models/{category}/rates
        GET /v1/models/{category}/drift
        GET /v1/deletions
        GET /v1/inspections
        GET /v1/inspections.ndjson
        GET /v1/inspections.csv
        GET /v1/inspections/{inspection_id}/reviews
        GET /v1/reports/shift
        GET /v1/deletions
        GET /v1/events
    """,
    "operator, admin": """
        PATCH /v1/models/{category}/thresholds
        PUT /v1/models/{category}/region
        DELETE /v1/models/{category}/region
        POST /v1/models/{category}/calibrations
        DELETE /v1/models/{category}/calibrations
        POST /v1/inspections/{inspection_id}/reviews
        GET /v1/models/{category}/training-set
    """,
    "admin": """
        POST /v1/models/{category}/versions
        DELETE /v1/models/{category}/versions/{version}
        POST /v1/models/{category}/versions/{version}:activate
        POST /v1/models/{category}/versions/{version}:unload
        POST /v1/models/{category}:rollback
        GET /v1/keys
        POST /v1/keys
        GET /v1/keys/{key_id}
        DELETE /v1/keys/{key_id}
        GET /v1/audit
        POST /v1/deletions/{kind}/confirm
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


def test_every_reference_is_defined(document: Document) -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    found = references(document)
    assert found
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_route_is_there_with_the_roles_whose_keys_it_takes(document: Document) -> None:
    open_routes = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "security" not in operation
    }
    health = {f"GET {start}/health/{state}" for start in ("", "/v2") for state in ("live", "ready")}
    assert open_routes == {*health, "POST /login"}
    said = {
        f"{method.upper()} {path}": operation["description"].partition("\n\nRoles: ")[2].removesuffix(".")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "security" in operation
    }
    assert said == {
        line.strip(): roles for roles, lines in ROLES.items() for line in lines.strip().split("\n")
    }


def test_every_error_has_examples(document: Document) -> None:
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            [(media_type, content)] = response["content"].items()
            assert content["examples"], (path, status)
            if problem_answers.is_open_inference(path):
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
    assert set(form["properties"]) == {"file", "part_id", "product_id", "recipe_id", "station"}
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
