"""The pages of models: what each role is shown, and what is said where something is wrong."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.registry.calibrations import CalibrationFiles
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.manifest import Precision
from tests.app.conftest import Keyed, keyed_service
from tests.app.history.rows import add, row
from tests.app.support.bundles import copy_version
from tests.app.support.calibrations import good_images, post_calibration
from tests.app.support.pages import get_page, read_page
from tests.flows.fastflow.manifests import edit
from tests.support.waiting import eventually

HTML = {"Accept": "text/html"}
SERVES = '<span class="tag">in service</span>'


@pytest.fixture
def served(store: Path, tmp_path: Path) -> Iterator[Keyed]:
    with keyed_service(store, tmp_path / "history") as keyed:
        # What a test damages was good when it was loaded; else the pages say that it was refused.
        eventually(lambda: keyed.client.get("/health/ready").is_success)
        yield keyed


def text(keyed: Keyed, path: str, role: str = "admin") -> str:
    return unescape(read_page(keyed, path, role))


def calibrate(keyed: Keyed, **query: str) -> None:
    made = post_calibration(keyed.client, good_images(12), headers=keyed.show("admin"), **query)
    assert made.status_code == 201, made.text


def test_the_list_shows_every_category(served: Keyed, store: Path) -> None:
    active = models_folder.active_version(store, "tiny")
    shown = text(served, "/products", "viewer")
    assert '<a href="/models/tiny">tiny</a>' in shown
    assert str(active) in shown
    assert "0 parts so far:" in shown
    assert "Parts so far" not in text(served, "/products", "line")  # drift is of the history


def test_an_empty_models_folder_is_no_error(keyed: Keyed) -> None:
    assert "There is no product yet" in text(keyed, "/products")


@pytest.mark.one_server("changes the models folder by hand")
@pytest.mark.parametrize(
    ("role", "slider", "saves", "activates"),
    [
        ("line", 0, 0, 0),
        ("viewer", 1, 0, 0),
        ("inspector", 1, 0, 0),
        ("operator", 1, 1, 0),
        ("admin", 1, 1, 1),
    ],
)
def test_a_page_offers_what_the_role_may_do(
    served: Keyed, store: Path, role: str, slider: int, saves: int, activates: int
) -> None:
    copy_version(store, "20990101T000000-abcdef")
    shown = text(served, "/models/tiny", role)
    assert shown.count('id="threshold-slider"') == slider
    assert shown.count('id="threshold-form"') == shown.count('id="region-form"') == saves
    assert shown.count('id="learning"') == slider
    assert shown.count('id="learning-start"') == saves
    assert shown.count("data-activate=") == shown.count('id="learning-activate"') == activates
    assert shown.count("data-delete=") == shown.count("/admin?category=tiny#upload") == activates


def test_calibrations_of_stations_are_told_apart(served: Keyed) -> None:
    calibrate(served, station="line-3")
    shown = text(served, "/models/tiny")
    assert "<strong>line-3</strong>: 12 good parts" in shown
    assert "<q>new lamp</q>" in shown
    assert 'id="threshold-station"' in shown


def test_a_stations_damaged_calibration_does_not_hide_the_others(served: Keyed, store: Path) -> None:
    for station in ("line-3", "line-5"):
        calibrate(served, station=station)
    folder = models_folder.calibrations_folder(models_folder.resolve(store, "tiny"))
    files = {json.loads(file.read_text())["station"]: file for file in folder.iterdir()}
    files["line-3"].write_text("{")
    assert "<strong>line-3</strong>" in text(served, "/models/tiny")  # as before, what is known is in force
    served.app.state.store.calibrations = CalibrationFiles(store)  # as after a start
    shown = text(served, "/models/tiny")
    assert "<strong>line-5</strong>: 12 good parts" in shown
    assert "<strong>All other stations</strong>" in shown
    assert "<strong>line-3</strong>" not in shown
    assert 'id="threshold-slider"' in shown


@pytest.mark.parametrize(
    ("precision", "shown"), [("float32", "111.00"), ("bfloat16", "222.00"), ("openvino-bfloat16", "111.00")]
)
def test_versions_show_thresholds_of_the_serving_engine(
    store: Path, tmp_path: Path, precision: Precision, shown: str
) -> None:
    def calibrate(document: dict[str, Any]) -> None:
        record = document["thresholds"]["float32"]
        document["reduced"] = {"bfloat16": document["calibration"]}
        document["thresholds"] = {"bfloat16": {**record, "reject": 222}, "float32": {**record, "reject": 111}}

    edit(copy_version(store, "20990101T000000-abcdef"), calibrate)
    settings = Settings(models=store, history=tmp_path / "history", precision=precision)
    with TestClient(create_app(settings)) as client:
        listed = client.get("/models/tiny", headers=HTML).text
    made = re.findall(r'data-label="Threshold at creation" class="number">([^<]*)<', listed)
    assert made[0] == shown  # the newest comes first


def test_a_damaged_version_is_said_to_be_one(served: Keyed, store: Path) -> None:
    folder = models_folder.resolve(store, "tiny")
    (folder / bundle.MANIFEST).write_text("{}")
    assert "cannot be read" in text(served, "/products")
    assert "cannot be read" in text(served, "/models/tiny")
    assert "cannot be read" in text(served, f"/models/tiny/versions/{folder.name}")


@pytest.fixture
def bad(store: Path) -> str:
    """The active version, of which a file is damaged; the one before it is good."""
    folder = copy_version(store, "20990101T000000-abcdef")
    (folder / bundle.FLOW).write_bytes(b"{")
    models_folder.activate(store, "tiny", folder.name)
    return folder.name


def rows(shown: str) -> dict[str, str]:
    """The rows of the table of versions, by version."""
    return dict(re.findall(r'<th scope="row"><a href="[\w/]*/([^"/]*)">(.*?)</tr>', shown, re.DOTALL))


@pytest.mark.one_server("changes the models folder by hand")
def test_refused_version_and_its_substitute_are_named(store: Path, tmp_path: Path, bad: str) -> None:
    (first,) = (name for name in models_folder.versions(store, "tiny") if name != bad)
    models_folder.activate(store, "tiny", first)
    with keyed_service(store, tmp_path / "history") as keyed:
        text(keyed, "/models/tiny")
        models_folder.activate(store, "tiny", bad)
        eventually(lambda: "was refused" in text(keyed, "/models/tiny"))
        said = f"Version {bad} is active, but was refused. Version {first} is in service instead.<br>"
        for path in ("/models/tiny", "/products", f"/models/tiny/versions/{bad}"):
            assert said in text(keyed, path)
        assert f"<dd>{bad}" not in text(keyed, "/products")
        assert SERVES in text(keyed, f"/models/tiny/versions/{first}")
        assert SERVES not in text(keyed, f"/models/tiny/versions/{bad}")
        shown = text(keyed, "/models/tiny")
    assert f'<dt>In service</dt><dd class="wrap-anywhere"><a href="/models/tiny/versions/{first}">' in shown
    for tells in (SERVES, "scores are correct"):
        assert [tells in rows(shown)[name] for name in (first, bad)] == [True, False]
    assert "data-activate" not in rows(shown)[bad]


@pytest.mark.one_server("changes the models folder by hand")
def test_an_active_version_that_is_not_loaded_yet(
    store: Path, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    first = models_folder.resolve(store, "tiny").name
    with keyed_service(store, tmp_path / "history") as keyed:

        def used() -> object:
            headers = {**keyed.show("line"), "Content-Type": "image/png"}
            image = tiny_images["good"][0]
            answer = keyed.client.post("/v1/models/tiny/predict", content=image, headers=headers)
            return answer.json()["model"]["version"]

        assert used() == first
        new = copy_version(store, "20990101T000000-abcdef").name
        models_folder.activate(store, "tiny", new)
        said = f"Version {new} is active, but not loaded yet. Until then {first} is in service."
        for path in ("/products", f"/models/tiny/versions/{new}"):
            assert said in text(keyed, path)
        assert SERVES in text(keyed, f"/models/tiny/versions/{first}")
        eventually(lambda: used() == new)
        for path in ("/products", "/models/tiny", f"/models/tiny/versions/{new}"):
            assert "not loaded yet" not in text(keyed, path)


@pytest.mark.one_server("changes the models folder by hand")
def test_a_category_without_an_active_version(served: Keyed, store: Path) -> None:
    (store / "tiny" / models_folder.ACTIVE).unlink()
    assert "No version is active" in text(served, "/products")
    shown = text(served, "/models/tiny")
    assert "has no active version" in shown
    assert 'id="threshold-slider"' not in shown


@pytest.mark.one_server("changes the models folder by hand")
def test_missing_active_version_and_its_substitute_are_named(served: Keyed, store: Path) -> None:
    first = models_folder.resolve(store, "tiny").name
    (store / "tiny" / models_folder.ACTIVE).write_text(f"gone\n{first}")
    gone = "Version gone is active, but missing in the models folder"
    for path in ("/models/tiny", "/products"):
        shown = text(served, path)
        assert f"{gone}. Version {first} is in service instead." in shown
        assert "No version is active" not in shown


@pytest.mark.parametrize("path", ["/models/other", "/models/tiny/versions/none", "/models/UPPER"])
def test_what_is_not_there_is_said_by_a_page(served: Keyed, path: str) -> None:
    response = get_page(served, path, "admin")
    assert response.status_code == 404
    assert "Model not found" in response.text
    assert response.headers["content-type"].startswith("text/html")


def test_training_set_is_offered_after_a_good_review(served: Keyed) -> None:
    [identifier] = add(served.database, row())
    assert "/training-set" not in text(served, "/models/tiny")
    review = {"verdict": "good", "expected_revision": 0}
    served.client.post(f"/v1/inspections/{identifier}/reviews", json=review, headers=served.show("inspector"))
    assert 'href="/v1/models/tiny/training-set"' in text(served, "/models/tiny", "inspector")
    assert "/training-set" not in text(served, "/models/tiny", "viewer")


@pytest.mark.usefixtures("no_lanes")
def test_version_leads_to_its_evaluation(served: Keyed, store: Path) -> None:
    version = models_folder.active_version(store, "tiny")
    jobs = served.app.state.jobs
    job = replace(jobs.store.add("evaluate", "tiny", {}, "somebody"), state="succeeded")
    jobs.store.change(job, "queued")
    folder = jobs.folders.report(job) / "tiny" / str(version)
    address = f'href="/v1/jobs/{job.id}/report"'
    assert address not in text(served, f"/models/tiny/versions/{version}", "viewer")
    folder.mkdir(parents=True)
    (folder / "report.html").touch()
    assert address in text(served, f"/models/tiny/versions/{version}", "viewer")
    assert address not in text(served, f"/models/tiny/versions/{version}", "line")
