from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.schemas.predict import Inspection, ModelUsed, Timing
from app.telemetry import Telemetry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(telemetry: Telemetry) -> Samples:
    """What a scrape says: values by name and labels."""
    text = generate_latest(telemetry.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return samples(telemetry).get((f"flowgauge_{name}", frozenset(labels.items())))


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("1.2.3")


def inspection(category: str, decision: str, score: float, p_value: float) -> Inspection:
    """An answer, as far as it is counted."""
    fields: dict[str, Any] = dict.fromkeys(Inspection.model_fields)
    fields |= {
        "model": ModelUsed(category=category, version="v1", sha256="0" * 64),
        "decision": decision,
        "score": score,
        "p_value": p_value,
        "timing_ms": Timing(decode=1, queue=2, infer=600, render=3, total=700),
    }
    return Inspection.model_construct(**fields)


def test_counts_requests_by_template_method_and_status(telemetry: Telemetry) -> None:
    for _ in range(3):
        telemetry.request_ended("/v1/models/{category}", "GET", 200, 0.02, None)
    telemetry.request_ended("/v1/models/{category}", "GET", 404, 0.001, "unknown-model")
    route = "/v1/models/{category}"
    assert value(telemetry, "requests_total", route=route, method="GET", status="200") == 3
    assert value(telemetry, "requests_total", route=route, method="GET", status="404") == 1
    assert value(telemetry, "request_seconds_count", route=route) == 4
    assert value(telemetry, "request_seconds_bucket", route=route, le="0.01") == 1
    assert value(telemetry, "problems_total", type="unknown-model") == 1


def test_counts_decisions_scores_and_times(telemetry: Telemetry) -> None:
    telemetry.decided(inspection("bottle", "PASS", 2.2, 0.4))
    telemetry.decided(inspection("bottle", "REJECT", 7.5, 0.004))
    telemetry.decided(inspection("grid", "PASS", 2.2, 0.9))
    assert value(telemetry, "decisions_total", category="bottle", decision="REJECT") == 1
    assert value(telemetry, "decisions_total", category="grid", decision="PASS") == 1
    assert value(telemetry, "score_bucket", category="bottle", le="2.5") == 1
    assert value(telemetry, "score_sum", category="bottle") == pytest.approx(9.7)
    assert value(telemetry, "p_value_bucket", category="bottle", le="0.005") == 1
    assert value(telemetry, "stage_seconds_sum", stage="infer") == pytest.approx(1.8)
    assert value(telemetry, "stage_seconds_count", stage="total") == 3


def test_counts_batches(telemetry: Telemetry) -> None:
    telemetry.batch_done(4, 0.03, ["bottle", "grid", "grid", "bottle"])
    telemetry.batch_done(1, 0.01, ["bottle"])
    assert value(telemetry, "batch_images_sum") == 5
    assert value(telemetry, "batch_images_count") == 2
    assert value(telemetry, "batch_categories_sum") == 3
    assert value(telemetry, "batch_seconds_sum") == pytest.approx(0.04)
