"""Files of weights: the same whatever container they lie in, and refused where they are not what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.weights import WeightsError, save_weights
from tests.flows.fastflow.untrained import NAME, state, weights

Damage = Callable[[Path], object]


def _saved(make: Callable[[], object]) -> Damage:
    return lambda file: torch.save(make(), file)


DAMAGED: dict[str, tuple[Damage, str]] = {
    "empty": (lambda file: file.write_bytes(b""), "cannot be read as weights"),
    "text": (lambda file: file.write_text("<html>404</html>"), "cannot be read as weights"),
    "code in a pickle": (_saved(lambda: {"a": torch.nn.Linear(1, 1)}), "cannot be read as weights"),
    "other things than tensors": (_saved(lambda: {"a": 1, "b": "text"}), "holds no state dict of tensors"),
    "a list": (_saved(lambda: [torch.zeros(3)]), "holds no state dict of tensors"),
    "other names": (_saved(lambda: {f"m.{k}": v for k, v in state().items()}), r"are missing \(first: "),
    "one tensor less": (
        _saved(lambda: dict(list(state().items())[1:])),
        "does not hold the weights of test_resnet: it has",
    ),
    "another number of classes": (
        _saved(lambda: state() | {"fc.weight": torch.zeros(10, 3)}),
        "fc.weight has shape",
    ),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGED)
    def test_wrong_file_is_an_error_with_the_reason(self, tmp_path: Path, damage: str) -> None:
        make, reason = DAMAGED[damage]
        file = tmp_path / "weights.pth"
        make(file)
        with pytest.raises(WeightsError, match=reason) as caught:
            backbones.find_weights(NAME, file=file)
        assert str(file) in str(caught.value)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
    def test_truncated_file_is_an_error(self, tmp_path: Path, suffix: str, kept: float) -> None:
        file = tmp_path / f"weights{suffix}"
        save_file(state(), file) if suffix == ".safetensors" else torch.save(state(), file)
        data = file.read_bytes()
        file.write_bytes(data[: int(kept * len(data))])
        reason = r"SafetensorError \(.+\)$" if suffix == ".safetensors" else "Error$"
        with pytest.raises(WeightsError, match=f"cannot be read as weights: .*{reason}"):
            backbones.find_weights(NAME, file=file)

    def test_training_takes_none_that_were_changed(self, tmp_path: Path) -> None:
        kept = save_weights(weights(1), tmp_path)
        save_file(state(2), kept)
        with pytest.raises(WeightsError, match="does not hold the weights of its name") as caught:
            backbones.find_weights(NAME, folder=tmp_path)
        assert str(kept) in str(caught.value)


class TestConversion:
    def test_positions_of_another_grid_are_resampled(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        larger = timm.create_model("test_vit", pretrained=False, img_size=192).state_dict()
        torch.save(larger, tmp_path / "fine.pth")
        found = backbones.find_weights("test_vit", file=tmp_path / "fine.pth").state
        assert found["pos_embed"].shape == (1, 1 + 10 * 10, 64)
        model = cast(VisionTransformer, timm.create_model("test_vit", pretrained=False))
        wanted = checkpoint_filter_fn(dict(larger), model)
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
