import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from app.errors.problems import Problem
from app.registry.category_settings import SETTINGS, CategorySettings, SettingsFiles
from app.schemas.tuning import Area

SQUARE = [[[0, 0], [100, 0], [100, 50], [0, 50]]]
UPPER_HALF = {"image": {"width": 100, "height": 100}, "polygons": SQUARE}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "screw").mkdir()
    return tmp_path


@pytest.fixture
def files(models: Path) -> SettingsFiles:
    return SettingsFiles(models)


def write(models: Path, **values: Any) -> None:
    """Replace the settings like an administrator or another server."""
    (models / "screw" / "new").write_text(json.dumps(values))
    (models / "screw" / "new").replace(models / "screw" / SETTINGS)


def set_rate(files: SettingsFiles, rate: float | None) -> CategorySettings:
    return files.change("screw", lambda settings: settings.model_copy(update={"target_fpr": rate}))


class TestGet:
    @pytest.mark.parametrize("category", ["nut", "..", "../screw", "a\0b", "backbones"])
    def test_unknown_category_is_refused(self, files: SettingsFiles, category: str) -> None:
        with pytest.raises(Problem) as caught:
            files.get(category)
        assert caught.value.name == "unknown-model"
        with pytest.raises(Problem) as caught:
            files.change(category, lambda settings: settings)
        assert caught.value.name == "unknown-model"


DAMAGE: dict[str, bytes] = {
    "cut": b'{"revision": 1, "target_fpr": 0.0',
    "unknown": b'{"revision": 1, "threshold": 3.0}',
    "a region of nothing": b'{"revision": 1, "region": {"revision": 1, "image": {"width": 9, "height": 9}, '
    b'"polygons": []}}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_settings_are_neither_ignored_nor_replaced(
    models: Path, files: SettingsFiles, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(models, revision=1, target_fpr=0.07)
    assert files.get("screw").target_fpr == 0.07
    path = models / "screw" / SETTINGS
    path.write_bytes(DAMAGE[name])
    assert [files.get("screw").target_fpr for _ in range(3)] == [0.07] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(Problem, match=r"nothing was changed. Restore its settings.json, or delete") as caught:
        set_rate(files, 0.01)
    assert caught.value.name == "model-loading"
    assert path.read_bytes() == DAMAGE[name]
    with pytest.raises(Problem, match="are damaged or cannot be read") as caught:
        SettingsFiles(models).get("screw")  # as after a restart
    assert caught.value.name == "model-loading"
    assert str(models) not in caught.value.detail


class TestChange:
    def test_change_is_written_with_next_revision(self, models: Path, files: SettingsFiles) -> None:
        assert set_rate(files, 0.01).revision == 1
        after = set_rate(files, 0.02)
        assert (after.revision, after.target_fpr) == (2, 0.02)
        assert SettingsFiles(models).get("screw") == files.get("screw") == after
        assert sorted(p.name for p in (models / "screw").iterdir()) == [".lock", SETTINGS]

    def test_invalid_change_is_refused(self, files: SettingsFiles) -> None:
        before = set_rate(files, 0.01)

        def refuse(_: CategorySettings) -> CategorySettings:
            raise Problem("conflict", "No.")

        with pytest.raises(Problem):
            files.change("screw", refuse)
        with pytest.raises(ValidationError):
            set_rate(files, 1.0)
        assert files.get("screw") == before

    def test_concurrent_changes_are_all_kept(self, models: Path) -> None:
        both = [SettingsFiles(models), SettingsFiles(models)]

        def count(files: SettingsFiles) -> None:
            for _ in range(10):
                files.change("screw", lambda settings: settings)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(count, both * 2))
        assert [files.get("screw").revision for files in both] == [40, 40]


class TestRegion:
    def test_mask_scales_to_the_model_input(self, models: Path, files: SettingsFiles) -> None:
        write(models, revision=1, region={"revision": 1, **UPPER_HALF})
        mask = files.get("screw").region_mask(None, (64, 32))
        assert mask is not None
        np.testing.assert_array_equal(mask, np.arange(64)[:, None].repeat(32, 1) < 32)
        with pytest.raises(ValueError, match="read-only"):
            mask[0, 0] = False

    def test_mask_is_cached_until_the_region_changes(self, models: Path, files: SettingsFiles) -> None:
        write(models, revision=1, region={"revision": 1, **UPPER_HALF})
        region = files.get("screw").region
        assert region is not None
        before = region.mask((8, 8))
        assert files.get("screw").region_mask("line-3", (8, 8)) is before
        left = Area.model_validate({**UPPER_HALF, "polygons": [[[0, 0], [50, 0], [50, 100], [0, 100]]]})

        def edit(settings: CategorySettings) -> CategorySettings:
            assert settings.region is not None
            region = settings.region.model_copy(update={"polygons": left.polygons})
            return settings.model_copy(update={"region": region})

        after = files.change("screw", edit).region_mask(None, (8, 8))
        assert after is not None
        np.testing.assert_array_equal(after, before.T)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"polygons": []}, "at least 1 item"),
        ({"polygons": [[[0, 0], [9, 9]]]}, "at least 3 items"),
        ({"polygons": SQUARE * 501}, "more than 2000 corners together"),
        ({"polygons": [[[0, 0], [101, 0], [9, 9]]]}, "polygon 0 reaches beyond the image"),
        ({"polygons": [[[0, 0], [9, 0], [9, -1]]]}, "greater than or equal to 0"),
        ({"image": {"width": 0, "height": 9}}, "greater than or equal to 1"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_invalid_polygons_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Area.model_validate({**UPPER_HALF, **change})
