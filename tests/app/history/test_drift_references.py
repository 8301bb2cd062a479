import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.database.clock import first_id
from app.database.engine import Database
from app.history.drift_references import DriftReferences, load_latest_inspections
from app.main import create_app
from app.registry.calibrations import CalibrationFiles
from app.registry.category_settings import SETTINGS, SettingsFiles
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.manifest import Precision
from tests.app.history.rows import add, row
from tests.app.support.bundles import copy_version
from tests.app.support.calibrations import make_calibration, target_of

AREA = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [60, 0], [60, 60], [0, 60]]]}

AT = 1_790_000_000_000

MakeReferences = Callable[..., DriftReferences]


@pytest.fixture
def make_references(store: Path) -> MakeReferences:
    """Create references with an empty cache."""

    def make(precision: Precision = "float32") -> DriftReferences:
        settings = SettingsFiles(store).get
        return DriftReferences(store, settings, precision, lambda _: None, CalibrationFiles(store))

    return make


@pytest.fixture
def references(make_references: MakeReferences) -> DriftReferences:
    return make_references()


def test_reference_is_of_the_active_version(references: DriftReferences, store: Path) -> None:
    reference = references("tiny")
    assert reference is not None
    assert reference.version == models_folder.active_version(store, "tiny")
    assert len(reference.samples) == 5
    assert references("tiny") is reference
    copy_version(store, "20990101T000000-abcdef")
    assert references("tiny") is reference
    models_folder.activate(store, "tiny", "20990101T000000-abcdef")
    other = references("tiny")
    assert other is not None
    assert other.version == "20990101T000000-abcdef"
    assert not other.same(reference)


def test_reference_has_the_time_of_the_last_change(make_references: MakeReferences, store: Path) -> None:

    def since() -> int:
        reference = make_references()("tiny")
        assert reference is not None
        return reference.since_ms

    folder = models_folder.resolve(store, "tiny")
    slot = target_of(folder)
    settings, pointer = store / "tiny" / SETTINGS, store / "tiny" / models_folder.ACTIVE
    settings.write_text(json.dumps({"revision": 1, "rates_revision": 1}))
    CalibrationFiles(store).change(slot, lambda _: make_calibration(slot, [5.0]))
    renewals = models_folder.calibrations_folder(folder)
    files = (settings, pointer, renewals)
    for path in files:
        os.utime(path, (1000, 1000))
    assert since() == 1_000_000
    for path, at in zip(files, (2000, 3000, 4000), strict=True):
        os.utime(path, (at, at))
        assert since() == 1000 * at
    os.utime(pointer, (2**34, 2**34))
    assert since() <= 1000 * time.time()


def test_new_calibration_is_the_reference_of_its_station(references: DriftReferences, store: Path) -> None:
    line = target_of(models_folder.resolve(store, "tiny"))
    third = replace(line, station="line-3")
    before = references("tiny")
    assert before is not None
    assert references("tiny", "line-3") is before
    files = CalibrationFiles(store)
    files.change(third, lambda _: make_calibration(third, [3.0, 4.0]))
    assert references("tiny") is before
    own = references("tiny", "line-3")
    assert own is not None
    assert (own.station, own.samples["score"].tolist()) == ("line-3", [3.0, 4.0])
    assert not own.same(before)
    assert own.since_ms >= before.since_ms
    files.change(line, lambda _: make_calibration(line, [5.0]))
    after = references("tiny")
    assert after is not None
    assert (after.station, after.samples["score"].tolist()) == (None, [5.0])
    assert not after.same(before)
    assert references("tiny", "line-4") is after
    again = references("tiny", "line-3")
    assert again is own
    files.change(third, lambda _: None)
    assert references("tiny", "line-3") is after


@pytest.mark.parametrize("broken", ["manifest", "settings"])
def test_unreadable_files_are_logged_once(
    make_references: MakeReferences, store: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = models_folder.resolve(store, "tiny") / bundle.MANIFEST
    if broken == "settings":
        file = store / "tiny" / SETTINGS
        file.write_text("{}")
    text, references = file.read_text(), make_references()
    for _ in range(2):
        file.write_text("broken")
        with caplog.at_level(logging.WARNING, "flowgauge.drift"):
            assert [references("tiny") for _ in range(3)] == [None] * 3
        assert [line.name for line in caplog.records].count("flowgauge.drift") == 1
        caplog.clear()
        file.write_text(text)
        assert references("tiny") is not None
        references = make_references()


def test_window_continues_after_restart(
    store: Path, tmp_path: Path, tiny_images: dict[str, list[bytes]]
) -> None:
    settings = Settings(models=store, history=tmp_path / "history", drift_window=20)
    for path in (store / "tiny").rglob("*"):  # as long ago as in a plant
        os.utime(path, (1000, 1000))

    def window(client: TestClient) -> int:
        inspections: int = client.get("/v1/models/tiny/drift").json()["inspections"]
        return inspections

    with TestClient(create_app(settings)) as client:
        for data in tiny_images["good"][:3]:
            answer = client.post(
                "/v1/models/tiny/predict", content=data, headers={"Content-Type": "image/png"}
            )
            assert answer.status_code == 200
    with TestClient(create_app(settings)) as client:
        # Monitoring hears of a category before anything is inspected.
        assert 'flowgauge_drift_alarm{category="tiny",station=""} 0.0' in client.get("/metrics").text
        assert window(client) == 3
        assert client.put("/v1/models/tiny/region", json=AREA).status_code == 200
    with TestClient(create_app(settings)) as client:
        assert window(client) == 0


class TestLatest:
    @staticmethod
    def ids(
        database: Database, limit: int, station: str | None = None, *without: str, since_ms: int = 0
    ) -> list[str]:
        return [
            one["id"]
            for one in load_latest_inspections(database, "tiny", limit, station, without, first_id(since_ms))
        ]

    def test_latest_inspections_are_ordered_by_time(self, database: Database) -> None:
        stations = ("a", "b", None, "b", "a")
        ids = add(database, *(row(AT + i, station=name) for i, name in enumerate(stations)))
        add(database, row(AT + 9, category="other"))
        assert self.ids(database, 3) == ids[2:]
        assert self.ids(database, 3, "a") == [ids[0], ids[4]]
        assert self.ids(database, 1, "a") == ids[4:]
        assert self.ids(database, 2, None, "a") == [ids[2], ids[3]]
        assert self.ids(database, 9, None, "a", "b") == [ids[2]]

    def test_excluded_stations_are_skipped_among_the_latest(self, database: Database) -> None:
        """If every station has its own calibration, nothing is found within the limit."""
        elsewhere = add(database, *(row(AT + i, station="b") for i in range(2)))
        add(database, *(row(AT + 2 + i, station="a") for i in range(39)))
        assert self.ids(database, 2, None, "a") == elsewhere[1:]  # within 2 * 20
        assert self.ids(database, 1, None, "a") == []
        assert self.ids(database, 3, None, "a") == elsewhere
        assert self.ids(database, 2, "b") == elsewhere
