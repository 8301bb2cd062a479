import csv
import io
import json
from contextlib import ExitStack
from itertools import chain
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.database import clock
from app.history.history import MAX_EXPORTS
from app.schemas.history import InspectionPage, KeptInspection
from tests.app.conftest import Keyed
from tests.app.history.rows import add, row
from tests.app.support.guard import assert_problem

LIST = "/v1/inspections"
THEN = 1_700_000_000_000  # long ago, in milliseconds
ID = "018bcfe5-6800-7000-a26e-ca625bea4660"


def get(keyed: Keyed, path: str = LIST, role: str = "viewer", **query: Any) -> httpx2.Response:
    return keyed.client.get(path, params=query, headers=keyed.show(role))


def listed(keyed: Keyed, role: str = "viewer", **query: Any) -> list[str]:
    response = get(keyed, role=role, **query)
    assert response.status_code == 200, response.text
    return [one["inspection_id"] for one in response.json()["inspections"]]


class TestOne:
    def test_is_found_right_after_it_was_answered(
        self, service: TestClient, tiny_images: dict[str, list[bytes]]
    ) -> None:
        headers = {"Content-Type": "image/png"}
        for data in (*tiny_images["good"], *tiny_images["defect"]):
            answer = service.post(
                "/v1/models/tiny/predict?part_id=P%2F1&station=Linie%20%C3%A4", content=data, headers=headers
            ).json()
            response = service.get(answer["links"]["inspection"])
            assert response.status_code == 200
            found = response.json()
            KeptInspection.model_validate(found)
            assert {name: found[name] for name in answer} == answer
            assert found["created"] == clock.iso(clock.id_to_ms(answer["inspection_id"]))
            assert found["has_pictures"] is True
            assert found["review"] == {"revision": 0, "verdict": None, "kind": None}

    def test_tells_the_latest_verdict(self, keyed: Keyed) -> None:
        [identifier] = add(keyed.database, row())
        for revision, verdict in enumerate(("good", "defect")):
            body = {"verdict": verdict, "expected_revision": revision}
            keyed.client.post(f"{LIST}/{identifier}/reviews", json=body, headers=keyed.show("operator"))
            state = {"revision": revision + 1, "verdict": verdict, "kind": None}
            assert get(keyed, f"{LIST}/{identifier}").json()["review"] == state
            assert get(keyed).json()["inspections"][0]["review"] == state


class TestList:
    def test_is_complete_and_newest_first(self, keyed: Keyed) -> None:
        texts: dict[str, Any] = {
            name: f"{name} ä" for name in ("part_id", "product_id", "recipe_id", "station")
        }
        rows = [row(THEN, score=2.5, p_value=0.25, **texts), row(THEN + 1, has_pictures=False)]
        older, newer = add(keyed.database, *rows)
        page = InspectionPage.model_validate(get(keyed).json())
        assert [one.inspection_id for one in page.inspections] == [newer, older]
        first, last = page.inspections
        assert (first.has_pictures, last.has_pictures) == (False, True)
        assert (last.created, last.score, last.p_value) == (clock.iso(THEN), 2.5, 0.25)
        assert {name: getattr(last, name) for name in texts} == texts
        assert last.image_sha256 == rows[0]["image_sha256"]
        assert last.links.inspection == f"{LIST}/{older}"
        assert get(keyed, last.links.inspection).status_code == 200

    def test_filters_alone_and_together(self, keyed: Keyed) -> None:
        defaults: dict[str, Any] = {"category": "tiny", "decision": "PASS"}
        wanted: dict[str, Any] = {"category": "other", "decision": "REVIEW", "verdict": "good"}
        wanted |= {"part_id": "Ä/1 '%_", "station": "Linie 3", "file_name": "a%.png"}
        some = [{**defaults, name: value} for name, value in wanted.items()]
        ids = add(keyed.database, row(), *(row(**one) for one in some), row(**wanted))
        for i, (name, value) in enumerate(wanted.items(), 1):
            assert listed(keyed, **{name: value}) == [ids[7], ids[i]]
        assert listed(keyed, **wanted) == [ids[7]]
        assert listed(keyed, **{**wanted, "station": "Linie"}) == []
        assert len(listed(keyed)) == 8

    def test_a_range_of_time_holds_its_beginning_and_not_its_end(self, keyed: Keyed) -> None:
        ids = add(keyed.database, *(row(THEN + i) for i in range(5)))
        at = [clock.iso(THEN + i) for i in range(5)]
        assert listed(keyed, **{"from": at[1], "to": at[3]}) == [ids[2], ids[1]]
        assert listed(keyed, **{"from": at[3]}) == [ids[4], ids[3]]
        assert listed(keyed, to=at[1]) == [ids[0]]
        assert listed(keyed, **{"from": at[3], "to": at[1]}) == []
        # Without a zone it is UTC; with one it is the same moment.
        assert listed(keyed, to=at[1].removesuffix("Z")) == [ids[0]]
        assert clock.iso(THEN + 1) == "2023-11-14T22:13:20.001Z"
        assert listed(keyed, to="2023-11-15T00:13:20.001+02:00") == [ids[0]]
        assert listed(keyed, to="9999-12-31T23:59:59-14:00") == ids[::-1]
        assert listed(keyed, **{"from": "0001-01-01T00:00:00+14:00"}) == ids[::-1]

    @pytest.mark.parametrize("limit", ["0", "501", "ten"])
    def test_pages_that_cannot_be(self, service: TestClient, limit: str) -> None:
        response = service.get(LIST, params={"limit": limit})
        assert "limit" in assert_problem(response, 400, "invalid-request")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("decision", "pass"),
            ("warning", "near"),
            ("min_margin", "nan"),
            ("verdict", "fine"),
            ("from", "yesterday"),
            ("to", "2026-13-01T00:00:00Z"),
            ("part_id", "a\0b"),
            ("station", "s" * 257),
        ],
    )
    def test_filters_that_cannot_be(self, service: TestClient, name: str, value: str) -> None:
        for path in (LIST, f"{LIST}.ndjson", f"{LIST}.csv"):
            response = service.get(path, params={name: value})
            assert name in assert_problem(response, 400, "invalid-request")


class TestPaging:
    def test_each_comes_once_while_new_ones_arrive(self, keyed: Keyed) -> None:
        # Many of the same millisecond: their order is that of their ids.
        ids = add(keyed.database, *(row(THEN + i // 4) for i in range(23)))[::-1]
        for limit in (1, 7, 22, 23, 24):
            pages: list[list[str]] = []
            cursor: dict[str, Any] = {}
            while not pages or cursor["cursor"]:
                page = get(keyed, limit=limit, to=clock.iso(THEN + 100), **cursor).json()
                pages.append([one["inspection_id"] for one in page["inspections"]])
                cursor = {"cursor": page["next_cursor"]}
                add(keyed.database, row())
            assert list(chain.from_iterable(pages)) == ids
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
            assert pages[-1]

    @pytest.mark.parametrize("cursor", ["", "x", "é", "\0", ID[:-1], f"{ID}0"])
    def test_what_is_no_cursor_is_refused(self, service: TestClient, cursor: str) -> None:
        assert_problem(service.get(LIST, params={"cursor": cursor}), 400, "invalid-request")


class TestExport:
    def test_ndjson_is_the_list_line_by_line(self, keyed: Keyed) -> None:
        add(keyed.database, *(row(part_id=f"Größe\u2028部品 {i}", station="=1") for i in range(5)), row())
        response = get(keyed, f"{LIST}.ndjson", part_id="Größe\u2028部品 3")
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["content-disposition"] == 'attachment; filename="inspections.ndjson"'
        assert response.headers["cache-control"] == "no-store"
        assert [json.loads(line) for line in response.text.split("\n")[:-1]] == get(
            keyed, part_id="Größe\u2028部品 3"
        ).json()["inspections"]
        everything = get(keyed, f"{LIST}.ndjson").content.decode()
        assert [json.loads(line) for line in everything.split("\n")[:-1]] == get(keyed).json()["inspections"]

    def test_csv_is_the_same_as_a_table(self, keyed: Keyed) -> None:
        add(
            keyed.database,
            row(THEN, part_id='Größe "部品", 1', score=1e-7),
            row(THEN + 1, has_pictures=False, warnings=["near-threshold", "unlike-training"]),
        )
        response = get(keyed, f"{LIST}.csv")
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert response.headers["content-disposition"] == 'attachment; filename="inspections.csv"'
        assert response.content.count(b"\r\n") == 3
        [newer, older] = csv.DictReader(io.StringIO(response.content.decode(), newline=""))
        page = get(keyed).json()["inspections"]
        for cells, one in zip((newer, older), page, strict=True):
            one.pop("links")
            review = one.pop("review")
            one |= {"review_revision": review.pop("revision"), **review}
            one["warnings"] = " ".join(one["warnings"])
            texts = {name: "" if value is None else str(value) for name, value in one.items()}
            assert cells == texts | {name: texts[name].lower() for name in ("audit", "has_pictures")}

    @pytest.mark.parametrize("begin", ["=", "@", "＋"])  # noqa: RUF001
    def test_no_cell_is_a_formula(self, keyed: Keyed, begin: str) -> None:
        text = f'{begin}HYPERLINK("http://x","a")'
        names = ("part_id", "product_id", "recipe_id", "station", "file_name")
        texts: dict[str, Any] = dict.fromkeys(names, text)
        add(keyed.database, row(score=-1.5, **texts))
        [cells] = csv.DictReader(io.StringIO(get(keyed, f"{LIST}.csv").text, newline=""))
        assert [cells[name] for name in names] == [f"'{text}"] * 5
        assert cells["score"] == "-1.5"  # a number, not a formula
        assert json.loads(get(keyed, f"{LIST}.ndjson").text)["part_id"] == text

    @pytest.mark.parametrize("path", [f"{LIST}.ndjson", f"{LIST}.csv"])
    def test_a_key_leaves_exports_to_others(self, keyed: Keyed, path: str) -> None:
        add(keyed.database, row())
        with ExitStack() as stack:
            for _ in range(MAX_EXPORTS // 2):
                stack.enter_context(keyed.app.state.history.exports.hold(keyed.key_id("viewer")))
            refused = get(keyed, path)
            assert (refused.status_code, refused.json()["type"]) == (503, "queue-full")
            assert refused.json()["detail"].startswith("2 exports are being sent with this key")
            assert get(keyed, path, "operator").status_code == 200
        assert get(keyed, path).status_code == 200


class TestAccess:
    def test_a_key_for_some_categories_sees_those_alone(self, keyed: Keyed) -> None:
        own, others = add(keyed.database, row(part_id="P"), row(part_id="P", category="other"))
        for query in ({}, {"part_id": "P"}, {"category": "tiny"}):
            assert listed(keyed, "limited", **query) == [own]
            for kind in ("ndjson", "csv"):
                text = get(keyed, f"{LIST}.{kind}", "limited", **query).text
                assert own in text
                assert others not in text
        detail = assert_problem(get(keyed, role="limited", category="other"), 403, "forbidden")
        assert "'other'" in detail
