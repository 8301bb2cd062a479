"""Which versions there are, asked for every request; tests/app/test_residency.py has the unknown ones."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from app.catalogue import Catalogue, expect_readable
from app.problems import Problem
from flows.fastflow import models_folder
from tests.flows.fastflow.manifests import made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with versions a, active, and b of the category screw."""
    for version in ("a", "b"):
        made(tmp_path / "models", version=version)
    models_folder.activate(tmp_path / "models", "screw", "a")
    return tmp_path / "models"


@pytest.fixture
def catalogue(models: Path) -> Catalogue:
    return Catalogue(models)


def find(catalogue: Catalogue, category: str = "screw", version: str | None = None) -> str:
    return asyncio.run(catalogue.find(category, version))


def unknown(catalogue: Catalogue, category: str = "screw", version: str | None = None) -> str:
    with pytest.raises(Problem) as caught:
        find(catalogue, category, version)
    assert caught.value.name == "unknown-model"
    return caught.value.detail


def test_the_active_one_by_default_and_any_by_its_name(catalogue: Catalogue) -> None:
    assert find(catalogue) == "a"
    assert find(catalogue, version="b") == "b"


def test_whatever_is_activated_counts_at_once(models: Path, catalogue: Catalogue) -> None:
    """Also where the file keeps its length and its time of change."""
    stamp = (models / "screw" / models_folder.ACTIVE).stat()
    for version in ("b", "a") * 5:
        models_folder.activate(models, "screw", version)
        os.utime(models / "screw" / models_folder.ACTIVE, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert find(catalogue) == version


def test_the_file_is_read_only_when_it_has_changed(
    models: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, times = models_folder.active_version, list[str]()

    def counted(folder: Path, category: str) -> str | None:
        times.append(category)
        return read(folder, category)

    monkeypatch.setattr(models_folder, "active_version", counted)
    for _ in range(5):
        find(catalogue)
    assert len(times) == 1
    models_folder.activate(models, "screw", "b")
    times.clear()
    for _ in range(5):
        assert find(catalogue) == "b"
    assert len(times) == 1


def test_what_is_published_or_deleted_counts_at_once(models: Path, catalogue: Catalogue) -> None:
    made(models, version="c")
    assert find(catalogue, version="c") == "c"
    models_folder.delete(models, "screw", "c")
    assert unknown(catalogue, version="c") == "Category 'screw' has no version 'c'; there are: a, b."


def test_an_active_version_whose_folder_is_gone(models: Path, catalogue: Catalogue) -> None:
    """It is still the active one: what serves in its place, if anything, is not for the catalogue to say."""
    assert catalogue.has("screw", "a")
    shutil.rmtree(models / "screw" / "a")
    assert find(catalogue) == "a"
    assert not catalogue.has("screw", "a")
    assert unknown(catalogue, version="a") == "Category 'screw' has no version 'a'; there are: b."


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "link", "nonsense"])
def test_a_file_active_that_is_none(models: Path, catalogue: Catalogue, kind: str) -> None:
    """A pipe is not waited for, a link is not followed, and what was read before is not kept."""
    assert find(catalogue) == "a"
    active = models / "screw" / models_folder.ACTIVE
    active.rename(models / "elsewhere")
    match kind:
        case "folder":
            active.mkdir()
        case "pipe":
            os.mkfifo(active)
        case "link":
            active.symlink_to(models / "elsewhere")
        case "nonsense":
            active.write_bytes(b"a\nb\nc")
    assert "has no active version" in unknown(catalogue)
    active.rmdir() if kind == "folder" else active.unlink(missing_ok=True)
    (models / "elsewhere").rename(active)
    assert find(catalogue) == "a"


def test_a_folder_that_is_being_written_is_no_version(models: Path, catalogue: Catalogue) -> None:
    (models / "screw" / "c").mkdir()
    assert "there are: a, b." in unknown(catalogue, version="c")
    shutil.copytree(models / "screw" / "a", models / "screw" / ".x.part")
    assert "there are: a, b." in unknown(catalogue, version=".x.part")


@pytest.mark.parametrize("names", [("s" * 5000, None), ("screw", "v" * 5000), ("s\n" * 500, "v\n" * 500)])
def test_names_that_are_no_names_are_cut_short(catalogue: Catalogue, names: tuple[str, str | None]) -> None:
    detail = unknown(catalogue, *names)
    assert len(detail) < 300
    assert "\n" not in detail


class TestCategories:
    def test_those_that_have_a_version(self, models: Path, catalogue: Catalogue) -> None:
        made(models, "nut", "v1")
        (models / "empty").mkdir()
        (models / "Not-One").mkdir()
        (models / models_folder.BACKBONES).mkdir()
        assert catalogue.categories() == {"screw", "nut"}

    def test_of_an_empty_folder(self, tmp_path: Path) -> None:
        assert Catalogue(tmp_path).categories() == set()


class TestReadable:
    @pytest.mark.parametrize("kind", ["gone", "file", "link to nowhere"])
    def test_a_folder_that_cannot_be_read_is_no_empty_one(self, tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "models"
        match kind:
            case "file":
                folder.touch()
            case "link to nowhere":
                folder.symlink_to(tmp_path / "nowhere")
        catalogue = Catalogue(folder)
        for call in (lambda: expect_readable(folder), catalogue.categories, lambda: find(catalogue)):
            with pytest.raises(Problem) as caught:
                call()
            assert caught.value.name == "model-loading"
            assert caught.value.detail == "The models folder cannot be read."

    def test_one_that_comes_back_is_as_before(self, models: Path, catalogue: Catalogue) -> None:
        assert find(catalogue) == "a"
        models.rename(models.with_name("elsewhere"))
        with pytest.raises(Problem):
            find(catalogue)
        models.with_name("elsewhere").rename(models)
        assert find(catalogue) == "a"
