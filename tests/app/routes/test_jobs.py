"""Jobs over REST: roles, categories, strict settings, the event stream, and the audit log."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.jobs import runner
from app.jobs.runner import JobRunner
from app.schemas.products import NewProduct
from tests.app.conftest import Keyed
from tests.app.jobs.conftest import Script
from tests.app.support.services import list_actions, refusal_detail
from tests.support.waiting import eventually

TRAIN = {"kind": "train", "product": "tiny", "settings": {"epochs": 2}}


@pytest.fixture(autouse=True)
def script(keyed: Keyed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Let jobs run a script that waits for the file `go`."""
    monkeypatch.setattr(runner, "_PAUSE_SECONDS", 0.01)
    for name in ("tiny", "grid"):
        keyed.app.state.products.create(NewProduct(name=name))
    script = Script(
        tmp_path, "tell('line', text='hello'); wait(); tell('result', version='v1', bundle='/tmp/x')"
    )
    jobs: JobRunner = keyed.app.state.jobs
    checked = jobs._commands
    script.complete_settings = checked.complete_settings  # type: ignore[method-assign]
    script.read_dataset = checked.read_dataset  # type: ignore[method-assign]
    jobs._commands = script
    return script


@pytest.fixture
def start(keyed: Keyed) -> Callable[..., dict[str, Any]]:
    def start(role: str = "operator", **changes: Any) -> dict[str, Any]:
        response = keyed.client.post("/v1/jobs", json=TRAIN | changes, headers=keyed.show(role))
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
        return job

    return start


def read_events(client: TestClient, url: str, headers: dict[str, str]) -> Iterator[tuple[str, Any, str]]:
    response = client.get(url, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    for frame in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if line)
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"]), fields.get("id", "")


def test_job_is_started_followed_and_listed(
    keyed: Keyed, start: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job = start()
    assert (job["state"], job["product"], job["settings"]) == ("queued", "tiny", {"epochs": 2})
    assert job["threads"] is None
    assert job["actor"] == f"{keyed.key_id('operator')} the operator"
    other = start(kind="check", product="grid", settings={})
    (tmp_path / "go").touch()
    viewer, url = keyed.show("viewer"), f"/v1/jobs/{job['id']}"
    events = list(read_events(keyed.client, f"{url}/events", viewer))
    lines = [(data, identifier) for name, data, identifier in events if name == "lines"]
    assert lines == [({"lines": ["hello"]}, "6")]
    name, last, _ = events[-1]
    assert (name, last["state"], last["share"], last["result"]) == ("job", "succeeded", 1, {"version": "v1"})
    assert "could not be activated" in last["outcome"]
    assert last["threads"] >= 1
    again = list(read_events(keyed.client, f"{url}/events", viewer | {"Last-Event-ID": "6"}))
    assert [name for name, _, _ in again] == ["job"]
    assert keyed.client.get(url, headers=viewer).json() == last | {"lines": ["hello"]}
    page = keyed.client.get("/v1/jobs?limit=1", headers=viewer).json()
    assert [one["id"] for one in page["jobs"]] == [other["id"]]
    query = {"cursor": page["next_cursor"], "state": "succeeded", "product": "tiny"}
    page = keyed.client.get("/v1/jobs", params=query, headers=viewer).json()
    assert page == {"jobs": [last], "next_cursor": None}
    entries = list_actions(keyed.client, "job.start", keyed.show("admin"))
    assert entries[0]["detail"] == {"kind": "train", "settings": {"epochs": 2}, "job": job["id"]}


def test_job_is_cancelled_once(keyed: Keyed, start: Callable[..., dict[str, Any]]) -> None:
    url = f"/v1/jobs/{start()['id']}"
    viewer = keyed.show("viewer")
    eventually(lambda: keyed.client.get(url, headers=viewer).json()["lines"] == ["hello"])
    cancelled = keyed.client.post(f"{url}:cancel", headers=keyed.show("operator"))
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    again = keyed.client.post(f"{url}:cancel", headers=keyed.show("operator"))
    assert "The job is cancelled" in refusal_detail(again, 409, "conflict")
    done, refused = list_actions(keyed.client, "job.cancel", keyed.show("admin"))
    assert (done["outcome"], refused["outcome"]) == ("done", "refused")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"kind": "sell"}, "kind"),
        ({"settings": {"epochs": 0}}, "epochs"),
        ({"settings": {"epochs": "2 --device=cuda"}}, "epochs"),
        ({"settings": {"threads": 64}}, "threads"),
        ({"settings": {"target_fpr": 0.9}}, "target_fpr"),
        ({"settings": {"preset": "--help"}}, "preset"),
        ({"settings": {"preset": "none-such"}}, "is unknown; use one of"),
        ({"kind": "check", "settings": {"epochs": 2}}, "epochs"),
        ({"product": "../tiny"}, "product"),
        ({"data": "/etc"}, "data"),
    ],
)
def test_unknown_or_wrong_settings_are_refused(keyed: Keyed, body: dict[str, Any], names: str) -> None:
    response = keyed.client.post("/v1/jobs", json=TRAIN | body, headers=keyed.show("operator"))
    assert names in refusal_detail(response, 400, "invalid-request")


def test_jobs_of_a_deleted_product_are_cancelled(keyed: Keyed, start: Callable[..., dict[str, Any]]) -> None:
    jobs = start(), start(kind="check", settings={}), start(product="grid")
    headers = keyed.show("operator")
    assert keyed.client.delete("/v1/products/tiny", headers=headers).status_code == 204
    states = [keyed.client.get(f"/v1/jobs/{job['id']}", headers=headers).json()["state"] for job in jobs]
    assert (states[:2], states[2] in ("queued", "running")) == (["cancelled"] * 2, True)


def test_job_of_an_unknown_product_is_refused(keyed: Keyed) -> None:
    headers = keyed.show("operator")
    response = keyed.client.post("/v1/jobs", json=TRAIN | {"product": "bottel"}, headers=headers)
    refusal_detail(response, 404, "unknown-product")
    evaluation = {"kind": "evaluate", "product": "tiny", "settings": {"version": "v9"}}
    refusal_detail(keyed.client.post("/v1/jobs", json=evaluation, headers=headers), 404, "unknown-model")
    refusal_detail(keyed.client.get("/v1/jobs/none", headers=headers), 404, "unknown-job")


def test_limited_key_sees_and_starts_its_own(keyed: Keyed, start: Callable[..., dict[str, Any]]) -> None:
    own, other, headers = start(), start(product="grid"), keyed.show("limited")
    assert [one["id"] for one in keyed.client.get("/v1/jobs", headers=headers).json()["jobs"]] == [own["id"]]
    url = f"/v1/jobs/{other['id']}"
    refused = [
        keyed.client.get("/v1/jobs?product=grid", headers=headers),
        keyed.client.get(url, headers=headers),
        keyed.client.get(f"{url}/events", headers=headers),
        keyed.client.post(f"{url}:cancel", headers=headers),
        keyed.client.post("/v1/jobs", json=TRAIN | {"product": "grid"}, headers=headers),
    ]
    for response in refused:
        assert "not for category 'grid'" in refusal_detail(response, 403, "forbidden")


def test_report_of_an_evaluation_is_a_page_without_scripts(
    keyed: Keyed, start: Callable[..., dict[str, Any]]
) -> None:
    jobs: JobRunner = keyed.app.state.jobs
    job = start()
    url, viewer = f"/v1/jobs/{job['id']}/report", keyed.show("viewer")
    assert "evaluated no version" in refusal_detail(keyed.client.get(url, headers=viewer), 404, "not-found")
    folder = jobs.folders.report(jobs.get(job["id"])) / "tiny/v1"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<p>measured")
    response = keyed.client.get(url, headers=viewer)
    assert (response.status_code, response.text) == (200, "<p>measured")
    assert "sandbox" in response.headers["Content-Security-Policy"]
