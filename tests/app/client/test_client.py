"""Both clients against a real service."""

import inspect
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.responses import HTMLResponse

from app import client as package
from app.client import AsyncClient, Client
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings
from tests.app.client.conftest import Network, Serve, make_key
from tests.support.certificates import make_certificate, serving_tls

Ask = Callable[..., Any]
Images = dict[str, list[bytes]]


def test_both_clients_have_the_same_methods() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: list(inspect.signature(m).parameters) for name, m in methods if not name.startswith("__")
        }

    assert calls(Client) == calls(AsyncClient)


def test_bytes_and_files_are_inspected(ask: Ask, url: str, tiny_images: Images, tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(tiny_images["defect"][0])
    answers = [
        ask(url, "inspect", "tiny", image, part_id="Teil ä", station="line 3")
        for image in (path.read_bytes(), path, str(path))
    ]
    assert len({answer.inspection_id for answer in answers}) == 3
    for answer in answers:
        assert (answer.decision, answer.part_id, answer.station) == ("REJECT", "Teil ä", "line 3")
        assert answer.regions
    part = ask(url, "part", "Teil ä")
    assert part.decision == "REJECT"
    assert {one.inspection_id for one in part.inspections} >= {one.inspection_id for one in answers}


def test_what_may_be_wished_for(ask: Ask, url: str, tiny_images: Images) -> None:
    [model] = [one for one in ask(url, "models") if one.category == "tiny"]
    answer = ask(
        url,
        "inspect",
        "tiny",
        tiny_images["good"][0],
        version=model.active,
        regions=False,
        store=False,
        inline=["overlay", "heatmap"],
        deadline_ms=60_000,
        request_id="line3-1",
        product_id="p",
        recipe_id="r",
    )
    assert (answer.regions, answer.links, answer.product_id, answer.recipe_id) == (None, None, "p", "r")
    assert set(answer.inline) == {"overlay", "heatmap"}
    assert ask(url, "model", "tiny").active == model.active


def test_several_images(ask: Ask, url: str, tiny_images: Images, tmp_path: Path) -> None:
    (tmp_path / "side.png").write_bytes(tiny_images["defect"][1])
    images = {"top.png": tiny_images["good"][0], "side.png": tmp_path / "side.png", "bad.png": b"no image"}
    answer = ask(url, "inspect_all", "tiny", images, part_id="views")
    assert [item.filename for item in answer.items] == list(images)
    assert [item.status for item in answer.items] == [200, 200, 415]
    assert answer.decision == "REJECT"
    assert answer.items[2].problem.type == "unsupported-media-type"
    with pytest.raises(ValueError, match="leave version out"):
        ask(url, "inspect_all", "tiny", images, version="v")
    with pytest.raises(ValueError, match="no image to inspect; give at least one"):
        ask(url, "inspect_all", "tiny", {})


def test_files_of_an_inspection(ask: Ask, url: str, tiny_images: Images) -> None:
    data = tiny_images["defect"][2]
    identifier = ask(url, "inspect", "tiny", data).inspection_id
    assert ask(url, "inspection", identifier).has_pictures
    assert ask(url, "source", identifier) == data
    for drawn in ("overlay", "heatmap"):
        assert ask(url, drawn, identifier).startswith(b"\x89PNG")
    assert np.load(io.BytesIO(ask(url, "score_map", identifier))).shape == (64, 64)


def test_the_history_is_read_page_by_page(ask: Ask, url: str, tiny_images: Images) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=1)
    station = f"pages-{ask.__name__}"
    made = [ask(url, "inspect", "tiny", tiny_images["good"][i % 8], station=station) for i in range(5)]
    for one in made:  # filed, each of them
        ask(url, "inspection", one.inspection_id)
    found = ask(url, "inspections", station=station, page=2)
    assert [one.inspection_id for one in found] == [one.inspection_id for one in reversed(made)]
    for moment in (begun, begun.isoformat()):
        assert ask(url, "inspections", station=station, made_from=moment, category="tiny") == found
        assert ask(url, "inspections", station=station, made_before=moment) == []


def test_reviews(ask: Ask, url: str, tiny_images: Images) -> None:
    identifier = ask(url, "inspect", "tiny", tiny_images["defect"][0]).inspection_id
    review = ask(url, "review", identifier, "good", expected_revision=0, reviewer="me", note="dust")
    assert (review.revision, review.verdict) == (1, "good")
    assert ask(url, "reviews", identifier) == [review]
    with pytest.raises(package.ConflictError):
        ask(url, "review", identifier, "defect", expected_revision=0)


@pytest.mark.parametrize(
    ("call", "error", "problem"),
    [
        (("inspect", "a/b", b"x"), package.NotFoundError, "not-found"),
        (("inspect", "tiny", b"no image"), package.RefusedError, "unsupported-media-type"),
        (("part", "none/such"), package.NotFoundError, "unknown-inspection"),
    ],
)
def test_each_problem_has_its_error_class(
    ask: Ask, url: str, call: tuple[Any, ...], error: type[package.ProblemError], problem: str
) -> None:
    with pytest.raises(error) as caught:
        ask(url, *call)
    assert caught.value.type == problem
    assert caught.value.request_id
    assert str(caught.value) == caught.value.details.detail


@pytest.mark.parametrize("wish", ["idempotency_key", "request_id"])
@pytest.mark.parametrize("value", ["a\nb", "ü", " a", "a\x7f"])
def test_a_header_that_cannot_be_sent(ask: Ask, wish: str, value: str) -> None:
    for call in (("inspect", "tiny", b"x"), ("inspect_all", "tiny", {"a": b"x"})):
        with pytest.raises(ValueError, match=wish):
            ask("http://127.0.0.1:1", *call, patience=0.2, **{wish: value})


class TestRetries:
    def test_inspection_with_a_lost_answer_is_made_once(
        self, ask: Ask, url: str, tiny_images: Images, network: Network
    ) -> None:
        station = f"lost-{ask.__name__}"
        network.lost = 2
        answer = ask(url, "inspect", "tiny", tiny_images["good"][0], station=station)
        assert network.lost == 0
        ask(url, "inspection", answer.inspection_id)
        [kept] = ask(url, "inspections", station=station)
        assert kept.inspection_id == answer.inspection_id

    def test_review_with_a_lost_answer_is_not_repeated(
        self, ask: Ask, url: str, tiny_images: Images, network: Network
    ) -> None:
        identifier = ask(url, "inspect", "tiny", tiny_images["good"][0]).inspection_id
        network.lost = 1
        with pytest.raises(package.UnreachableError) as caught:
            ask(url, "review", identifier, "good", expected_revision=0)
        assert caught.value.sent
        assert len(ask(url, "reviews", identifier)) == 1

    def test_nobody_there(self, ask: Ask) -> None:
        with pytest.raises(package.UnreachableError, match=r"127\.0\.0\.1:1 ") as caught:
            ask("http://127.0.0.1:1", "models", patience=0.3)
        assert not caught.value.sent

    def test_untrusted_certificate_is_not_retried(self, ask: Ask, tmp_path: Path) -> None:
        made = make_certificate(tmp_path, "DNS:localhost")
        with serving_tls(create_app(Settings(models=tmp_path)), made) as url:
            for host, ca, why in (
                ("localhost", None, "self-signed certificate"),
                ("127.0.0.1", made.certificate, "IP address mismatch"),
            ):
                with pytest.raises(package.UntrustedError, match=f"cannot be verified .*{why}") as caught:
                    ask(url.replace("127.0.0.1", host), "models", patience=1e6, ca=ca)
                assert not caught.value.sent
            assert ask(url.replace("127.0.0.1", "localhost"), "models", ca=made.certificate) == []


def test_a_key_opens_what_its_role_may(ask: Ask, tmp_path: Path, serve_http: Serve) -> None:
    settings = Settings(models=tmp_path)
    key = make_key(settings, Role.LINE)
    with serve_http(create_app(settings)) as url:
        ask(url, "models", key=f" {key}\n")
        refused = (("inspections", key), ("events", key), ("models", None), ("models", "fg_wrong"))
        for call, wrong in refused:
            with pytest.raises(package.AccessError):
                ask(url, call, key=wrong)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_of_somebody_else(ask: Ask, serve_http: Serve, status: int) -> None:
    other = FastAPI(openapi_url=None)

    @other.get("/{path:path}")
    async def page(path: str) -> HTMLResponse:
        return HTMLResponse(f"<html>{path}</html>", status)

    files = [(name, "x") for name in ("reviews", "overlay", "heatmap", "source", "score_map")]
    with serve_http(other) as url:
        for call in (("models",), ("events",), *files):
            with pytest.raises(package.UnexpectedAnswerError, match="no answer of FlowGauge") as caught:
                ask(url, *call)
            assert caught.value.status == status
