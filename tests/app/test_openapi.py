import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from app import dialects
from app.main import create_app
from app.openapi import Service
from app.problem_answers import MEDIA_TYPE
from app.problems import TYPES
from app.schemas.problem import ProblemDetails
from app.settings import Settings

PREDICTS = (
    "/v1/models/{category}/predict",
    "/v1/models/{category}/versions/{version}/predict",
    "/v1/models/{category}/predict:batch",
)
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
        POST /2020-11-20/projects/{category}/models/{version}/detect
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
        GET /v1/inspections
        GET /v1/inspections.ndjson
        GET /v1/inspections.csv
        GET /v1/inspections/{inspection_id}/reviews
        GET /v1/reports/shift
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
    """,
}


@pytest.fixture(scope="module")
def document(service: TestClient) -> Document:
    response = service.get("/openapi.json")
    assert response.status_code == 200
    document: Document = response.json()
    return document


def test_it_is_written_once_and_sent_to_whoever_has_it_not(service: TestClient) -> None:
    first = service.get("/openapi.json")
    assert first.headers["content-type"] == "application/json"
    tag = first.headers["etag"]
    again = service.get("/openapi.json", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    for others in (f"W/{tag}", f'"another", {tag}', "*"):
        assert service.get("/openapi.json", headers={"If-None-Match": others}).status_code == 304
    lines = [("If-None-Match", '"another"'), ("If-None-Match", tag)]
    assert service.get("/openapi.json", headers=lines).status_code == 304
    other = service.get("/openapi.json", headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.content) == (200, first.content)


def test_what_routes_need_is_made_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    make = TypeAdapter.__init__

    def counted(self: TypeAdapter[Any], *args: Any, **keywords: Any) -> None:
        made.append(self)
        make(self, *args, **keywords)

    router = APIRouter()

    def doubled(number: int) -> int:
        return 2 * number

    @router.get("/{place}/more")
    def more(place: int, number: Annotated[int, Depends(doubled)]) -> int:
        return place + number

    monkeypatch.setattr(TypeAdapter, "__init__", counted)
    app = Service()
    app.include_router(router)
    app.prepare()
    assert made
    made.clear()
    assert TestClient(app).get("/1/more?number=2").json() == 5
    assert made == []


def test_others_are_answered_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    write = Service.openapi

    def slow(self: Service) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(30)
        return write(self)

    monkeypatch.setattr(Service, "openapi", slow)
    settings = Settings(models=tmp_path, history=tmp_path / "history")
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor() as pool:
        both = [pool.submit(client.get, path) for path in ("/openapi.json", "/docs")]
        assert begun.wait(30)
        live = client.get("/health/live").status_code
        go_on.set()
        assert live == 200
        assert [one.result().status_code for one in both] == [200, 200]


def operations(document: Document) -> list[tuple[str, dict[str, Any]]]:
    return [(path, op) for path, ops in document["paths"].items() for op in ops.values()]


def test_documents_every_route(document: Document) -> None:
    model, inspection = "/v1/models/{category}", "/v1/inspections/{inspection_id}"
    version = f"{model}/versions/{{version}}"
    assert set(document["paths"]) == {
        *PREDICTS,
        *(f"/health/{state}" for state in ("live", "ready")),
        *("/metrics", "/login", "/logout", "/v1/session"),
        *("/v1/models", model, f"{model}:rollback", f"{model}/versions", version),
        *(f"{version}:{act}" for act in ("activate", "unload")),
        f"{version}/report/{{name}}",
        *(
            f"{model}/{what}"
            for what in (
                "thresholds",
                "thresholds/outlook",
                "calibrations",
                "region",
                "rates",
                "drift",
                "training-set",
            )
        ),
        *("/v1/keys", "/v1/keys/{key_id}", "/v1/audit"),
        *("/v1/inspections", "/v1/inspections.ndjson", "/v1/inspections.csv", inspection),
        *(f"{inspection}/{file}" for file in ("overlay.png", "heatmap.png", "source", "map.npy", "reviews")),
        *("/v1/parts/{part_id}", "/v1/reports/shift", "/v1/events"),
        "/2020-11-20/projects/{category}/models/{version}/detect",
        *("/v2", "/v2/health/live", "/v2/health/ready"),
        *(
            f"/v2/models/{{category}}{version}{what}"
            for version in ("", "/versions/{version}")
            for what in ("", "/ready", "/infer")
        ),
    }


def test_says_nothing_of_fastapis_own_errors(document: Document) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]


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


def test_every_operation_says_what_it_does(document: Document) -> None:
    for path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        for parameter in operation["parameters"]:
            assert "$ref" in parameter or parameter["description"], path


def test_every_operation_that_needs_a_key_says_of_which_roles(document: Document) -> None:
    for path, operation in operations(document):
        assert operation["description"].count("\n\nRoles: ") == ("security" in operation), path
    said = {
        f"{method.upper()} {path}": operation["description"].partition("\n\nRoles: ")[2].removesuffix(".")
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "security" in operation
    }
    assert said == {
        line.strip(): roles for roles, lines in ROLES.items() for line in lines.strip().split("\n")
    }


def test_a_station_left_out_is_said_to_mean_what_it_does(document: Document) -> None:
    model = "/v1/models/{category}"
    for path, what in (
        ("region", "region"),
        ("calibrations", "calibration"),
        ("thresholds/outlook", "calibration"),
    ):
        for operation in document["paths"][f"{model}/{path}"].values():
            [station] = [one for one in operation["parameters"] if one.get("name") == "station"]
            assert station["description"].endswith(f"all stations that have no {what} of their own.")


def test_every_error_is_a_problem_with_examples_from_the_table(document: Document) -> None:
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            dialect = dialects.of(path)
            assert list(response["content"]) == [dialect.media_type], (path, status)
            examples = response["content"][dialect.media_type]["examples"]
            assert examples, (path, status)
            for name, example in examples.items():
                if dialect is not dialects.PROBLEMS:
                    assert set(example["value"]) <= dialect.schema["properties"].keys()
                    continue
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


def test_what_needs_the_database_says_so(document: Document) -> None:
    """What operators and administrators alone may do is audited, or reads keys, audit log or history."""
    lines = "\n".join(ROLES[roles] for roles in ("operator, admin", "admin")).split("\n")
    needing = [*filter(None, map(str.strip, lines)), "POST /login", "POST /logout"]
    for method, path in map(str.split, needing):
        answer = document["paths"][path][method.lower()]["responses"]["503"]
        assert "history-unavailable" in answer["content"][MEDIA_TYPE]["examples"], (method, path)


def test_every_answer_has_the_request_id(document: Document) -> None:
    for _, operation in operations(document):
        for response in operation["responses"].values():
            assert "X-Request-ID" in response["headers"]


@pytest.mark.parametrize("path", PREDICTS[:2])
def test_predict_documents_both_kinds_of_body(document: Document, path: str) -> None:
    body = document["paths"][path]["post"]["requestBody"]
    assert body["required"]
    form = body["content"].pop("multipart/form-data")
    assert form["schema"]["required"] == ["file"]
    assert set(form["schema"]["properties"]) == {"file", "part_id", "product_id", "recipe_id", "station"}
    assert form["examples"]
    assert set(body["content"]) == {
        *(f"image/{kind}" for kind in ("png", "jpeg", "bmp", "tiff", "webp")),
        "application/octet-stream",
    }
    assert all(content["examples"] for content in body["content"].values())
    body["content"]["multipart/form-data"] = form


@pytest.mark.parametrize("path", PREDICTS[:2])
def test_predict_documents_its_answers_and_errors(document: Document, path: str) -> None:
    responses = document["paths"][path]["post"]["responses"]
    assert set(responses) == {
        *("200", "400", "401", "403", "404", "406", "408", "409", "410", "413", "415", "422", "429"),
        *("500", "503", "504", "default"),
    }
    answer = responses["200"]
    assert set(answer["content"]) == {"application/json", "image/png", "application/x-npy"}
    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Inspection"}
    assert {"X-Decision", "X-Score", "X-P-Value", "X-Model-Version"} <= set(answer["headers"])
    assert set(responses["422"]["content"][MEDIA_TYPE]["examples"]) == {
        "undecodable-image",
        "rejected-bundle",
    }


def test_every_field_of_an_answer_is_described_or_exemplified(document: Document) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, property_ in schema.get("properties", {}).items():
            told = {"description", "examples", "$ref", "items", "enum", "anyOf", "const"} & set(property_)
            assert told or property_.get("type") in ("boolean", "string"), (name, field)


def test_the_page_for_people_is_there(service: TestClient) -> None:
    response = service.get("/docs")
    assert response.status_code == 200
    assert "openapi.json" in response.text
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    known = service.get("/docs", headers={"If-None-Match": response.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
