"""The models folder: bundles appear whole or not at all, one of them is active, others come and go."""

import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.fastflow.bundle import bundle, models_folder, publication
from flows.fastflow.bundle.bundle import BundleError
from flows.fastflow.bundle.models_folder import ModelConflictError, UnknownModelError
from tests.flows.fastflow.manifests import made, manifest

NO_NAMES = ["", "..", "../x", "a/b", "/etc", "a b", "ä", "-a", ".a", "a\n", "a" * 65, "a\0"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with three versions of a category, none of them active."""
    for version in "123":
        made(tmp_path, version=version)
    return tmp_path


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def pointer(models: Path) -> tuple[str | None, str | None]:
    return models_folder.active_version(models, "screw"), models_folder.previous_version(models, "screw")


class TestPublish:
    def test_version_is_never_overwritten(self, tmp_path: Path) -> None:
        path = made(tmp_path)
        before = (path / "manifest.json").read_bytes()
        with pytest.raises(BundleError, match="already exists; versions are never overwritten"):
            made(tmp_path)
        assert (path / "manifest.json").read_bytes() == before
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize("moment", ["write_bytes", "chmod", "rename"])
    def test_interrupted_one_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        monkeypatch.setattr(Path, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path)
        assert list((tmp_path / "screw").iterdir()) == []

    @pytest.mark.parametrize("category", [*NO_NAMES, "Upper", "backbones", "a.b"])
    def test_category_is_a_plain_name(self, tmp_path: Path, category: str) -> None:
        with pytest.raises(BundleError, match="is not a valid category: use up to 64 of a-z"):
            made(tmp_path, category=category)
        assert list(tmp_path.rglob("*")) == []

    @pytest.mark.parametrize("version", [*NO_NAMES, "active", "calibrations", "settings.json"])
    def test_version_is_a_plain_name(self, tmp_path: Path, version: str) -> None:
        with pytest.raises(BundleError, match="is not a valid version: use up to 64 letters"):
            made(tmp_path, version=version)
        assert list(tmp_path.rglob("*")) == []


class TestListing:
    def test_other_files_are_not_listed(self, tmp_path: Path) -> None:
        made(tmp_path)
        for name in ("backbones/v", "Upper/v", "screw/.x.part"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "manifest.json").touch()
        for name in ("empty", "screw/unfinished"):
            (tmp_path / name).mkdir()
        (tmp_path / "file").touch()
        assert models_folder.categories(tmp_path) == ["screw"]
        assert models_folder.versions(tmp_path, "screw") == ["20260101T000000-abcdef"]

    @pytest.mark.parametrize("category", ["..", "a/b", "a\0", "nut", "backbones"])
    def test_unknown_category_has_nothing(self, models: Path, category: str) -> None:
        assert models_folder.versions(models, category) == []
        assert models_folder.active_version(models, category) is None
        with pytest.raises(UnknownModelError, match="there are: screw") as caught:
            models_folder.resolve(models, category)
        assert repr(category) in str(caught.value)


class TestActive:
    def test_the_active_version_is_the_default(self, models: Path) -> None:
        with pytest.raises(UnknownModelError, match=r"has no active version; there are: \['1', '2', '3'\]"):
            models_folder.resolve(models, "screw")
        assert models_folder.activate(models, "screw", "2") is None
        assert models_folder.resolve(models, "screw") == models / "screw" / "2"
        assert models_folder.activate(models, "screw", "1") == "2"
        assert models_folder.resolve(models, "screw") == models / "screw" / "1"
        assert models_folder.resolve(models, "screw", "2") == models / "screw" / "2"
        assert stat.S_IMODE((models / "screw" / "active").stat().st_mode) == 0o644

    def test_the_one_before_is_remembered(self, models: Path) -> None:
        for version, expected in (
            ("1", ("1", None)),
            ("2", ("2", "1")),
            ("2", ("2", "1")),
            ("1", ("1", "2")),
        ):
            models_folder.activate(models, "screw", version)
            assert pointer(models) == expected
        models_folder.delete(models, "screw", "2")
        assert pointer(models) == ("1", None)

    def test_interrupted_activation_leaves_the_active_version(
        self, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        models_folder.activate(models, "screw", "1")
        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            models_folder.activate(models, "screw", "2")
        assert pointer(models) == ("1", None)

    @pytest.mark.parametrize("version", ["4", "..", "../screw/1", "active", "1/golden"])
    def test_unknown_version_is_not_activated(self, models: Path, version: str) -> None:
        with pytest.raises(UnknownModelError, match="has no version"):
            models_folder.activate(models, "screw", version)
        assert models_folder.active_version(models, "screw") is None

    @pytest.mark.parametrize("content", [b"../../etc", b"\xff\xfe", b"1\n2\n3", b"1\n/", b"", b"active"])
    def test_damaged_pointer_names_nothing(self, models: Path, content: bytes) -> None:
        path = models / "screw" / "active"
        path.write_bytes(content)
        assert models_folder.active_version(models, "screw") is None
        with pytest.raises(ValueError, match="names no version"):
            models_folder.read_pointer(path)
        models_folder.activate(models, "screw", "1")
        assert pointer(models) == ("1", None)

    @pytest.mark.parametrize("content", [b"1", b" 1 \r\n", b"1\r\n2\r\n"])
    def test_pointer_may_be_written_by_hand(self, models: Path, content: bytes) -> None:
        (models / "screw" / "active").write_bytes(content)
        assert models_folder.resolve(models, "screw").name == "1"

    def test_activations_at_once_lose_no_step(self, models: Path) -> None:
        models_folder.activate(models, "screw", "1")
        barrier = threading.Barrier(2)

        def activate(version: str) -> None:
            barrier.wait()
            models_folder.activate(models, "screw", version)

        for _ in range(10):
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(activate, "23"))
            assert pointer(models) in (("2", "3"), ("3", "2"))


class TestDelete:
    def test_takes_all_of_it_and_its_calibrations_away(self, models: Path) -> None:
        renewals = models_folder.calibrations_folder(models / "screw" / "2")
        renewals.mkdir(parents=True)
        models_folder.delete(models, "screw", "2")
        assert models_folder.versions(models, "screw") == ["1", "3"]
        assert not renewals.exists()
        assert not list((models / "screw").glob(".*.part"))

    def test_never_the_active_one(self, models: Path) -> None:
        models_folder.activate(models, "screw", "2")
        with pytest.raises(ModelConflictError, match="screw/2 is active; activate another version first"):
            models_folder.delete(models, "screw", "2")
        bundle.verify(models / "screw" / "2")

    @pytest.mark.parametrize("version", ["4", "..", "../nut/1", "active"])
    def test_unknown_version(self, models: Path, version: str) -> None:
        made(models, "nut", "1")
        with pytest.raises(UnknownModelError):
            models_folder.delete(models, "screw", version)
        assert models_folder.categories(models) == ["nut", "screw"]

    def test_category_that_another_process_holds(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.1)
        with models_folder.lock_category(models, "screw"):
            for change in (models_folder.delete, models_folder.activate):
                with pytest.raises(ModelConflictError, match="another process is changing 'screw'"):
                    change(models, "screw", "1")
        assert models_folder.versions(models, "screw") == ["1", "2", "3"]


class TestMoveIntoPlace:
    def test_leftovers_of_killed_processes_are_removed(self, models: Path) -> None:
        staged = models / ".new.part" / "screw" / "4"
        shutil.copytree(models / "screw" / "1", staged)
        for folder in (models, models / "screw"):
            (folder / ".killed.part").mkdir()
            os.utime(folder / ".killed.part", (0, 0))
        publication.move_into_place(staged, models, manifest(version="4"))
        left = [*models.rglob(".*.part")]
        assert left == [models / ".new.part"]

    def test_never_over_another_one(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for version in "14":
            staged = models / ".upload" / "screw" / version
            shutil.copytree(models / "screw" / "1", staged)
        with pytest.raises(ModelConflictError, match="versions are never overwritten"):
            publication.move_into_place(staged.with_name("1"), models, manifest(version="1"))
        rename = Path.rename

        def late(self: Path, target: Path) -> Path:
            monkeypatch.undo()
            made(models, version="4")  # somebody else is faster
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", late)
        with pytest.raises(ModelConflictError, match="versions are never overwritten"):
            publication.move_into_place(staged, models, manifest(version="4"))
        bundle.verify(models / "screw" / "4")


def test_folder_of_one_category_is_recognised(tiny_bundle_store: Path) -> None:
    category = tiny_bundle_store / "tiny"
    assert models_folder.describe_category_folder(tiny_bundle_store) is None
    with pytest.raises(UnknownModelError, match=f"folder of the category 'tiny'; .* {tiny_bundle_store}$"):
        models_folder.resolve(category, "tiny")
