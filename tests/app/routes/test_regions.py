"""Regions of interest: what lies outside never counts, and no region hides every defect."""

from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.app.support.services import list_actions, predict, refusal_detail

Images = dict[str, list[bytes]]
URL = "/v1/models/tiny/region"
# The made-up scratches begin at 20 pixels from the left and from the top, in pictures of 64 x 64.
LEFT: dict[str, Any] = {
    "image": {"width": 64, "height": 64},
    "polygons": [[[0, 0], [8, 0], [8, 64], [0, 64]]],
}
# Of the defective pictures one that is rejected by its middle alone, without the whole picture's part.
STRONG = 4
MIDDLE: dict[str, Any] = {
    "image": {"width": 640, "height": 640},
    "polygons": [[[160, 160], [560, 160], [560, 560], [160, 560]]],
}


def put(
    client: TestClient, area: Any, station: str | None = None, if_match: str | None = None
) -> httpx2.Response:
    return client.put(URL, json=area, params=of(station), headers=match(if_match))


def delete(client: TestClient, station: str | None = None, if_match: str | None = "*") -> httpx2.Response:
    return client.delete(URL, params=of(station), headers=match(if_match))


def get(client: TestClient, station: str | None = None) -> httpx2.Response:
    return client.get(URL, params=of(station))


def of(station: str | None) -> dict[str, str]:
    return {} if station is None else {"station": station}


def match(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}


def decision(client: TestClient, image: bytes, **query: str) -> str:
    answer: str = predict(client, image, **query)["decision"]
    return answer


def test_it_is_told_as_it_was_set(client: TestClient) -> None:
    response = put(client, MIDDLE)
    assert response.status_code == 200, response.text
    assert response.json() == {**MIDDLE, "station": None, "share": (40 / 64) ** 2}
    read = get(client)
    assert (read.json(), read.headers["ETag"]) == (response.json(), response.headers["ETag"])


def test_what_lies_outside_never_counts(client: TestClient, tiny_images: Images) -> None:
    defect = tiny_images["defect"][STRONG]
    whole = predict(client, defect)
    assert whole["decision"] == "REJECT"
    put(client, LEFT)
    left = predict(client, defect)
    assert left["decision"] == "PASS"
    assert left["score"] < whole["score"]
    assert left["p_value"] > whole["p_value"]
    assert left["threshold"] == whole["threshold"]
    put(client, MIDDLE, if_match="*")
    assert decision(client, defect) == "REJECT"
    put(
        client, {**LEFT, "polygons": LEFT["polygons"] + [[[16, 16], [56, 16], [56, 56], [16, 56]]]}, None, "*"
    )
    assert decision(client, defect) == "REJECT", "what lies in any polygon counts"


def test_a_stations_own_comes_first_and_deleted_falls_back(client: TestClient, tiny_images: Images) -> None:
    defect = tiny_images["defect"][STRONG]
    put(client, LEFT)
    put(client, MIDDLE, "Linie 3 ä")
    assert get(client, "Linie 3 ä").json()["station"] == "Linie 3 ä"

    def decisions() -> list[str]:
        return [
            decision(client, defect, **query) for query in ({}, {"station": "4"}, {"station": "Linie 3 ä"})
        ]

    assert decisions() == ["PASS", "PASS", "REJECT"]
    assert delete(client, "Linie 3 ä").status_code == 204
    assert decisions() == ["PASS", "PASS", "PASS"]
    put(client, MIDDLE, "Linie 3 ä")
    assert delete(client).status_code == 204
    assert decisions() == ["REJECT", "REJECT", "REJECT"]
    refusal_detail(get(client), 404, "not-found")
    assert get(client, "Linie 3 ä").status_code == 200


class TestIfMatch:
    def test_is_not_needed_where_there_is_nothing_yet(self, client: TestClient) -> None:
        for if_match in ("*", '"0"', '"1"'):
            refusal_detail(put(client, LEFT, None, if_match), 412, "precondition-failed")
        assert put(client, LEFT).headers["ETag"] == '"1"'
        assert put(client, LEFT, "3").headers["ETag"] == '"2"'

    @pytest.mark.parametrize("station", [None, "3"])
    def test_is_needed_where_there_is_something(self, client: TestClient, station: str | None) -> None:
        read = put(client, LEFT, station).headers["ETag"]
        for if_match, status, name in (
            (None, 428, "precondition-required"),
            ('"9"', 412, "precondition-failed"),
            ("9", 412, "precondition-failed"),
        ):
            refusal_detail(put(client, MIDDLE, station, if_match), status, name)
            refusal_detail(delete(client, station, if_match), status, name)
        changed = put(client, MIDDLE, station, read)
        assert changed.status_code == 200
        assert changed.headers["ETag"] != read
        refusal_detail(put(client, LEFT, station, read), 412, "precondition-failed")
        refusal_detail(delete(client, station, read), 412, "precondition-failed")
        assert get(client, station).json() == changed.json()
        assert delete(client, station, changed.headers["ETag"]).status_code == 204


def area(*polygons: Any, side: int = 64) -> dict[str, Any]:
    return {"image": {"width": side, "height": side}, "polygons": list(polygons)}


WRONG: dict[str, tuple[Any, str]] = {
    "beyond the picture": (area([[0, 0], [65, 0], [65, 64]]), "polygon 0 reaches beyond the image"),
    "no size": ({"polygons": LEFT["polygons"]}, "image: is required"),
    "a revision of its own": ({**LEFT, "revision": 7}, "revision: is unknown"),
    # 6 x 6 of 4096 pixels; a score averages 41.
    "too small": (area([[0, 0], [6, 0], [6, 6], [0, 6]]), "The region is 0.88% of the image, but a score"),
    "between pixels": (
        area([[0, 8.5], [1024, 8.5], [1024, 10.5], [0, 10.5]], side=1024),
        "No pixel of the map, 64 x 64, lies inside the region of interest",
    ),
}


class TestRefused:
    @pytest.mark.parametrize("name", WRONG)
    def test_regions_that_cannot_be(self, steady: TestClient, name: str) -> None:
        body, reason = WRONG[name]
        station = "3"
        response = put(steady, body, station)
        assert reason in refusal_detail(response, 400, "invalid-request")
        assert "Retry-After" not in response.headers
        refusal_detail(get(steady, station), 404, "not-found")

    @pytest.mark.parametrize("station", [None, "3"])
    def test_what_is_not_set_cannot_be_deleted(self, steady: TestClient, station: str | None) -> None:
        whose = "stations without their own" if station is None else "station '3'"
        assert whose in refusal_detail(delete(steady, station), 404, "not-found")


class TestAudit:
    def test_has_the_station_and_what_was_set(self, client: TestClient) -> None:
        put(client, LEFT, "3")
        put(client, MIDDLE, "3", "*")
        delete(client, "3")
        entries = list_actions(client, "model.region")
        assert [(entry["target"], entry["outcome"]) for entry in entries] == [("tiny", "done")] * 3
        details = [entry["detail"] for entry in entries]
        assert [detail["station"] for detail in details] == ["3"] * 3
        assert [detail["to"] for detail in details] == [LEFT, MIDDLE, None]
        before = [detail["from"] for detail in details]
        assert before == [None, {**LEFT, "revision": 1}, {**MIDDLE, "revision": 2}]
