"""Names of the series that a service exposes to Prometheus."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

METRIC = re.compile(r"\b((?:flowgauge|process)_[a-z0-9_]+)\b")
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}


def exposed_series(folder: Path) -> set[str]:
    """Names of series as Prometheus stores them, of a new service in a folder."""
    (folder / "models").mkdir()
    settings = Settings(models=folder / "models", history=folder / "history")
    with TestClient(create_app(settings)) as client:
        text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    # The info is exposed as a gauge of its full name.
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}
