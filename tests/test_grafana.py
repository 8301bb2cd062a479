"""deploy/grafana/flowgauge.json: every metric that it asks for is one that the service has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "flowgauge.json"
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}
NAME = re.compile(r"\b((?:flowgauge|process)_[a-z0-9_]+)\b")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of series as Prometheus stores them."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "models").mkdir()
    settings = Settings(models=folder / "models", history=folder / "history")
    with TestClient(create_app(settings)) as client:
        text = client.get("/metrics").text
    names = set()
    for family in text_string_to_metric_families(text):
        # The info is exposed as a gauge of its full name.
        names |= {family.name + suffix for suffix in SUFFIXES[family.type]}
    return names


def queries(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from queries(value)


def test_every_metric_in_it_exists(dashboard: dict[str, Any], exposed: set[str]) -> None:
    asked = {name for query in queries(dashboard) for name in NAME.findall(query)}
    assert len(asked) > 20
    assert asked - exposed == set()
