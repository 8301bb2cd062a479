from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import httpx2
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.schemas.history import Part
from app.settings import Settings
from tests.app.conftest import Keyed, Serve
from tests.app.history.rows import add, row
from tests.app.support.guard import assert_problem
from tests.app.support.services import predict

Images = dict[str, list[bytes]]
PREDICT = "/v1/models/tiny/predict"
SEVERITY = ("PASS", "REVIEW", "REJECT")
ODD = ["/P//1/", "a/../b", "Größe ß/部品 №1 🔩", "50%", "a%2Fb", "a+b c", "a?b#c&d=e;f", "'\"\\", " "]


@pytest.fixture
def client(store: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service whose history and thresholds are the test's own: half of the good parts go to a person."""
    with TestClient(create_app(Settings(models=store, history=tmp_path / "history"))) as client:
        rates = {"review_fpr": 0.5, "reason": "a test"}
        headers = {"If-Match": "*"}
        assert client.patch("/v1/models/tiny/thresholds", json=rates, headers=headers).status_code == 200
        yield client


def get(client: TestClient, part_id: str, **headers: str) -> httpx2.Response:
    return client.get(f"/v1/parts/{quote(part_id, safe='')}", headers=headers)


def by_decision(client: TestClient, tiny_images: Images) -> dict[str, bytes]:
    """An image for every decision."""
    images = (*tiny_images["good"], *tiny_images["defect"])
    found: dict[str, bytes] = {predict(client, image)["decision"]: image for image in images}
    assert set(found) == set(SEVERITY)
    return found


def test_a_part_is_as_bad_as_its_worst_image(client: TestClient, tiny_images: Images) -> None:
    examples = by_decision(client, tiny_images)
    parts = [("REVIEW", "PASS", "PASS"), ("PASS", "REVIEW", "REJECT", "PASS"), ("REJECT", "REVIEW")]
    for number, decisions in enumerate(parts):
        ids: list[str] = []
        for seen, decision in enumerate(decisions, 1):
            answer = predict(client, examples[decision], store="true", part_id=f"part {number}")
            assert answer["decision"] == decision
            ids.append(answer["inspection_id"])
            part = Part.model_validate(get(client, f"part {number}").json())  # right after the answer
            assert part.part_id == f"part {number}"
            assert part.decision == max(decisions[:seen], key=SEVERITY.index)
            assert part.images == {name: decisions[:seen].count(name) for name in SEVERITY}
            assert [one.inspection_id for one in part.inspections] == ids[::-1]


@pytest.fixture
def live_service(tiny_bundle_store: Path, tmp_path: Path, serve_http: Serve) -> Iterator[httpx.Client]:
    """Over a real connection: starlette's TestClient decodes a path twice."""
    app = create_app(Settings(models=tiny_bundle_store, history=tmp_path / "history"))
    with serve_http(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def test_any_text_is_the_id_of_a_part(live_service: httpx.Client, tiny_images: Images) -> None:
    good = {"file": tiny_images["good"][0]}
    ids = {}
    for part_id in ODD:
        answer = live_service.post(PREDICT, files=good, data={"part_id": part_id}).json()
        ids[part_id] = answer["inspection_id"]
    for part_id, identifier in ids.items():
        response = live_service.get(f"/v1/parts/{quote(part_id, safe='')}")
        assert response.status_code == 200, part_id
        part = response.json()
        assert part["part_id"] == part_id
        assert [one["inspection_id"] for one in part["inspections"]] == [identifier]
        listed = live_service.get("/v1/inspections", params={"part_id": part_id}).json()["inspections"]
        assert listed == part["inspections"]


def test_a_part_of_which_views_are_missing_is_not_decided(client: TestClient, tiny_images: Images) -> None:
    def send(data: bytes) -> None:
        client.post(PREDICT, files={"file": ("p", data)}, data={"part_id": "P/1"})

    def decision(images: int, **query: int) -> str | None:
        answer = client.get("/v1/parts/P%2F1", params=query).json()
        part = Part.model_validate(answer)
        assert (sum(part.images.values()), len(part.inspections)) == (images, images)
        return part.decision

    for data in (*tiny_images["good"][6:8], b"no image"):
        send(data)
    assert decision(2) == decision(2, expect=1) == decision(2, expect=2) == "PASS"
    assert decision(2, expect=3) is decision(2, expect=1000) is None
    send(tiny_images["defect"][0])
    assert decision(3) == decision(3, expect=3) == decision(3, expect=1000) == "REJECT"  # whatever is missing
    assert_problem(client.get("/v1/parts/P2", params={"expect": 2}), 404, "unknown-inspection")


def test_a_part_that_is_not_there(keyed: Keyed) -> None:
    add(keyed.database, row(part_id="P-1"), row(part_id=None))
    for part_id in ("P-0", "P/", "p-1", "P-1 ", "P-%", "P-_", ""):
        response = get(keyed.client, part_id, **keyed.show("viewer"))
        assert_problem(response, 404, "unknown-inspection")


def test_a_key_for_some_categories_sees_their_images_alone(keyed: Keyed) -> None:
    own, *_ = add(
        keyed.database,
        row(part_id="P", decision="REVIEW"),
        row(part_id="P", category="other", decision="REJECT"),
        row(part_id="hidden", category="other"),
    )
    everything = get(keyed.client, "P", **keyed.show("viewer")).json()
    assert (everything["decision"], len(everything["inspections"])) == ("REJECT", 2)
    part = get(keyed.client, "P", **keyed.show("limited")).json()
    assert (part["decision"], part["images"]) == ("REVIEW", {"PASS": 0, "REVIEW": 1, "REJECT": 0})
    assert [one["inspection_id"] for one in part["inspections"]] == [own]
    # As if there were none: that others exist is not told either.
    assert_problem(get(keyed.client, "hidden", **keyed.show("limited")), 404, "unknown-inspection")
