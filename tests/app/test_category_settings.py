"""A category's settings: cheap to ask for, changed in one step, never silently those of nobody."""

import json
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from app import category_settings
from app.category_settings import SETTINGS, Area, CategorySettings, SettingsFiles
from app.problems import Problem
from flows.fastflow import models_folder
from flows.fastflow.plain_files import stamp_of
from tests.app.full_disk import files_of_at_most

SQUARE = [[[0, 0], [100, 0], [100, 50], [0, 50]]]
UPPER_HALF = {"image": {"width": 100, "height": 100}, "polygons": SQUARE}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with the folder of a category."""
    (tmp_path / "screw").mkdir()
    return tmp_path


@pytest.fixture
def files(models: Path) -> SettingsFiles:
    return SettingsFiles(models)


def write(models: Path, **values: Any) -> None:
    """As somebody by hand, or another server, would: in place of the old file."""
    (models / "screw" / "new").write_text(json.dumps(values))
    (models / "screw" / "new").replace(models / "screw" / SETTINGS)


def set_rate(files: SettingsFiles, rate: float | None) -> CategorySettings:
    return files.change("screw", lambda settings: settings.model_copy(update={"target_fpr": rate}))


class TestGet:
    def test_without_a_file_the_bundles_own(self, files: SettingsFiles) -> None:
        settings = files.get("screw")
        assert (settings.revision, settings.target_fpr, settings.review_fpr) == (0, None, None)
        assert settings.region_mask("line-3", (64, 64)) is None

    def test_reads_it_again_when_it_was_replaced(self, models: Path, files: SettingsFiles) -> None:
        write(models, revision=1, target_fpr=0.01)
        assert files.get("screw").target_fpr == 0.01
        write(models, revision=2, target_fpr=0.02)
        assert files.get("screw").target_fpr == 0.02

    def test_does_not_read_it_as_long_as_it_stays(
        self, models: Path, files: SettingsFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(models, revision=1, target_fpr=0.01)
        first = files.get("screw")

        def read(*_: object) -> bytes:
            raise AssertionError

        monkeypatch.setattr("app.category_settings.read_file", read)
        assert files.get("screw") is first

    @pytest.mark.parametrize(
        "category", ["nut", "..", "../screw", "", "screw/..", "a\0b", "backbones", "x" * 300]
    )
    def test_of_an_unknown_category(self, files: SettingsFiles, category: str) -> None:
        with pytest.raises(Problem) as caught:
            files.get(category)
        assert caught.value.name == "unknown-model"

    def test_of_a_folder_that_is_gone(self, models: Path) -> None:
        with pytest.raises(Problem) as caught:
            SettingsFiles(models / "gone").get("screw")
        assert caught.value.name == "model-loading"


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"revision": 1, "target_fpr": 0.0',
    "binary": b"\xff\xfe\x00",
    "list": b"[]",
    "no number": b'{"revision": 1, "target_fpr": "high"}',
    "NaN": b'{"revision": 1, "target_fpr": NaN}',
    "infinite": b'{"revision": 1, "target_fpr": Infinity}',
    "everything": b'{"revision": 1, "target_fpr": 1.0}',
    "nothing": b'{"revision": 1, "review_fpr": -0.1}',
    "unknown": b'{"revision": 1, "threshold": 3.0}',
    "back in time": b'{"revision": -1}',
    "bottomless": b"[" * 100_000,
    "NaN in a region": b'{"revision": 1, "region": {"revision": 1, "image": {"width": 9, "height": 9}, '
    b'"polygons": [[[NaN, 0], [9, 0], [9, 9]]]}}',
    "a region of nothing": b'{"revision": 1, "region": {"revision": 1, "image": {"width": 9, "height": 9}, '
    b'"polygons": []}}',
}


class TestDamaged:
    """Other thresholds than were set would be worse than no answer."""

    @pytest.mark.parametrize("name", DAMAGE)
    def test_those_read_before_stay_in_force(
        self, models: Path, files: SettingsFiles, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(models, revision=1, target_fpr=0.07)
        files.get("screw")
        (models / "screw" / SETTINGS).write_bytes(DAMAGE[name])
        for _ in range(3):
            assert files.get("screw").target_fpr == 0.07
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert "the settings of screw cannot be read" in record.message

    @pytest.mark.parametrize("name", DAMAGE)
    def test_without_those_nothing_is_decided(self, models: Path, files: SettingsFiles, name: str) -> None:
        (models / "screw" / SETTINGS).write_bytes(DAMAGE[name])
        for _ in range(2):
            with pytest.raises(Problem) as caught:
                files.get("screw")
            assert caught.value.name == "model-loading"
            assert "are damaged or cannot be read" in caught.value.detail
            assert str(models) not in caught.value.detail

    @pytest.mark.parametrize("name", DAMAGE)
    def test_they_are_not_overwritten(self, models: Path, files: SettingsFiles, name: str) -> None:
        """What an administrator may still want to repair stays."""
        write(models, revision=1, target_fpr=0.07)
        files.get("screw")
        (models / "screw" / SETTINGS).write_bytes(DAMAGE[name])
        with pytest.raises(Problem) as caught:
            set_rate(files, 0.01)
        assert caught.value.name == "model-loading"
        assert (models / "screw" / SETTINGS).read_bytes() == DAMAGE[name]

    @pytest.mark.parametrize("kind", ["pipe", "folder", "link", "giant"])
    def test_what_is_no_file_is_not_waited_for(self, models: Path, files: SettingsFiles, kind: str) -> None:
        path = models / "screw" / SETTINGS
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "link":
                (models / "elsewhere").write_text("{}")
                path.symlink_to(models / "elsewhere")
            case "giant":
                path.touch()
                os.truncate(path, 2**40)
        with pytest.raises(Problem) as caught:
            files.get("screw")
        assert caught.value.name == "model-loading"

    def test_repaired_they_are_in_force(self, models: Path, files: SettingsFiles) -> None:
        (models / "screw" / SETTINGS).write_bytes(b"{")
        with pytest.raises(Problem):
            files.get("screw")
        write(models, revision=1, target_fpr=0.07)
        assert files.get("screw").target_fpr == 0.07

    def test_deleted_by_hand_the_bundles_own_apply_and_the_log_says_so(
        self, models: Path, files: SettingsFiles, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(models, revision=1, target_fpr=0.07)
        files.get("screw")
        (models / "screw" / SETTINGS).unlink()
        assert files.get("screw") == CategorySettings()
        assert "the settings of screw are gone" in caplog.text

    def test_a_models_folder_that_is_gone_for_a_moment_changes_nothing(
        self, models: Path, files: SettingsFiles
    ) -> None:
        write(models, revision=1, target_fpr=0.07)
        files.get("screw")
        shutil.move(models / "screw", models / "elsewhere")
        assert files.get("screw").target_fpr == 0.07


class TestChange:
    def test_while_another_process_changes_the_category(
        self, models: Path, files: SettingsFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.05)
        with models_folder.locked(models, "screw"), pytest.raises(Problem, match="another process") as caught:
            set_rate(files, 0.02)
        assert caught.value.name == "conflict"
        assert set_rate(files, 0.02).revision == 1

    def test_a_disk_that_takes_nothing_is_told_and_changes_nothing(self, files: SettingsFiles) -> None:
        before = set_rate(files, 0.01)
        with files_of_at_most(10), pytest.raises(Problem, match="its disk is full") as caught:
            set_rate(files, 0.02)
        assert caught.value.name == "conflict"
        assert files.get("screw") == before
        assert set_rate(files, 0.02).target_fpr == 0.02

    def test_counts_and_is_written(self, models: Path, files: SettingsFiles) -> None:
        assert set_rate(files, 0.01).revision == 1
        after = set_rate(files, 0.02)
        assert (after.revision, after.target_fpr) == (2, 0.02)
        assert SettingsFiles(models).get("screw") == after
        assert sorted(p.name for p in (models / "screw").iterdir()) == [".lock", SETTINGS]

    def test_a_refusal_leaves_all_as_it_was(self, files: SettingsFiles) -> None:
        before = set_rate(files, 0.01)

        def refuse(_: CategorySettings) -> CategorySettings:
            raise Problem("conflict", "No.")

        with pytest.raises(Problem):
            files.change("screw", refuse)
        assert files.get("screw") == before

    @pytest.mark.parametrize("rate", [float("nan"), 0.0, 1.0, -1.0, float("inf")])
    def test_what_could_not_be_read_again_is_not_written(self, files: SettingsFiles, rate: float) -> None:
        before = set_rate(files, 0.01)
        with pytest.raises(ValidationError):
            set_rate(files, rate)
        assert files.get("screw") == before

    def test_interrupted_it_did_not_happen(
        self, models: Path, files: SettingsFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = set_rate(files, 0.01)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(Problem, match="its disk is full"):
            set_rate(files, 0.02)
        assert files.get("screw") == before
        assert sorted(p.name for p in (models / "screw").iterdir()) == [".lock", SETTINGS]

    @pytest.mark.parametrize("category", ["../evil", "a/b", "missing", ""])
    def test_of_no_category_leaves_nothing_behind(self, models: Path, category: str) -> None:
        before = sorted(models.parent.rglob("*"))
        with pytest.raises(Problem) as caught:
            SettingsFiles(models).change(category, lambda settings: settings)
        assert caught.value.name == "unknown-model"
        assert sorted(models.parent.rglob("*")) == before

    def test_never_replaces_a_damaged_file(self, models: Path, files: SettingsFiles) -> None:
        set_rate(files, 0.01)
        (models / "screw" / SETTINGS).write_bytes(b"{")
        with pytest.raises(Problem) as caught:
            set_rate(files, 0.02)
        assert "nothing was changed. Restore its settings.json, or delete" in caught.value.detail
        assert (models / "screw" / SETTINGS).read_bytes() == b"{"
        assert files.get("screw").target_fpr == 0.01

    def test_builds_on_the_file_not_on_what_is_remembered(self, models: Path, files: SettingsFiles) -> None:
        """Two files written within a tick of the clock can look alike: same inode, size and time."""
        set_rate(files, 0.01)
        path = models / "screw" / SETTINGS
        status = path.stat()
        path.write_bytes(path.read_bytes().replace(b'"revision":1', b'"revision":7', 1))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert files.get("screw").revision == 1
        assert set_rate(files, 0.02).revision == 8

    def test_a_late_look_of_another_thread_is_no_damage(
        self, models: Path, files: SettingsFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It looks without the lock, and may put what was there before where a change will find it."""
        set_rate(files, 0.01)
        late = files._known["screw"]
        set_rate(files, 0.02)
        looks = []

        def look(path: Path, folder: Path) -> tuple[int, ...]:
            looks.append(path)
            files._known["screw"] = late
            return stamp_of(path, folder)

        monkeypatch.setattr(category_settings, "stamp_of", look)
        assert set_rate(files, 0.03).revision == 3
        assert looks

    def test_from_many_threads_none_is_lost(self, models: Path) -> None:
        """Also not of two servers on one folder."""
        both = [SettingsFiles(models), SettingsFiles(models)]

        def count(files: SettingsFiles) -> None:
            for _ in range(25):
                files.change("screw", lambda settings: settings)

        threads = [threading.Thread(target=count, args=(files,)) for files in both * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [files.get("screw").revision for files in both] == [100, 100]


class TestRegion:
    def test_scales_to_the_models_input(self, models: Path, files: SettingsFiles) -> None:
        write(models, revision=1, region={"revision": 1, **UPPER_HALF})
        mask = files.get("screw").region_mask(None, (64, 32))
        assert mask is not None
        assert mask.shape == (64, 32)
        np.testing.assert_array_equal(mask, np.arange(64)[:, None].repeat(32, 1) < 32)

    def test_a_stations_own_comes_first(self, models: Path, files: SettingsFiles) -> None:
        right = {"image": {"width": 2, "height": 2}, "polygons": [[[1, 0], [2, 0], [2, 2], [1, 2]]]}
        write(
            models,
            revision=2,
            region={"revision": 1, **UPPER_HALF},
            stations={"line-3": {"revision": 2, **right}},
        )
        settings = files.get("screw")
        own, of_all = settings.region_mask("line-3", (4, 4)), settings.region_mask("line-4", (4, 4))
        assert own is not None
        assert of_all is not None
        np.testing.assert_array_equal(own, [[False, False, True, True]] * 4)
        np.testing.assert_array_equal(of_all, settings.region_mask(None, (4, 4)))

    def test_is_made_once_and_cannot_be_written_to(self, models: Path, files: SettingsFiles) -> None:
        """Stations that nobody knows must not fill the memory."""
        write(models, revision=1, region={"revision": 1, **UPPER_HALF})
        settings = files.get("screw")
        masks = {id(settings.region_mask(f"line-{i}", (8, 8))) for i in range(100)}
        assert len(masks) == 1
        assert len(settings._masks) == 1
        mask = settings.region_mask(None, (8, 8))
        assert mask is not None
        with pytest.raises(ValueError, match="read-only"):
            mask[0, 0] = False

    def test_masks_for_pictures_of_many_sizes_do_not_fill_the_memory(
        self, models: Path, files: SettingsFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.category_settings._MASK_BYTES", 20_000)
        write(models, revision=1, region={"revision": 1, **UPPER_HALF})
        settings = files.get("screw")
        for width in range(60, 100):
            mask = settings.region_mask(None, (100, width))
            assert mask is not None
            assert mask.shape == (100, width)
            assert sum(known.nbytes for _, known in settings._masks.values()) <= 20_000
        assert settings.region_mask(None, (100, 99)) is mask  # the latest are kept
        huge = settings.region_mask(None, (200, 200))  # larger than all may be together
        assert huge is not None
        assert list(settings._masks) == [(None, (200, 200))]

    def test_a_change_makes_it_anew(self, models: Path, files: SettingsFiles) -> None:
        write(models, revision=1, region={"revision": 1, **UPPER_HALF})
        assert files.get("screw").known_region_mask(None, (8, 8)) is None
        before = files.get("screw").region_mask(None, (8, 8))
        assert files.get("screw").known_region_mask("line-3", (8, 8)) is before
        left = Area.model_validate({**UPPER_HALF, "polygons": [[[0, 0], [50, 0], [50, 100], [0, 100]]]})

        def edit(settings: CategorySettings) -> CategorySettings:
            assert settings.region is not None
            region = settings.region.model_copy(update={"polygons": left.polygons})
            return settings.model_copy(update={"region": region})

        changed = files.change("screw", edit)
        assert changed.known_region_mask(None, (8, 8)) is None
        after = changed.region_mask(None, (8, 8))
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(after, before.T)

    def test_one_that_no_pixel_lies_in_passes_nothing(self, models: Path, files: SettingsFiles) -> None:
        sliver = [[[0.0, 40.0], [1000.0, 40.0], [1000.0, 41.0], [0.0, 41.0]]]
        region = {"revision": 1, "image": {"width": 1000, "height": 1000}, "polygons": sliver}
        write(models, revision=1, region=region)
        with pytest.raises(Problem) as caught:
            files.get("screw").region_mask(None, (8, 8))
        assert caught.value.name == "model-loading"
        assert "every part would pass" in caught.value.detail


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"polygons": []}, "at least 1 item"),
        ({"polygons": SQUARE * 65}, "at most 64 items"),
        ({"polygons": [[[0, 0], [9, 9]]]}, "at least 3 items"),
        ({"polygons": [[[0, 0], [9, 0], [9, 9]] * 200]}, "at most 500 items"),
        ({"polygons": [[[0, 0], [101, 0], [9, 9]]]}, "polygon 0 reaches beyond the picture"),
        ({"polygons": [[[0, 0], [9, 0], [9, -1]]]}, "greater than or equal to 0"),
        ({"polygons": [[[0, 0], [9, 0], [9, float("nan")]]]}, "finite number|greater than or equal to 0"),
        ({"polygons": [[[0, 0], [9, 0], [1e300, 9]]]}, "less than or equal to 65535"),
        ({"polygons": [[[0, 0], [50, 50], [100, 100]]]}, "polygon 0 encloses less than a pixel"),
        ({"polygons": [[[0, 0], [50, 50], [50, 0], [0, 50]]]}, "polygon 0 crosses itself"),
        ({"polygons": [[[0, 0], [50, 0], [50, 50], [50, 0]]]}, "polygon 0 encloses less than a pixel"),
        ({"polygons": [[[0, 0], [9, 0, 1], [9, 9]]]}, "at most 2 items"),
        ({"image": {"width": 0, "height": 9}}, "greater than or equal to 1"),
        ({"image": {"width": 10**9, "height": 9}}, "less than or equal to 65535"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_an_area_that_is_none(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Area.model_validate({**UPPER_HALF, **change})
