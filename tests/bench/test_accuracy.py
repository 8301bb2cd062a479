"""The bench of accuracy tabulates what the summaries of evaluations say."""

from typing import Any

from bench.accuracy import FIGURES, _rows
from training.summary import METRICS


def summary(value: float | None) -> dict[str, Any]:
    return dict.fromkeys(METRICS, value)


def test_every_figure_is_one_that_a_summary_has() -> None:
    assert set(FIGURES) <= set(METRICS)


def test_a_line_for_each_figure_of_each_model() -> None:
    peer = {"model": "PaDiM", **summary(0.25)}
    found = {"bottle": [{**summary(0.5), "comparison": [peer]}, summary(1.0)], "cell": [summary(None)]}
    rows = _rows("lite", found)
    assert "| lite, FlowGauge | AUPIMO | 0.7500 ± 0.2500 | - | 0.7500 |" in rows
    assert "| lite, FlowGauge | pixel AP | 0.7500 ± 0.2500 | - | 0.7500 |" in rows
    assert "| lite, PaDiM | AUPIMO | 0.2500 | - | 0.2500 |" in rows
    assert len(rows) == 2 * len(FIGURES)
