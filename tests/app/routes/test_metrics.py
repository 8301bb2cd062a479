import errno
import os
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

PNG = {"Content-Type": "image/png"}


def scrape(client: TestClient) -> dict[str, float]:
    """What monitoring reads: values by what stands before them on the line."""
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return {
        f"{sample.name}{dict(sorted(sample.labels.items())) or ''}": sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.mark.one_server("metrics are of one server")
def test_inspections_are_counted(client: TestClient, tiny_images: dict[str, list[bytes]]) -> None:
    pictures = (*tiny_images["good"][:2], *tiny_images["defect"][:2])
    answers = [client.post("/v1/models/tiny/predict", content=data, headers=PNG).json() for data in pictures]
    said = scrape(client)
    for decision, count in Counter(answer["decision"] for answer in answers).items():
        labels = {"category": "tiny", "decision": decision}
        assert said[f"flowgauge_decisions_total{labels}"] == count
    for name in ("score", "p_value"):
        total = sum(answer[name] for answer in answers)
        assert said[f"flowgauge_{name}_sum{{'category': 'tiny'}}"] == pytest.approx(total)
        assert said[f"flowgauge_{name}_count{{'category': 'tiny'}}"] == 4
    for stage in ("infer", "total"):
        total = sum(answer["timing_ms"][stage] for answer in answers) / 1000
        assert said[f"flowgauge_stage_seconds_sum{{'stage': '{stage}'}}"] == pytest.approx(total)
    assert said["flowgauge_batch_seconds_count"] == said["flowgauge_batch_categories_sum"] == 4
    assert said["flowgauge_batch_images_sum"] == said["flowgauge_backbone_passes_total"] == 4
    route = {"method": "POST", "route": "/v1/models/{category}/predict", "status": "200"}
    assert said[f"flowgauge_requests_total{route}"] == 4
    assert said["flowgauge_model_loads_total{'outcome': 'loaded'}"] == 1
    assert said["flowgauge_loaded_bytes"] > 0
    assert said["flowgauge_held_images"] == said["flowgauge_held_bytes"] == 0
    assert said["flowgauge_pending_images"] == said["flowgauge_history_failing"] == 0
    assert said["flowgauge_telemetry_failures_total"] == 0
    assert said["flowgauge_info{'version': '0.1.0'}"] == 1


@pytest.mark.one_server("metrics are of one server")
def test_full_disk_is_reported_until_a_write_succeeds(
    client: TestClient, tiny_images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room, but the disk is read-only, say, or a quota is used up."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def predict() -> int:
        picture = tiny_images["good"][0]
        return client.post("/v1/models/tiny/predict", content=picture, headers=PNG).status_code

    with monkeypatch.context() as patch:
        patch.setattr("app.history.journal._write", refuse)
        assert predict() == 503
        assert scrape(client)["flowgauge_history_accepting"] == 0
    assert scrape(client)["flowgauge_history_accepting"] == 0
    assert predict() == 200
    assert scrape(client)["flowgauge_history_accepting"] == 1


@pytest.mark.one_server("metrics are of one server")
def test_refusals_are_counted_by_reason(client: TestClient) -> None:
    client.post("/v1/models/tiny/predict", content=b"no image", headers=PNG)
    for i in range(5):
        client.post(f"/v1/models/unheard-of-{i}/predict", content=b"no image", headers=PNG)
    said = scrape(client)
    assert said["flowgauge_problems_total{'type': 'unsupported-media-type'}"] == 1
    assert said["flowgauge_problems_total{'type': 'unknown-model'}"] == 5
    assert said["flowgauge_problems_total{'type': 'queue-full'}"] == 0
    assert not [name for name in said if "unheard-of" in name]


@pytest.mark.one_server("metrics are of one server")
def test_what_clients_ask_for_adds_no_series(client: TestClient, tiny_images: dict[str, list[bytes]]) -> None:
    # The model is loaded in the background, and has a series of its own once it is.
    assert client.post("/v1/models/tiny/predict", content=tiny_images["good"][0], headers=PNG).is_success
    for path in ("/nothing", "/v1/models/x"):
        client.get(path)
    before = set(scrape(client))
    for i in range(20):
        client.get(f"/nothing/{i}")
        client.get(f"/v1/models/category-{i}")
        client.request(f"BREW{i}", "/nothing")
    added = set(scrape(client)) - before
    assert {name for name in added if "/metrics" not in name} == {
        "flowgauge_requests_total{'method': 'other', 'route': 'none', 'status': '404'}"
    }


def test_a_part_that_fails_leaves_the_others_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = client.app

    def fail() -> None:
        raise RuntimeError("the part is gone")

    monkeypatch.setattr(app.state.drift, "states", fail)
    said = scrape(client)
    assert said["flowgauge_telemetry_failures_total"] == 1
    assert said["flowgauge_event_readers"] == 0
    assert not [name for name in said if name.startswith("flowgauge_drift")]
