from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.schemas.predict import BatchAnswer
from app.settings import Settings
from tests.app.support.guard import assert_problem
from tests.conftest import picture, png

Images = dict[str, list[bytes]]

BATCH = "/v1/models/tiny/predict:batch"
FORM = "multipart/form-data"
NO_IMAGE = b"plain text"
MAX_BYTES, MAX_PIXELS = 100_000, 64 * 64


@pytest.fixture(scope="module")
def client(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with small limits: 4 images in a request, 200 000 bytes in all."""
    settings = Settings(
        models=tiny_bundle_store,
        history=tmp_path_factory.mktemp("batch") / "history",
        max_items=4,
        max_bytes=MAX_BYTES,
        max_pixels=MAX_PIXELS,
        queue_images=6,
        queue_bytes=400_000,
    )
    with TestClient(create_app(settings)) as client:
        yield client


def post(
    client: TestClient, *images: bytes, query: str = "", headers: dict[str, str] | None = None, **fields: str
) -> httpx2.Response:
    files = [("file", (f"{i}.png", data)) for i, data in enumerate(images)]
    return client.post(BATCH + query, files=files, data=fields, headers=headers)


def answer(response: httpx2.Response) -> BatchAnswer:
    assert response.status_code == 200, response.text
    return BatchAnswer.model_validate(response.json())


def free(client: TestClient) -> bool:
    """Whether nothing is held any more."""
    app: Any = client.app
    admission = app.state.admission
    return (admission.images, admission.bytes) == (0, 0)


class TestItems:
    def test_each_image_is_answered_as_alone(self, client: TestClient, tiny_images: Images) -> None:
        images = [*tiny_images["good"][:2], *tiny_images["defect"][:2]]
        names = ["oben ä.png", "../../etc/passwd", "oben ä.png", "n" * 300]
        files = [("file", pair) for pair in zip(names, images, strict=True)]
        items = answer(client.post(BATCH, files=files)).items
        assert [(item.index, item.filename) for item in items] == [*enumerate([*names[:3], "n" * 256])]
        assert len({item.inspection.inspection_id for item in items if item.inspection}) == 4
        for item, data in zip(items, images, strict=True):
            alone = client.post("/v1/models/tiny/predict", content=data).json()
            assert (item.status, item.problem) == (200, None)
            assert item.inspection is not None
            assert item.inspection.score == pytest.approx(alone["score"], rel=1e-4)
            assert item.inspection.decision == alone["decision"]
            assert item.inspection.image.model_dump() == alone["image"]
            assert item.inspection.links is not None
            kept = client.get(item.inspection.links.inspection).json()
            assert kept["score"] == item.inspection.score
            assert client.get(f"{item.inspection.links.inspection}/source").content == data

    def test_fields_and_parameters_hold_for_all(self, client: TestClient, tiny_images: Images) -> None:
        fields: dict[str, Any] = {"part_id": "P/ä", "product_id": "p", "recipe_id": "r", "station": "Linie 3"}
        query = "?station=other&regions=false&store=false&inline=heatmap"
        for item in answer(post(client, *tiny_images["good"][:2], query=query, **fields)).items:
            assert item.inspection is not None
            assert {name: getattr(item.inspection, name) for name in fields} == fields
            assert (item.inspection.regions, item.inspection.links) == (None, None)
            assert set(item.inspection.inline or ()) == {"heatmap"}
        assert_problem(client.get("/v1/parts/P%2Fä"), 404, "unknown-inspection")

    def test_idempotency_key_holds_for_each_place(self, client: TestClient, tiny_images: Images) -> None:
        first, second, third = tiny_images["good"][:3]
        key = {"Idempotency-Key": "batch-1"}

        def ids(*images: bytes) -> list[str | None]:
            items = answer(post(client, *images, headers=key)).items
            return [item.inspection.inspection_id if item.inspection else None for item in items]

        before = ids(first, second, second)
        assert len(set(before)) == 3
        assert ids(first, second, second) == before
        # Another image in a place is refused alone; a place that was not taken yet is free.
        response = post(client, first, third, headers=key)
        assert [item.status for item in answer(response).items] == [200, 409]
        problem = answer(response).items[1].problem
        assert problem is not None
        assert problem.type == "idempotency-key-reused"
        again = ids(first, second, second, third)
        assert again[:3] == before
        assert again[3] is not None


class TestFailures:
    def test_bad_images_fail_alone(self, client: TestClient, tiny_images: Images) -> None:
        good = tiny_images["good"][0]
        cases = {
            NO_IMAGE: (415, "unsupported-media-type"),
            good[:500]: (422, "undecodable-image"),
            bytes(MAX_BYTES + 1): (413, "too-large"),
            png(picture(1).repeat(2, 0)): (413, "too-large"),
        }
        for bad, (status, name) in cases.items():
            items = answer(post(client, good, bad, good, headers={"X-Request-ID": "find-me"})).items
            assert [item.status for item in items] == [200, status, 200]
            failed = items.pop(1)
            assert all(item.inspection is not None and item.problem is None for item in items)
            assert failed.inspection is None
            assert failed.problem is not None
            assert (failed.problem.type, failed.problem.status) == (name, status)
            assert (failed.problem.instance, failed.problem.request_id) == (BATCH, "find-me")
        assert free(client)

    @pytest.mark.parametrize(
        ("images", "decision"),
        [
            (["good", "defect"], "REJECT"),
            (["defect"], "REJECT"),
            (["bad", "defect"], "REJECT"),  # nothing the other one shows can mend that
            (["good", "bad"], None),
        ],
    )
    def test_decision_is_the_worst_where_it_is_known(
        self, client: TestClient, tiny_images: Images, images: list[str], decision: str | None
    ) -> None:
        passed = next(
            data
            for data in tiny_images["good"]
            if client.post("/v1/models/tiny/predict", content=data).json()["decision"] == "PASS"
        )
        data = {"good": passed, "defect": tiny_images["defect"][0], "bad": NO_IMAGE}
        assert answer(post(client, *(data[name] for name in images))).decision == decision

    def test_too_many_images_are_refused(self, client: TestClient, tiny_images: Images) -> None:
        good = tiny_images["good"][0]
        assert len(answer(post(client, *[good] * 4, part_id="four")).items) == 4
        detail = assert_problem(post(client, *[good] * 5, part_id="five"), 413, "too-large")
        assert "4 images" in detail
        assert_problem(client.get("/v1/parts/five"), 404, "unknown-inspection")

    def test_only_whole_forms_are_taken(self, client: TestClient, tiny_images: Images) -> None:
        for content_type in ("image/png", ""):
            headers = {"Content-Type": content_type}
            response = client.post(BATCH, content=tiny_images["good"][0], headers=headers)
            assert FORM in assert_problem(response, 415, "unsupported-media-type")
        assert_problem(client.post(BATCH, files={"part_id": (None, "P")}), 400, "invalid-request")

    def test_only_json_can_be_given(self, client: TestClient, tiny_images: Images) -> None:
        good = tiny_images["good"][0]
        for accept in ("application/*", "image/png, application/json;q=0.1"):
            assert answer(post(client, good, headers={"Accept": accept})).decision is not None
        for accept in ("image/png", "application/json;q=0"):
            assert_problem(post(client, good, headers={"Accept": accept}), 406, "not-acceptable")

    def test_deadline_that_nothing_meets_ends_all(self, client: TestClient, tiny_images: Images) -> None:
        response = post(client, *tiny_images["good"][:4], query="?timeout_ms=1", part_id="late")
        assert_problem(response, 504, "deadline-exceeded")
        assert_problem(client.get("/v1/parts/late"), 404, "unknown-inspection")
        assert free(client)
