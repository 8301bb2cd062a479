import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors.problems import Problem
from app.registry.calibrations import (
    ActiveCalibration,
    CalibrationFiles,
    CalibrationTarget,
    StoredCalibration,
)
from flows.fastflow.bundle import models_folder
from tests.app.support.calibrations import make_calibration, target_of
from tests.flows.fastflow.manifests import made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    made(tmp_path)
    return tmp_path


@pytest.fixture
def slot(models: Path) -> CalibrationTarget:
    return target_of(next((models / "screw").glob("2*")))


@pytest.fixture
def files(models: Path) -> CalibrationFiles:
    return CalibrationFiles(models)


def put(files: CalibrationFiles, slot: CalibrationTarget, *scores: float) -> ActiveCalibration:
    found = files.change(slot, lambda _: make_calibration(slot, list(scores)))
    assert found is not None
    assert files.read(slot) is not None
    return found


def folder_of(models: Path, slot: CalibrationTarget) -> Path:
    return models / "screw" / models_folder.CALIBRATIONS / slot.manifest.version


def in_force(files: CalibrationFiles, slot: CalibrationTarget) -> list[float] | None:
    found = files.find(slot)
    return None if found is None else found.stored.calibration.scores


class TestFind:
    def test_bundle_calibration_is_the_default(
        self, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        assert files.find(slot) is None
        assert files.find(replace(slot, station="line-3")) is None
        assert files.stations(slot) == []

    def test_station_calibration_precedes_line_calibration(
        self, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        third, fourth = replace(slot, station="line-3"), replace(slot, station="../line/4 ü")
        put(files, slot, 1.0)
        put(files, third, 2.0)
        put(files, fourth, 3.0)
        assert [in_force(files, one) for one in (slot, third, fourth)] == [[1.0], [2.0], [3.0]]
        assert in_force(files, replace(slot, station="line-5")) == [1.0]
        assert files.stations(slot) == ["../line/4 ü", "line-3"]
        sources = [files.find(one) for one in (slot, third, replace(slot, station="line-5"))]
        assert [one and one.calibrator.source for one in sources] == ["line", "station", "line"]

    def test_calibration_of_another_engine_is_ignored(
        self, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        put(files, slot, 1.0)
        assert files.find(replace(slot, precision="bfloat16")) is None

    def test_calibration_of_replaced_bundle_is_refused(
        self, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        put(files, slot, 1.0)
        with pytest.raises(Problem, match="cannot be read"):
            files.find(replace(slot, sha256="0" * 64))


class TestFallback:
    def test_unreadable_calibration_is_not_ignored(
        self, models: Path, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        reduced = replace(slot, precision="bfloat16")
        put(files, reduced, 1.0)
        (folder_of(models, slot) / reduced.file).write_text("{")
        with pytest.raises(Problem, match="cannot be read"):
            CalibrationFiles(models).fallback(models / "screw" / slot.manifest.version, "bfloat16")


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "cut": lambda document: json.dumps(document)[:-9],
    "of another bundle": lambda document: json.dumps({**document, "manifest_sha256": "f" * 64}),
    "of another engine": lambda document: json.dumps({**document, "precision": "bfloat16"}),
    "of another station": lambda document: json.dumps({**document, "station": "line-3"}),
    "with an unknown field": lambda document: json.dumps({**document, "extra": 1}),
    "of another backbone": lambda document: json.dumps(
        {**document, "calibration": {**document["calibration"], "statistics": [[1.0]]}}
    ),
}


class TestDamage:
    @pytest.mark.parametrize("kind", DAMAGE)
    def test_damaged_calibration_keeps_the_last_good_one(
        self,
        models: Path,
        files: CalibrationFiles,
        slot: CalibrationTarget,
        kind: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        put(files, slot, 1.0)
        path = folder_of(models, slot) / slot.file
        path.write_text(DAMAGE[kind](json.loads(path.read_text())))
        assert [in_force(files, slot) for _ in range(3)] == [[1.0]] * 3
        assert [record.levelname for record in caplog.records] == ["ERROR"]  # not for every image
        with pytest.raises(Problem, match="cannot be read") as caught:
            CalibrationFiles(models).find(slot)
        assert caught.value.name == "model-loading"
        assert str(models) not in caught.value.detail
        path.unlink()
        assert files.find(slot) is None

    def test_renamed_station_file_is_refused(
        self, models: Path, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        third = replace(slot, station="line-3")
        put(files, third, 1.0)
        folder = folder_of(models, slot)
        shutil.copy(folder / third.file, folder / replace(slot, station="line-4").file)
        assert files.stations(slot) == ["line-3"]
        with pytest.raises(Problem):
            files.find(replace(slot, station="line-4"))
        assert in_force(files, third) == [1.0]


class TestChange:
    def test_unusable_calibration_is_not_written(
        self, models: Path, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        put(files, slot, 1.0)
        flat = make_calibration(slot, [1.0]).calibration.model_copy(update={"map_typical": 2.0})
        with pytest.raises(Problem, match="flat") as caught:
            files.change(slot, lambda _: make_calibration(slot, [1.0], calibration=flat))
        assert caught.value.name == "conflict"
        assert in_force(CalibrationFiles(models), slot) == [1.0]

    def test_concurrent_changes_are_serialized(self, models: Path, slot: CalibrationTarget) -> None:
        seen: list[float] = []

        def add(there: ActiveCalibration | None) -> StoredCalibration:
            before = 0.0 if there is None else there.stored.calibration.scores[0]
            seen.append(before)
            return make_calibration(slot, [before + 1])

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: CalibrationFiles(models).change(slot, add), range(4)))
        assert sorted(seen) == [float(i) for i in range(4)]
        assert in_force(CalibrationFiles(models), slot) == [4.0]

    def test_calibration_of_deleted_version_is_refused(
        self, models: Path, files: CalibrationFiles, slot: CalibrationTarget
    ) -> None:
        put(files, slot, 1.0)
        models_folder.delete(models, "screw", slot.manifest.version)
        assert not folder_of(models, slot).exists()  # its calibrations went with it
        with pytest.raises(Problem) as caught:
            put(files, slot, 2.0)
        assert caught.value.name == "unknown-model"
        assert not folder_of(models, slot).exists()
