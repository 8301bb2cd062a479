"""The dashboard deploy/grafana/flowgauge.json."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.support.metrics import METRIC, exposed_series

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "flowgauge.json"


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


def test_queried_metrics_exist(tmp_path: Path) -> None:
    queried = {name for query in queries(json.loads(DASHBOARD.read_text())) for name in METRIC.findall(query)}
    assert len(queried) > 20
    assert queried - exposed_series(tmp_path) == set()
