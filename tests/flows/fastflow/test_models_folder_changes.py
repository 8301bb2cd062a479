"""Bundles that are activated, replaced, rolled back and deleted, by several at once and in spite of kills."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from flows.fastflow import bundle, models_folder
from flows.fastflow.bundle import BundleError
from flows.fastflow.models_folder import ConflictError, UnknownModelError
from tests.flows.fastflow.manifests import made, manifest

DAY = 24 * 3600


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with three versions of a category, none of them active."""
    for version in "123":
        made(tmp_path, version=version)
    return tmp_path


class TestPrevious:
    def test_is_the_one_active_before(self, models: Path) -> None:
        assert models_folder.previous_version(models, "screw") is None
        models_folder.activate(models, "screw", "1")
        assert models_folder.previous_version(models, "screw") is None
        models_folder.activate(models, "screw", "2")
        assert models_folder.previous_version(models, "screw") == "1"
        models_folder.activate(models, "screw", "3")
        assert models_folder.previous_version(models, "screw") == "2"
        assert models_folder.active_version(models, "screw") == "3"

    def test_stays_when_the_active_one_is_activated_again(self, models: Path) -> None:
        for version in "122":
            models_folder.activate(models, "screw", version)
        assert _serving(models) == ("2", "1")

    def test_rolling_back_twice_changes_nothing(self, models: Path) -> None:
        for version in "12":
            models_folder.activate(models, "screw", version)
        for active in "1212":
            previous = models_folder.previous_version(models, "screw")
            assert previous is not None
            models_folder.activate(models, "screw", previous)
            assert models_folder.active_version(models, "screw") == active

    def test_one_that_was_deleted_is_none(self, models: Path) -> None:
        for version in "12":
            models_folder.activate(models, "screw", version)
        models_folder.delete(models, "screw", "1")
        assert models_folder.previous_version(models, "screw") is None
        assert models_folder.active_version(models, "screw") == "2"

    def test_both_are_written_in_one_step(self, models: Path) -> None:
        """A reader that looks all the time never finds the one without the other."""
        for version in "12":
            models_folder.activate(models, "screw", version)
        seen, stop = set(), threading.Event()

        def look() -> None:
            while not stop.is_set():
                seen.add((models / "screw" / models_folder.ACTIVE).read_text())

        reader = threading.Thread(target=look)
        reader.start()
        for _ in range(200):
            for version in "12":
                models_folder.activate(models, "screw", version)
        stop.set()
        reader.join()
        assert seen <= {"1\n2", "2\n1"}
        assert len(seen) == 2

    @pytest.mark.parametrize("kind", ["pipe", "folder", "link", "giant"])
    def test_a_file_active_that_is_no_such_file(self, models: Path, kind: str) -> None:
        """Above all it is not waited for: every request looks at it."""
        active = models / "screw" / models_folder.ACTIVE
        match kind:
            case "pipe":
                os.mkfifo(active)
            case "folder":
                active.mkdir()
            case "link":
                (models / "elsewhere").write_text("1")
                active.symlink_to(models / "elsewhere")
            case "giant":
                active.write_text("1")
                os.truncate(active, 2**40)
        assert models_folder.active_version(models, "screw") is None
        with pytest.raises(UnknownModelError, match="has no active version"):
            models_folder.resolve(models, "screw")

    def test_activations_at_once_lose_no_step(self, models: Path) -> None:
        """Whatever the order was: what was active before the last one is what can be rolled back to."""
        models_folder.activate(models, "screw", "1")
        barrier = threading.Barrier(2)

        def activate(version: str) -> None:
            barrier.wait()
            models_folder.activate(models, "screw", version)

        for _ in range(20):
            threads = [threading.Thread(target=activate, args=version) for version in "23"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert _serving(models) in (("2", "3"), ("3", "2"))


class TestDelete:
    def test_takes_all_of_it_away(self, models: Path) -> None:
        models_folder.delete(models, "screw", "2")
        assert models_folder.versions(models, "screw") == ["1", "3"]
        assert sorted(p.name for p in (models / "screw").iterdir()) == [".lock", "1", "3"]

    def test_never_the_active_one(self, models: Path) -> None:
        models_folder.activate(models, "screw", "2")
        with pytest.raises(ConflictError, match="screw/2 is active; activate another version first"):
            models_folder.delete(models, "screw", "2")
        bundle.verify(models / "screw" / "2")

    def test_nor_the_one_before_while_the_active_one_cannot_serve(self, models: Path) -> None:
        for version in "12":
            models_folder.activate(models, "screw", version)
        flow = models / "screw" / "2" / bundle.FLOW
        good = flow.read_bytes()
        flow.write_bytes(good[:-1])
        with pytest.raises(ConflictError, match="screw/1 serves as long as 2, the active one, is damaged"):
            models_folder.delete(models, "screw", "1")
        bundle.verify(models / "screw" / "1")
        models_folder.delete(models, "screw", "3")
        flow.write_bytes(good)
        models_folder.delete(models, "screw", "1")

    @pytest.mark.parametrize("version", ["4", "..", "../nut/1", "active", ".lock"])
    def test_what_is_not_there(self, models: Path, version: str) -> None:
        made(models, "nut", "1")
        with pytest.raises(UnknownModelError):
            models_folder.delete(models, "screw", version)
        assert models_folder.categories(models) == ["nut", "screw"]

    def test_a_link_goes_and_not_what_it_leads_to(self, models: Path) -> None:
        (models / "screw" / "4").symlink_to(models / "screw" / "1")
        models_folder.delete(models, "screw", "4")
        assert models_folder.versions(models, "screw") == ["1", "2", "3"]
        bundle.verify(models / "screw" / "1")

    def test_one_that_cannot_be_removed_is_gone_from_the_list(
        self, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed in the middle, the rest is in nobody's way and is swept later."""

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            models_folder.delete(models, "screw", "2")
        assert models_folder.versions(models, "screw") == ["1", "3"]
        monkeypatch.undo()
        made(models, version="2")

    def test_waits_for_who_changes_the_category(self, models: Path) -> None:
        done = threading.Event()

        def delete() -> None:
            models_folder.delete(models, "screw", "1")
            done.set()

        with models_folder.locked(models, "screw"):
            thread = threading.Thread(target=delete)
            thread.start()
            assert not done.wait(0.3)
            bundle.verify(models / "screw" / "1")
        thread.join()
        assert models_folder.versions(models, "screw") == ["2", "3"]

    def test_a_lock_that_is_never_given_back(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(models_folder, "_LOCK_SECONDS", 0.1)
        with (
            models_folder.locked(models, "screw"),
            pytest.raises(ConflictError, match="another process has been changing 'screw'"),
        ):
            models_folder.delete(models, "screw", "1")


class TestMoveIntoPlace:
    def test_never_over_another_one(self, models: Path) -> None:
        staged = models / ".upload" / "screw" / "1"
        shutil.copytree(models / "screw" / "1", staged)
        with pytest.raises(ConflictError, match="versions are never overwritten"):
            models_folder.move_into_place(staged, models, manifest(version="1"))

    def test_somebody_else_is_faster(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        staged = models / ".upload" / "screw" / "4"
        shutil.copytree(models / "screw" / "1", staged)
        rename = Path.rename

        def late(self: Path, target: Path) -> Path:
            monkeypatch.undo()
            made(models, version="4")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", late)
        with pytest.raises(ConflictError, match="versions are never overwritten"):
            models_folder.move_into_place(staged, models, manifest(version="4"))
        bundle.verify(models / "screw" / "4")

    @pytest.mark.parametrize("names", [("..", "1"), ("screw", ".."), ("screw", "a/b"), ("backbones", "1")])
    def test_never_elsewhere(self, models: Path, names: tuple[str, str]) -> None:
        with pytest.raises(BundleError, match="cannot be a"):
            models_folder.move_into_place(models / "screw" / "1", models, manifest(*names))
        assert models_folder.versions(models, "screw") == ["1", "2", "3"]


class TestLeftovers:
    def test_are_swept_by_the_next_who_publishes_after_a_day(self, models: Path) -> None:
        folder = models / "screw"
        old, young, strange = folder / ".a1b2.part", folder / ".c3d4.part", folder / ".keep"
        for left in (old, young, strange):
            (left / "golden").mkdir(parents=True)
            (left / "golden" / "0.png").touch()
        file, link = folder / ".e5f6.part", folder / ".g7h8.part"
        file.touch()
        link.symlink_to(folder / "1")
        before = time.time() - DAY - 60
        for left in (old, strange, file, link):
            os.utime(left, (before, before), follow_symlinks=False)
        made(models, version="4")
        assert sorted(p.name for p in folder.iterdir()) == [".c3d4.part", ".keep", "1", "2", "3", "4"]
        bundle.verify(folder / "1")


def _serving(models: Path) -> tuple[str | None, str | None]:
    """The active version and the one before it."""
    return models_folder.active_version(models, "screw"), models_folder.previous_version(models, "screw")
