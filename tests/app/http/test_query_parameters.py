import pytest
from starlette.testclient import TestClient

from tests.app.conftest import Keyed
from tests.app.support.guard import assert_problem

RAW = {"Content-Type": "image/png"}


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/v1/inspections?desicion=REJECT", "desicion"),
        ("/v1/inspections.csv?category=tiny&versoin=x", "versoin"),
        ("/v1/audit?before=1", "before"),
        ("/v1/models?x", "x"),
        ("/v1/models/tiny/region?Station=a", "Station"),
        ("/v1/inspections?%00=1", "\\x00"),
    ],
)
def test_misspelt_parameter_is_refused_by_name(service: TestClient, path: str, wrong: str) -> None:
    response = service.get(path)
    detail = response.json()["detail"]
    assert (response.status_code, response.json()["type"]) == (400, "invalid-request")
    assert f"'{wrong}' is unknown; this route takes: " in detail


def test_misspelt_store_is_not_ignored(service: TestClient, tiny_images: dict[str, list[bytes]]) -> None:
    """An ignored store=false would store the image."""
    before = service.get("/v1/inspections?limit=500").json()["inspections"]
    path = "/v1/models/tiny/predict?strore=false"
    response = service.post(path, content=tiny_images["good"][0], headers=RAW)
    assert response.status_code == 400
    assert "takes: idempotency" not in response.json()["detail"]
    assert "store" in response.json()["detail"]
    assert service.get("/v1/inspections?limit=500").json()["inspections"] == before


@pytest.mark.parametrize(
    ("path", "twice"),
    [
        ("/v1/inspections?decision=PASS&decision=REJECT", "decision"),
        ("/v1/inspections.csv?from=2026-01-01&to=2026-01-02&from=2025-01-01", "from"),
        ("/v1/events?category=a&decision=PASS&decision=REJECT&category=a", "category"),
        ("/v1/parts/P?expect=1&expect=1", "expect"),
        ("/v1/models/tiny/predict?store=false&store=true", "store"),
    ],
)
def test_repeated_single_parameter_is_refused(service: TestClient, path: str, twice: str) -> None:
    """Otherwise the last of two stations would win."""
    wanted = f"query parameter {twice}: must come once, with one value"
    response = service.post(path) if "predict" in path else service.get(path)
    assert assert_problem(response, 400, "invalid-request") == wanted


def test_repeated_idempotency_key_is_refused(
    service: TestClient, tiny_images: dict[str, list[bytes]]
) -> None:
    keys = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "image/png")]
    response = service.post("/v1/models/tiny/predict", content=tiny_images["good"][0], headers=keys)
    wanted = "header parameter idempotency-key: must come once, with one value"
    assert assert_problem(response, 400, "invalid-request") == wanted


@pytest.mark.parametrize("raw", ["%ff", "%fe", "P%C3", "%ED%A0%80", "%C0%AF"])
def test_query_that_is_not_utf8_is_refused(
    service: TestClient, tiny_images: dict[str, list[bytes]], raw: str
) -> None:
    """Read as U+FFFD, different part ids would become equal."""
    wanted = "the query: must be UTF-8, percent-encoded"
    response = service.post(
        f"/v1/models/tiny/predict?part_id={raw}", content=tiny_images["good"][0], headers=RAW
    )
    assert assert_problem(response, 400, "invalid-request") == wanted
    assert assert_problem(service.get(f"/v1/inspections?part_id={raw}"), 400, "invalid-request") == wanted


def test_names_are_hidden_without_a_key(keyed: Keyed) -> None:
    assert_problem(keyed.client.get("/v1/inspections?x=1"), 401, "unauthenticated")
