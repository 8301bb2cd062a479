"""docs/how-to/connect-clients.md against the client and the service."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app import client as package
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import serve_http as serve_http  # the fixtures
from tests.app.conftest import service as service
from tests.docs.json_shape import shape

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "connect-clients.md").read_text()


def test_python_example_runs(
    tiny_bundle_store: Path,
    tiny_images: dict[str, list[bytes]],
    serve_http: Callable[[FastAPI], AbstractContextManager[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("part.png").write_bytes(tiny_images["defect"][0])
    with serve_http(create_app(Settings(models=tiny_bundle_store, history=tmp_path / "h"))) as url:
        for old, new in (
            ("flowgauge_client", "app.client"),
            ("http://127.0.0.1:8000", url),
            ('"bottle"', '"tiny"'),
        ):
            assert old in code
            code = code.replace(old, new)
        exec(code, {})  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("REJECT ")
    assert lines[1] == "REJECT"


def test_answer_has_the_fields_of_the_service(
    service: TestClient, tiny_images: dict[str, list[bytes]]
) -> None:
    [text] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    path = "/v1/models/tiny/predict?part_id=P-000124&station=line-3"
    answer = service.post(path, files={"file": tiny_images["defect"][0]}).json()
    assert shape(json.loads(text)) == shape(answer)


def test_table_lists_every_call() -> None:
    table = PAGE[PAGE.index("| call | returns |") : PAGE.index("`inspect` takes")]
    calls = set(re.findall(r"`(\w+)\(", table))
    methods = {name for name in dir(package.Client) if not name.startswith("_")}
    assert calls == methods - {"send", "close"}


def test_page_lists_the_options_of_inspect() -> None:
    sentence = PAGE[PAGE.index("`inspect` takes") : PAGE.index("`AsyncClient`")]
    assert set(re.findall(r"`(\w+)`", sentence)) - {"inspect"} == set(package.InspectOptions.__annotations__)


def test_error_tree_matches_the_classes() -> None:
    block = PAGE[PAGE.index("```text\nFlowGaugeError") :].split("```")[1]
    parents: list[type] = []
    for line in block.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 4
        found = getattr(package, line.split()[0])
        assert depth == 0 or found.__base__ is parents[depth - 1]
        parents[depth:] = [found]
    assert len(parents) > 1
