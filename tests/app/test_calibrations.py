"""Calibrations beside bundles: whose goes first, read again when changed, and never silently nobody's."""

import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import calibrations, renewals
from app.calibrations import CalibrationFiles
from app.problems import Problem
from app.renewals import InForce, Renewal, Slot
from flows.fastflow import bundle, models_folder
from tests.app.calibrating import files_read, renewal
from tests.flows.fastflow.manifests import made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    made(tmp_path)
    return tmp_path


@pytest.fixture
def slot(models: Path) -> Slot:
    folder = next((models / "screw").glob("2*"))
    manifest = bundle.read_manifest(folder)
    return Slot(manifest, bundle.manifest_sha256(folder, manifest), "float32")


@pytest.fixture
def files(models: Path) -> CalibrationFiles:
    return CalibrationFiles(models)


def put(files: CalibrationFiles, slot: Slot, *scores: float) -> InForce:
    found = files.change(slot, lambda _: renewal(slot, list(scores)))
    assert found is not None
    return found


def folder_of(models: Path, slot: Slot) -> Path:
    return models / "screw" / models_folder.CALIBRATIONS / slot.manifest.version


def in_force(files: CalibrationFiles, slot: Slot) -> list[float] | None:
    found = files.find(slot)
    return None if found is None else found.renewal.calibration.scores


class TestFind:
    def test_where_nothing_was_made_the_bundles_own_is_in_force(
        self, files: CalibrationFiles, slot: Slot
    ) -> None:
        assert files.find(slot) is None
        assert files.find(replace(slot, station="line-3")) is None
        assert files.stations(slot) == []
        assert files.precisions(slot) == []

    def test_a_stations_own_goes_before_the_lines(self, files: CalibrationFiles, slot: Slot) -> None:
        third, fourth = replace(slot, station="line-3"), replace(slot, station="../line/4 ü")
        put(files, slot, 1.0)
        put(files, third, 2.0)
        put(files, fourth, 3.0)
        assert [in_force(files, one) for one in (slot, third, fourth)] == [[1.0], [2.0], [3.0]]
        assert in_force(files, replace(slot, station="line-5")) == [1.0]
        assert files.stations(slot) == ["../line/4 ü", "line-3"]
        sources = [files.find(one) for one in (slot, third, replace(slot, station="line-5"))]
        assert [one and one.calibrator.source for one in sources] == ["line", "station", "line"]

    def test_of_another_engine_it_says_nothing(self, files: CalibrationFiles, slot: Slot) -> None:
        put(files, slot, 1.0)
        assert files.find(replace(slot, precision="bfloat16")) is None
        assert files.precisions(slot) == files.precisions(replace(slot, precision="bfloat16")) == ["float32"]

    def test_those_of_versions_that_serve_no_more_are_let_go(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        """A line that is trained anew every week would keep all of them."""
        models_folder.activate(models, "screw", slot.manifest.version)
        put(files, slot, 1.0)
        put(files, replace(slot, station="line-3"), 2.0)
        for n in range(3):
            folder = made(models, version=f"2027010{n + 1}T000000-abcdef")
            manifest = bundle.read_manifest(folder)
            other = Slot(manifest, bundle.manifest_sha256(folder, manifest), "float32")
            put(files, other, 3.0 + n)
            assert len(files._known) == 3  # with those of the active version
        assert in_force(files, slot) == [1.0]

    def test_of_another_version_it_says_nothing(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        put(files, slot, 1.0)
        other = bundle.read_manifest(made(models, version="20270101T000000-abcdef"))
        assert files.find(replace(slot, manifest=other)) is None

    def test_of_another_bundle_of_the_same_name_it_says_nothing(
        self, files: CalibrationFiles, slot: Slot
    ) -> None:
        put(files, slot, 1.0)
        with pytest.raises(Problem, match="cannot be read"):
            files.find(replace(slot, sha256="0" * 64))

    def test_what_was_replaced_is_read_again(self, models: Path, files: CalibrationFiles, slot: Slot) -> None:
        first = put(files, slot, 1.0)
        other = CalibrationFiles(models)  # another process
        second = put(other, slot, 2.0)
        assert in_force(files, slot) == [2.0]
        assert first.calibrator.identifier != second.calibrator.identifier
        other.change(slot, lambda _: None)
        assert files.find(slot) is None

    def test_what_stays_is_not_read_again(
        self, files: CalibrationFiles, slot: Slot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(files, slot, 1.0)
        monkeypatch.setattr(renewals, "read_file", None)
        assert in_force(files, slot) == [1.0]

    def test_each_stations_own_is_read_once(
        self, models: Path, files: CalibrationFiles, slot: Slot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file may have thousands of scores, and there may be hundreds."""
        stations = [replace(slot, station=name) for name in "abc"]
        for station in stations:
            put(files, station, 1.0)
        read = files_read(monkeypatch)
        other = CalibrationFiles(models)  # another process
        for _ in range(3):
            assert other.stations(slot) == ["a", "b", "c"]
            assert [in_force(other, station) for station in stations] == [[1.0]] * 3
        assert sorted(read) == sorted(station.file for station in stations)
        put(files, stations[1], 2.0)
        read.clear()
        assert other.stations(slot) == ["a", "b", "c"]
        assert in_force(other, stations[1]) == [2.0]
        assert read == [stations[1].file]

    def test_a_stations_own_that_cannot_be_used_is_named_and_decides_nothing(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        third = replace(slot, station="line-3")
        put(files, third, 1.0)
        path = folder_of(models, slot) / third.file
        path.write_text(json.dumps({**json.loads(path.read_text()), "manifest_sha256": "f" * 64}))
        assert files.stations(slot) == ["line-3"]
        assert in_force(files, third) == [1.0]  # as before
        other = CalibrationFiles(models)
        assert other.stations(slot) == ["line-3"]
        with pytest.raises(Problem, match="cannot be read"):
            other.find(third)

    def test_a_models_folder_that_is_gone_for_a_moment_changes_nothing(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        put(files, slot, 1.0)
        (models / "screw").rename(models / "away")
        assert in_force(files, slot) == [1.0]
        with pytest.raises(Problem, match="cannot be read"):
            CalibrationFiles(models).find(slot)
        (models / "away").rename(models / "screw")
        assert in_force(CalibrationFiles(models), slot) == [1.0]


class TestInstead:
    """What a bundle is loaded by that has none for its engine."""

    def test_a_category_that_is_not_there_yet_has_none(self, models: Path, tmp_path: Path) -> None:
        staged = made(tmp_path / ".upload", "nut", "1")
        assert CalibrationFiles(models).instead(staged, "bfloat16") is None

    def test_one_that_cannot_be_read_is_not_taken_for_none(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        reduced = replace(slot, precision="bfloat16")
        put(files, reduced, 1.0)
        (folder_of(models, slot) / reduced.file).write_text("{")
        with pytest.raises(Problem, match="cannot be read"):
            CalibrationFiles(models).instead(models / "screw" / slot.manifest.version, "bfloat16")


def changed(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {**document, **fields}


def calibration(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: {**document, "calibration": {**document["calibration"], **fields}}


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "of another version": changed(version="20270101T000000-abcdef"),
    "of another category": changed(category="nut"),
    "of another bundle of that name": changed(manifest_sha256="f" * 64),
    "of another engine": changed(precision="bfloat16"),
    "of another station": changed(station="line-3"),
    "of a newer schema": changed(schema_version=2),
    "with an unknown field": changed(extra=1),
    "without scores": calibration(scores=[]),
    "with a score that is none": calibration(scores=["x"]),
    "with statistics of another backbone": calibration(statistics=[[1.0]]),
    "with colours upside down": calibration(map_typical=3.0),
    "with a rate of nothing": changed(target_fpr=0),
    "a list": lambda document: [document],
}


class TestDamage:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_is_refused_and_the_one_before_stays(
        self, models: Path, files: CalibrationFiles, slot: Slot, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(files, slot, 1.0)
        path = folder_of(models, slot) / slot.file
        document = HOSTILE[kind](json.loads(path.read_text()))
        path.write_text(json.dumps(document))
        with caplog.at_level(logging.ERROR, "flowgauge.calibrations"):
            assert [in_force(files, slot) for _ in range(3)] == [[1.0]] * 3
        assert len(caplog.records) == 1  # not for every picture
        with pytest.raises(Problem, match="cannot be read") as caught:
            CalibrationFiles(models).find(slot)
        assert caught.value.name == "model-loading"
        assert str(models) not in caught.value.detail

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b'{"target_fpr": NaN}', b"[" * 100_000])
    def test_bytes_that_are_no_calibration(
        self, models: Path, files: CalibrationFiles, slot: Slot, content: bytes
    ) -> None:
        put(files, slot, 1.0)
        path = folder_of(models, slot) / slot.file
        path.write_bytes(content)
        assert in_force(files, slot) == [1.0]
        with pytest.raises(Problem):
            CalibrationFiles(models).find(slot)
        path.unlink()
        assert files.find(slot) is None

    def test_links_are_not_followed(self, models: Path, slot: Slot) -> None:
        path = folder_of(models, slot) / slot.file
        put(CalibrationFiles(models), slot, 1.0)
        path.rename(models / "elsewhere")
        path.symlink_to(models / "elsewhere")
        with pytest.raises(Problem):
            CalibrationFiles(models).find(slot)

    def test_a_stations_file_under_anothers_name_is_nobodys(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        third = replace(slot, station="line-3")
        put(files, third, 1.0)
        folder = folder_of(models, slot)
        shutil.copy(folder / third.file, folder / replace(slot, station="line-4").file)
        assert files.stations(slot) == ["line-3"]
        assert files.nobodys(slot) == [replace(slot, station="line-4").file]
        with pytest.raises(Problem):
            files.find(replace(slot, station="line-4"))
        assert in_force(files, third) == [1.0]

    def test_of_a_stations_own_it_is_still_that_stations(
        self, models: Path, files: CalibrationFiles, slot: Slot, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It stays in force there, and what is told of all others must go on without that station."""
        third, fourth = replace(slot, station="line-3"), replace(slot, station="line-4")
        put(files, third, 1.0)
        put(files, fourth, 2.0)
        (folder_of(models, slot) / third.file).write_text("{")
        assert [files.stations(slot) for _ in range(3)] == [["line-3", "line-4"]] * 3
        assert (files.nobodys(slot), in_force(files, third)) == ([], [1.0])
        caplog.clear()
        other = CalibrationFiles(models)  # as after a start, whose it is is not known any more
        with caplog.at_level(logging.ERROR, "flowgauge.calibrations"):
            assert [other.stations(slot) for _ in range(3)] == [["line-4"]] * 3
            assert other.nobodys(slot) == [third.file]
        assert len(caplog.records) == 1
        assert in_force(other, fourth) == [2.0]
        (folder_of(models, slot) / third.file).unlink()
        assert (other.nobodys(slot), files.stations(slot)) == ([], ["line-4"])


class TestChange:
    def test_while_another_process_changes_the_category(
        self, models: Path, files: CalibrationFiles, slot: Slot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.05)
        with models_folder.locked(models, "screw"), pytest.raises(Problem, match="another process") as caught:
            put(files, slot, 1.0)
        assert caught.value.name == "conflict"
        assert in_force(files, slot) is None

    def test_is_told_what_there_is_and_may_refuse(self, files: CalibrationFiles, slot: Slot) -> None:
        first = put(files, slot, 1.0)

        def refuse(there: InForce | None) -> Renewal:
            assert there == first
            raise Problem("precondition-failed", "no")

        with pytest.raises(Problem, match="no"):
            files.change(slot, refuse)
        assert in_force(files, slot) == [1.0]

    def test_what_could_not_be_used_is_not_written(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        put(files, slot, 1.0)
        flat = renewal(slot, [1.0]).calibration.model_copy(update={"map_typical": 2.0})
        with pytest.raises(Problem, match="flat") as caught:
            files.change(slot, lambda _: renewal(slot, [1.0], calibration=flat))
        assert caught.value.name == "conflict"
        assert in_force(CalibrationFiles(models), slot) == [1.0]

    def test_leaves_nothing_half_written(self, models: Path, files: CalibrationFiles, slot: Slot) -> None:
        put(files, slot, 1.0)
        put(files, slot, 2.0)
        assert [path.name for path in folder_of(models, slot).iterdir()] == ["float32.json"]

    def test_many_at_once_are_one_after_the_other(self, models: Path, slot: Slot) -> None:
        seen: list[float] = []

        def add(there: InForce | None) -> Renewal:
            before = 0.0 if there is None else there.renewal.calibration.scores[0]
            seen.append(before)
            return renewal(slot, [before + 1])

        threads = [
            threading.Thread(target=CalibrationFiles(models).change, args=(slot, add)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == [float(i) for i in range(8)]
        assert in_force(CalibrationFiles(models), slot) == [8.0]

    def test_of_a_version_that_was_deleted_is_refused(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        put(files, slot, 1.0)
        models_folder.delete(models, "screw", slot.manifest.version)
        assert not folder_of(models, slot).exists()  # its calibrations went with it
        with pytest.raises(Problem) as caught:
            put(files, slot, 2.0)
        assert caught.value.name == "unknown-model"
        assert not folder_of(models, slot).exists()

    def test_of_a_station_alone_is_refused_where_nothing_else_serves(
        self, models: Path, files: CalibrationFiles, slot: Slot
    ) -> None:
        """A version is loaded by its own calibration or by the line's: nobody could use a station's."""
        line = replace(slot, precision="bfloat16")
        with pytest.raises(Problem, match="Make the line's first") as caught:
            put(files, replace(line, station="line-3"), 1.0)
        assert caught.value.name == "conflict"
        assert files.stations(line) == []
        put(files, line, 1.0)
        put(files, replace(line, station="line-3"), 2.0)
        assert files.stations(line) == ["line-3"]

    def test_stations_have_a_limit(
        self, files: CalibrationFiles, slot: Slot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calibrations, "MAX_STATIONS", 2)
        for station in ("a", "b"):
            put(files, replace(slot, station=station), 1.0)
        with pytest.raises(Problem, match="limit") as caught:
            put(files, replace(slot, station="c"), 1.0)
        assert caught.value.name == "conflict"
        put(files, replace(slot, station="b"), 2.0)
        put(files, slot, 3.0)


def test_calibrations_are_no_version_and_no_version_may_be_called_so(
    models: Path, files: CalibrationFiles, slot: Slot
) -> None:
    put(files, slot, 1.0)
    assert models_folder.versions(models, "screw") == [slot.manifest.version]
    assert not models_folder.is_version(models_folder.CALIBRATIONS)
    with pytest.raises(bundle.BundleError, match="cannot be a version"):
        made(models, version=models_folder.CALIBRATIONS)
