"""`flowgauge doctor --url`, against real servers."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from typer.testing import CliRunner

import flowgauge
from app.commands.doctor_server import check_server
from app.main import create_app
from app.schemas.access import Role
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.client.conftest import make_key
from tests.support.certificates import make_certificate, serving_tls

Serve = Callable[[FastAPI], AbstractContextManager[str]]


def findings(url: str, key: str | None = None, ca: Path | None = None) -> dict[str, tuple[str, str]]:
    """State and words of every check, by name."""
    return {check.name: (check.state, check.said) for check in check_server(url, key, ca)}


@pytest.fixture
def settings(store: Path, tmp_path: Path) -> Settings:
    # Loaded when first asked for: ready from the start.
    return Settings(models=store, history=tmp_path / "history", preload=False)


@pytest.fixture(scope="module")
def guarded(
    tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory, serve_http: Serve
) -> Iterator[tuple[str, str, str]]:
    """URL, an admin's and a viewer's key of a server with the tiny model, which tests leave as it is."""
    history = tmp_path_factory.mktemp("guarded") / "history"
    settings = Settings(models=tiny_bundle_store, history=history, preload=False)
    admin, viewer = make_key(settings, Role.ADMIN), make_key(settings, Role.VIEWER, categories=["tiny"])
    with serve_http(create_app(settings)) as url:
        yield url, admin, viewer


def test_all_is_well(guarded: tuple[str, str, str], tiny_bundle_store: Path) -> None:
    found = findings(*guarded[:2])
    assert {state for state, _ in found.values()} == {"ok"}, found
    assert list(found) == ["network", "version", "ready", "key", "model tiny"]
    assert found["key"][1].endswith("role admin")
    assert models_folder.resolve(tiny_bundle_store, "tiny").name in found["model tiny"][1]


def test_the_command_says_it_and_fails_on_problems(guarded: tuple[str, str, str]) -> None:
    def run(*options: str, code: int) -> str:
        result = CliRunner().invoke(flowgauge.app, ["doctor", *options])
        assert result.exit_code == code, result.output
        return result.stdout

    url, key, _ = guarded
    said = " ".join(run("--url", url, "--key", key, code=0).split())
    assert "ok model tiny: " in said
    assert key not in said
    assert "--key or FLOWGAUGE_KEY gives one." in run("--url", url, code=1)
    checks = json.loads(run("--url", url, "--json", code=1))
    assert {"name": "ready", "state": "ok", "said": "every active model is loaded"} in checks


def test_a_server_without_keys_is_noted(settings: Settings, serve_http: Serve) -> None:
    with serve_http(create_app(settings)) as url:
        found = findings(url)
    assert found["key"] == (
        "note",
        "the server has no keys: everybody who reaches it may do everything; see flowgauge keys create",
    )
    assert found["model tiny"][0] == "ok"


def test_a_wrong_key_is_a_problem(guarded: tuple[str, str, str]) -> None:
    url, key, _ = guarded
    said = "There is no such key. --key or FLOWGAUGE_KEY gives one."
    assert findings(url, f"{key[:-43]}{'x' * 43}")["key"] == ("problem", said)
    assert findings(url, "fg_\n\u00e4")["key"][0] == "problem"


def test_a_key_that_may_not_predict(guarded: tuple[str, str, str]) -> None:
    url, _, viewer = guarded
    found = findings(url, viewer)
    assert found["key"][1].endswith("role viewer, only for tiny")
    assert found["model tiny"][0] == "note"
    assert "not tried" in found["model tiny"][1]


def test_a_damaged_model_is_a_problem(settings: Settings, serve_http: Serve) -> None:
    (models_folder.resolve(settings.models, "tiny") / bundle.FLOW).write_bytes(b"damaged")
    with serve_http(create_app(settings.model_copy(update={"preload": True}))) as url:
        found = findings(url)
    assert found["ready"][0] == "problem"
    assert found["model tiny"][0] == "problem"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = findings(f"http://127.0.0.1:{port}")
    assert list(found) == ["service"]
    assert "that the server runs" in found["service"][1]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1"])
def test_what_is_no_address(url: str) -> None:
    found = findings(url)
    assert list(found) == ["url"]
    assert found["url"][0] == "problem"


def test_something_else_that_answers(serve_http: Serve) -> None:
    other = FastAPI(openapi_url=None)

    @other.get("/{path:path}")
    async def page(path: str) -> HTMLResponse:
        return HTMLResponse(f"<h1>{path}</h1>")

    with serve_http(other) as url:
        found = findings(url)
    assert list(found) == ["network", "service"]
    assert found["service"][0] == "problem"
    assert found["service"][1].endswith("status 200, and no answer of FlowGauge")


def test_tls(settings: Settings, tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "IP:127.0.0.1")
    with serving_tls(create_app(settings), made) as url:
        found = findings(url, ca=made.certificate)
        assert found["tls"][0] == "ok"
        assert found["tls"][1].startswith("TLSv1.3, the certificate is valid for 89 more days")
        assert found["ready"][0] == "ok"

        for wrong, why in (
            (findings(url), "self-signed certificate"),
            (findings(url.replace("127.0.0.1", "localhost"), ca=made.certificate), "Hostname mismatch"),
        ):
            assert list(wrong) == ["service"]
            assert "cannot be verified" in wrong["service"][1]
            assert why in wrong["service"][1]
        assert findings(f"http{url.removeprefix('https')}")["service"][0] == "problem"
