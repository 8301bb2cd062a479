import hashlib
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.schemas.models import Model, ModelList
from app.settings import Settings
from flows.fastflow.bundle import bundle, models_folder
from tests.app.support.bundles import copy_version
from tests.flows.fastflow.manifests import edit


def client_of(store: Path) -> TestClient:
    return TestClient(create_app(Settings(models=store, preload=False)))


def test_lists_categories_and_versions(store: Path) -> None:
    active = models_folder.active_version(store, "tiny")
    assert active is not None
    copy_version(store, "a-later-one")
    copy_version(store, "v1", "idle")
    with client_of(store) as client:
        response = client.get("/v1/models")
    assert response.status_code == 200
    idle, tiny = ModelList.model_validate(response.json()).models
    assert (idle.category, idle.active, idle.versions) == ("idle", None, ["v1"])
    assert (tiny.category, tiny.active) == ("tiny", active)
    assert tiny.versions == sorted(["a-later-one", active])


def test_tells_what_is_known_of_a_category(store: Path) -> None:
    folder = models_folder.resolve(store, "tiny")
    manifest = bundle.read_manifest(folder)
    with client_of(store) as client:
        response = client.get("/v1/models/tiny")
    assert response.status_code == 200
    model = Model.model_validate(response.json())
    [version] = model.versions
    assert model.active == version.version == manifest.version
    assert version.active
    details = version.details
    assert details is not None
    assert details.sha256 == hashlib.sha256((folder / bundle.MANIFEST).read_bytes()).hexdigest()
    assert details.created == manifest.created
    assert details.metrics == manifest.metrics
    assert details.backbone.name == manifest.backbone.name
    assert (details.input_size.height, details.input_size.width) == manifest.input_size
    assert details.data.licence == manifest.data.licence
    assert details.data.n_calibration == manifest.data.n_calibration
    threshold = details.thresholds["float32"]
    assert threshold.pixel == manifest.calibration.map_threshold
    assert (
        threshold.model_dump(exclude={"fpr_at_95_confidence", "pixel", "review", "calibration"})
        == manifest.thresholds["float32"].model_dump()
    )


def test_starter_says_so(store: Path) -> None:
    edit(copy_version(store, "zzz"), lambda manifest: manifest["flow"].update(steps=0))
    with client_of(store) as client:
        model = Model.model_validate(client.get("/v1/models/tiny").json())
        page = client.get("/models/tiny").text
    assert [one.details and one.details.starter for one in model.versions] == [False, True]
    assert page.count("starter model, from 22 images") == 1


@pytest.mark.one_server("changes the models folder by hand")
def test_a_damaged_version_is_listed_without_details(store: Path) -> None:
    (copy_version(store, "zzz") / bundle.MANIFEST).write_text("{")
    with client_of(store) as client:
        response = client.get("/v1/models/tiny")
    good, bad = Model.model_validate(response.json()).versions
    assert good.details is not None
    assert bad.details is None
    assert str(store) not in response.text


@pytest.mark.one_server("changes the models folder by hand")
def test_a_models_folder_that_is_gone(store: Path) -> None:
    with client_of(store) as client:
        shutil.rmtree(store)
        for path in ("/v1/models", "/v1/models/tiny"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.json()["type"] == "model-loading"
            assert str(store) not in response.text
