"""Since when drift may compare: what the files tell, and what of it the audit log explains."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from app.calibrations import Slot
from app.category_settings import SETTINGS
from app.database import clock
from app.history.changes import CALIBRATION, REGION, THRESHOLDS, Act
from app.history.unchanged import unchanged_since
from flows.fastflow import bundle, models_folder

ACTIVE = 1_000_000  # when the active version was changed, in milliseconds


@pytest.fixture
def slot(store: Path) -> Slot:
    """Of a category whose folder nobody has written to since a version became active."""
    folder = models_folder.resolve(store, "tiny")
    manifest = bundle.read_manifest(folder)
    for path in (store / "tiny" / models_folder.ACTIVE, store / "tiny"):
        written(path, ACTIVE)
    return Slot(manifest, bundle.manifest_sha256(folder, manifest), "float32")


def written(path: Path, at_ms: int) -> None:
    os.utime(path, (at_ms / 1000, at_ms / 1000))


def settings(store: Path, at_ms: int) -> None:
    path = store / "tiny" / SETTINGS
    path.write_text(json.dumps({}))
    written(path, at_ms)
    written(path.parent, at_ms)


def done(action: str, at_ms: int, **detail: Any) -> Act:
    return Act(0, action, "done", at_ms, detail)


def since(store: Path, slot: Slot, revision: int = 0, *acts: Act, **other: Any) -> int:
    known = {"stations": [], "renewed": False, **other}
    return unchanged_since(store, slot, revision, acts[::-1], **known)


def test_without_settings_since_the_version_is_active(store: Path, slot: Slot) -> None:
    assert since(store, slot) == ACTIVE
    written(store / "tiny" / models_folder.ACTIVE, 2 * ACTIVE)
    assert since(store, slot) == 2 * ACTIVE


def test_another_version_that_comes_or_goes_changes_nothing(store: Path, slot: Slot) -> None:
    written(store / "tiny", 5_000_000)
    for action, outcome in (("model.upload", "refused"), ("model.delete", "done")):
        act = Act(0, action, outcome, 5_000_100, {})
        assert since(store, slot, 0, act) == ACTIVE
    assert since(store, slot, 0, Act(0, "model.delete", "done", 4_000_000, {})) == 5_000_000


def test_a_rate_changes_nothing(store: Path, slot: Slot) -> None:
    settings(store, 5_000_000)
    rates = [done(THRESHOLDS, 4_000_000, revision=1), done(THRESHOLDS, 5_000_001, revision=2)]
    assert since(store, slot, 2, *rates) == ACTIVE


def test_since_a_region_was_changed_whatever_rate_came_after(store: Path, slot: Slot) -> None:
    settings(store, 5_000_000)
    region, rate = done(REGION, 4_000_001, revision=1), done(THRESHOLDS, 5_000_001, revision=2)
    assert since(store, slot, 2, region, rate) == 4_000_001
    settings(store, 6_000_000)
    assert since(store, slot, 3, region, rate, done(REGION, 6_000_002, revision=3)) == 6_000_002


def test_what_was_refused_has_changed_nothing(store: Path, slot: Slot) -> None:
    settings(store, 5_000_000)
    rate, refused = done(THRESHOLDS, 5_000_001, revision=1), Act(0, REGION, "refused", 5_000_500, {})
    assert since(store, slot, 1, rate, refused) == ACTIVE


def test_an_edit_that_the_log_does_not_have_counts(store: Path, slot: Slot) -> None:
    rate = done(THRESHOLDS, 5_000_001, revision=1)
    settings(store, 9_000_000)
    assert since(store, slot, 1) == since(store, slot, 1, rate) == 9_000_000
    # It was between this rate and the one before, of which nothing is known.
    assert since(store, slot, 3, rate, done(THRESHOLDS, 9_000_001, revision=3)) == 9_000_001
    assert since(store, slot, 3, rate, done(THRESHOLDS, 9_000_001, revision=2)) == 9_000_000
    # The log begins after it.
    assert since(store, slot, 2, done(THRESHOLDS, 9_000_001, revision=2)) == 9_000_001


def test_settings_that_are_gone_may_have_had_a_region(store: Path, slot: Slot) -> None:
    written(store / "tiny", 7_000_000)
    later = Act(0, "model.delete", "done", 7_000_100, {})
    assert since(store, slot, 0, done(REGION, 5_000_000, revision=1), later) == 7_000_000


def test_calibrations_of_other_stations_change_nothing(store: Path, slot: Slot) -> None:
    folder = models_folder.renewals_of(store / "tiny" / slot.manifest.version)
    folder.mkdir(parents=True)
    written(store / "tiny", ACTIVE)
    for name, at_ms in ((slot.file, 2_000_000), ("float32.0123.json", 3_000_000)):
        (folder / name).write_text("{}")
        written(folder / name, at_ms)
    written(folder, 3_000_001)
    assert since(store, slot, renewed=True, stations=["line-3"]) == 2_000_000


def test_a_calibration_that_was_removed_gives_way_to_that_of_the_others(store: Path, slot: Slot) -> None:
    folder = models_folder.renewals_of(store / "tiny" / slot.manifest.version)
    folder.mkdir(parents=True)
    written(store / "tiny", ACTIVE)
    written(folder, 4_000_000)
    acts = [
        done(CALIBRATION, 2_000_000, station="line-3", removed="1"),
        done(CALIBRATION, 3_000_000, station="line-4", removed="2"),
        done(CALIBRATION, 4_000_001, station="line-4"),
    ]
    assert since(store, slot, 0, *acts, stations=["line-4"]) == 2_000_000
    assert since(store, slot, 0, *acts, stations=[]) == 3_000_000
    assert since(store, slot, 0, stations=[]) == 4_000_000  # by hand


def test_a_removal_that_was_cut_off_may_have_been_one(store: Path, slot: Slot) -> None:
    """Killed after the file was gone, and before the end was written down."""
    folder = models_folder.renewals_of(store / "tiny" / slot.manifest.version)
    folder.mkdir(parents=True)
    written(store / "tiny", ACTIVE)
    written(folder, 6_000_000)
    begun = Act(7, CALIBRATION, "begun", 4_000_000, {"station": "line-3"})
    later = done(CALIBRATION, 6_000_001, station="line-4", begun=8)
    assert since(store, slot, 0, begun, later, stations=["line-4"]) == 4_000_000
    assert since(store, slot, 0, begun, later, stations=["line-3", "line-4"]) == ACTIVE  # it is still there
    refused = Act(9, CALIBRATION, "refused", 4_000_001, {"station": "line-3", "begun": 7})
    assert since(store, slot, 0, begun, refused, later, stations=["line-4"]) == ACTIVE
    making = Act(7, CALIBRATION, "begun", 4_000_000, {"station": "line-3", "reason": "new lamp"})
    assert since(store, slot, 0, making, later, stations=["line-4"]) == ACTIVE
    told_why = Act(
        7, CALIBRATION, "begun", 4_000_000, {"station": "line-3", "reason": "lamp back", "removing": True}
    )
    assert since(store, slot, 0, told_why, later, stations=["line-4"]) == 4_000_000


def test_never_later_than_now(store: Path, slot: Slot) -> None:
    """A clock that was wrong would leave the window empty until it came true."""
    written(store / "tiny" / models_folder.ACTIVE, int(time.time() + 10**6) * 1000)
    assert since(store, slot) <= clock.now_ms()
