import asyncio
import os
import shutil
from pathlib import Path

import pytest

from app.errors.problems import Problem
from app.registry.catalogue import Catalogue, list_categories
from flows.fastflow.bundle import models_folder
from tests.flows.fastflow.manifests import made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Create a models folder with versions a (active) and b of category screw."""
    for version in ("a", "b"):
        made(tmp_path / "models", version=version)
    models_folder.activate(tmp_path / "models", "screw", "a")
    return tmp_path / "models"


@pytest.fixture
def catalogue(models: Path) -> Catalogue:
    return Catalogue(models)


def find(catalogue: Catalogue, category: str = "screw", version: str | None = None) -> str:
    return asyncio.run(catalogue.find(category, version))


def problem(catalogue: Catalogue, category: str = "screw", version: str | None = None) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        find(catalogue, category, version)
    return caught.value.name, caught.value.detail


def test_folder_changes_take_effect_at_once(models: Path, catalogue: Catalogue) -> None:
    assert (find(catalogue), find(catalogue, version="b")) == ("a", "b")
    stamp = (models / "screw" / models_folder.ACTIVE).stat()
    for version in ("b", "a") * 5:  # also where the file keeps its length and its time of change
        models_folder.activate(models, "screw", version)
        os.utime(models / "screw" / models_folder.ACTIVE, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert find(catalogue) == version
    made(models, version="c")
    assert find(catalogue, version="c") == "c"
    models_folder.delete(models, "screw", "c")
    assert problem(catalogue, version="c")[1] == "Category 'screw' has no version 'c'; there are: a, b."


def test_active_version_may_be_missing(models: Path, catalogue: Catalogue) -> None:
    shutil.rmtree(models / "screw" / "a")
    assert find(catalogue) == "a"
    assert problem(catalogue, version="a")[0] == "unknown-model"


@pytest.mark.parametrize("kind", ["bytes", "folder"])
def test_damaged_pointer_keeps_the_active_version(
    models: Path, catalogue: Catalogue, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert find(catalogue) == "a"
    active = models / "screw" / models_folder.ACTIVE
    active.rename(models / "elsewhere")
    if kind == "folder":
        active.mkdir()
    else:
        active.write_bytes(b"\xff\xfe")
    assert [find(catalogue) for _ in range(3)] == ["a"] * 3
    [record] = caplog.records
    assert (record.levelname, str(active) in record.getMessage()) == ("ERROR", True)
    name, detail = problem(Catalogue(models))  # as after a restart
    assert name == "model-loading"
    assert detail.startswith("The file 'active' of category 'screw' is damaged")


def test_category_without_pointer_has_no_active_version(models: Path) -> None:
    (models / "screw" / models_folder.ACTIVE).unlink()
    assert problem(Catalogue(models)) == (
        "unknown-model",
        "Category 'screw' has no active version; there are: a, b.",
    )


@pytest.mark.parametrize(
    ("category", "version", "detail"),
    [
        ("bottel", None, "There is no model of category 'bottel'; GET /v1/models lists them."),
        ("../screw", None, "There is no model of category"),
        ("s" * 5000, None, "There is no model of category"),
        ("screw", "v0", "Category 'screw' has no version 'v0'; there are: a, b."),
        ("screw", "..", "Category 'screw' has no version '..'"),
        ("screw", "v" * 5000, "Category 'screw' has no version"),
    ],
)
def test_unknown_models_are_refused(
    models: Path, catalogue: Catalogue, category: str, version: str | None, detail: str
) -> None:
    name, message = problem(catalogue, category, version)
    assert (name, message[: len(detail)]) == ("unknown-model", detail)
    assert str(models) not in message
    assert len(message) < 300


def test_missing_models_folder_is_not_empty(models: Path, catalogue: Catalogue) -> None:
    assert find(catalogue) == "a"
    models.rename(models.with_name("elsewhere"))
    for call in (lambda: list_categories(models), lambda: find(catalogue)):
        with pytest.raises(Problem) as caught:
            call()
        assert caught.value.name == "model-loading"
    models.with_name("elsewhere").rename(models)
    assert find(catalogue) == "a"
